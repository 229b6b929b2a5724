//! The agent, composed as its own process composes it, but for what fills its directory: a test says
//! which objects there are. Secrets, service accounts' tokens and Events go to the stand-in.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanyard::agent::audit::Audit;
use lanyard::agent::config::{Enforcement, NodeMode};
use lanyard::agent::credentials::{Credentials, follow};
use lanyard::agent::directory::{Directory, Published};
use lanyard::agent::events::{Events, publish};
use lanyard::agent::forward::Forwarder;
use lanyard::agent::grants::PodGrants;
use lanyard::agent::locate::Locator;
use lanyard::agent::metrics::AgentMetrics;
use lanyard::agent::observe::Observer;
use lanyard::agent::obtain::{self, EntraSetup, Ground, IdentityKey, ObtainConfig};
use lanyard::agent::pipeline::Pipeline;
use lanyard::agent::touched::Touched;
use lanyard::agent::watch::Timing;
use lanyard::agent::world::{Change, World};
use lanyard::api::object;
use lanyard::azure::https::{ProxyRules, Roots};
use lanyard::azure::imds::ImdsClient;
use lanyard::azure::relay::Relay;
use lanyard::model::grant::{Asker, Grant};
use lanyard::model::ids::Guid;
use lanyard::serve::{ConnMetrics, Drain, Limits, clock, serve};
use lanyard::sim::Simulator;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::apiserver::ApiServer;

/// What the agent is told at its start.
#[derive(Clone, Default)]
pub struct Settings {
    pub obtain: ObtainConfig,
    /// Where Entra is; the simulator's own where absent.
    pub authority: Option<String>,
    /// Whom to believe there, PEM; the simulator's where absent.
    pub ca: Option<String>,
    pub tenant: Option<Guid>,
    pub proxies: ProxyRules,
}

/// The running agent.
pub struct Composed {
    pub address: SocketAddr,
    registry: prometheus::Registry,
    directory: Arc<Published>,
    world: Mutex<World>,
    retain: Box<dyn Fn(&Directory) + Send + Sync>,
}

/// The keys of the tokens that a pod may get.
fn keys(pod: &PodGrants) -> Vec<IdentityKey> {
    let asker = Asker::from(&*pod.pod);
    let of = |grant: &Grant| -> Vec<IdentityKey> {
        let sources = grant.identity.sources.iter();
        sources
            .map(|source| IdentityKey::of(source, &grant.identity, &asker))
            .collect()
    };
    pod.granted.iter().flat_map(of).collect()
}

impl Composed {
    /// `ahead`: seconds by which its wall clock is ahead.
    pub async fn start(
        simulator: &Simulator,
        api: &ApiServer,
        ahead: Arc<AtomicU64>,
        settings: Settings,
    ) -> Self {
        let endpoint = format!("http://{}", simulator.addresses().imds.unwrap());
        let imds = ImdsClient::new(&endpoint).unwrap();
        let registry = prometheus::Registry::new();
        let directory = Arc::new(Published::default());
        let wall = move || clock::since_epoch() + Duration::from_secs(ahead.load(Ordering::SeqCst));
        let cluster = api.cluster().await;
        let events = Events::register(&registry).unwrap();
        let (tellings, dropped) = events.start();
        let node = "node-1".to_owned();
        tokio::spawn(publish::publish(cluster.clone(), node, tellings, dropped));
        let credentials = Credentials::register(&registry, events.clone(), wall.clone()).unwrap();
        tokio::spawn(follow::follow(
            credentials.clone(),
            cluster.clone(),
            Timing::default(),
        ));
        tokio::spawn(credentials.clone().remind());
        let ground = Ground {
            imds: imds.clone(),
            entra: EntraSetup {
                authority_host: settings.authority.unwrap_or_else(|| {
                    let plain = simulator.addresses().entra.unwrap();
                    format!("http://{plain}")
                }),
                tenant: settings.tenant,
                roots: Roots::SystemAnd(
                    settings.ca.unwrap_or_else(|| simulator.ca_pem().to_owned()),
                ),
                proxies: settings.proxies,
            },
            credentials: credentials.clone(),
            accounts: Some(Arc::new(obtain::ApiServer(cluster))),
        };
        let broker =
            obtain::compose(settings.obtain, ground, wall, &registry, TaskTracker::new()).unwrap();
        let renewed = broker.clone();
        credentials.on_new(move |identity| {
            let name = identity.name.clone();
            renewed.renew(|key| key.owner() == Some(&name));
        });
        let relay = Relay::new(&endpoint).unwrap();
        let observer = Observer::register(Enforcement::Enforce, relay, &registry).unwrap();
        let pipeline = Arc::new(Pipeline {
            locator: Locator::new(
                directory.clone(),
                NodeMode::Redirect,
                Duration::from_secs(20),
            ),
            directory: directory.clone(),
            broker: broker.clone(),
            forwarder: Forwarder::new(imds),
            audit: Arc::new(Audit::default()),
            observer: Arc::new(observer),
            events,
            metrics: Arc::new(AgentMetrics::register(&registry).unwrap()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = ConnMetrics::new(&registry, "pods").unwrap();
        let (limits, drain) = (Limits::default(), Drain::new());
        tokio::spawn(serve(listener, limits, pipeline, drain, metrics));
        let retain = move |directory: &Directory| {
            credentials.retain_granted(directory);
            let granted: HashSet<IdentityKey> =
                directory.pods().flat_map(|pod| keys(pod)).collect();
            broker.retain(|key| granted.contains(key));
        };
        Self {
            address,
            registry,
            directory,
            world: Mutex::default(),
            retain: Box::new(retain),
        }
    }

    /// Objects come or change.
    pub fn apply(&self, manifests: &str) {
        self.change(manifests, Change::Apply);
    }

    /// Objects go.
    pub fn delete(&self, manifests: &str) {
        self.change(manifests, |object| Change::Delete(object.key()));
    }

    fn change(&self, manifests: &str, change: impl Fn(object::Object) -> Change) {
        let mut world = self.world.lock();
        for text in manifests.split("\n---\n") {
            let value: Value = serde_saphyr::from_str(text).expect(text);
            let object = object::read(value, text).expect(text).expect(text);
            let first_seen = Duration::from_secs(1);
            world.change(change(object), first_seen, &mut Touched::default());
        }
        let directory = Directory::of(&world, |_, _| false);
        (self.retain)(&directory);
        self.directory.publish(directory);
    }

    /// The metrics as scraped.
    pub fn scrape(&self) -> String {
        let families = self.registry.gather();
        let encoded = prometheus::TextEncoder::new().encode_to_string(&families);
        encoded.unwrap()
    }
}
