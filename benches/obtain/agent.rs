//! The agent, composed in this process: 250 pods, each with an identity of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanyard::agent::audit::Audit;
use lanyard::agent::config::{Enforcement, NodeMode};
use lanyard::agent::credentials::{Credentials, Seen};
use lanyard::agent::directory::{Directory, Published};
use lanyard::agent::events::Events;
use lanyard::agent::forward::Forwarder;
use lanyard::agent::locate::Locator;
use lanyard::agent::metrics::AgentMetrics;
use lanyard::agent::observe::Observer;
use lanyard::agent::obtain::{self, EntraSetup, Ground, ObtainConfig};
use lanyard::agent::pipeline::Pipeline;
use lanyard::agent::touched::Touched;
use lanyard::agent::world::{Change, World};
use lanyard::api::object;
use lanyard::azure::https::{ProxyRules, Roots};
use lanyard::azure::imds::ImdsClient;
use lanyard::azure::relay::Relay;
use lanyard::kubernetes::SecretData;
use lanyard::model::ids::ObjectName;
use lanyard::serve::{ConnMetrics, Drain, Limits, clock, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::task::TaskTracker;

use crate::assertion::pair;
use crate::azure::{Azure, TENANT, client_id};

pub const PODS: usize = 250;

/// Where tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Imds,
    Certificate,
}

impl Source {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Imds => "imds",
            Self::Certificate => "servicePrincipal with a certificate",
        }
    }
}

/// The running agent.
pub struct Agent {
    pub address: SocketAddr,
    ahead: Arc<AtomicU64>,
}

impl Agent {
    pub async fn start(azure: &Azure, source: Source, config: ObtainConfig) -> Self {
        let endpoint = format!("http://{}", azure.address);
        let imds = ImdsClient::new(&endpoint).unwrap();
        let registry = prometheus::Registry::new();
        let ahead = Arc::new(AtomicU64::new(0));
        let wall = {
            let ahead = ahead.clone();
            move || clock::since_epoch() + Duration::from_secs(ahead.load(Ordering::SeqCst))
        };
        let events = Events::register(&registry).unwrap();
        let credentials = Credentials::register(&registry, events.clone(), wall.clone()).unwrap();
        let ground = Ground {
            imds: imds.clone(),
            entra: EntraSetup {
                authority_host: endpoint.clone(),
                tenant: None,
                roots: Roots::Only(pair().0),
                proxies: ProxyRules::default(),
            },
            credentials: credentials.clone(),
            accounts: None,
        };
        let tasks = TaskTracker::new();
        let directory = Arc::new(Published::default());
        let relay = Relay::new(&endpoint).unwrap();
        let observer = Observer::register(Enforcement::Enforce, relay, &registry).unwrap();
        let pipeline = Arc::new(Pipeline {
            locator: Locator::new(
                directory.clone(),
                NodeMode::Redirect,
                Duration::from_secs(1),
            ),
            broker: obtain::compose(config, ground, wall, &registry, tasks).unwrap(),
            forwarder: Forwarder::new(imds),
            audit: Arc::new(Audit::default()),
            observer: Arc::new(observer),
            events,
            metrics: Arc::new(AgentMetrics::register(&registry).unwrap()),
            directory: directory.clone(),
        });
        let known = Directory::of(&world(source), |_, _| false);
        credentials.retain_granted(&known);
        directory.publish(known);
        give(&credentials);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = ConnMetrics::new(&registry, "pods").unwrap();
        let serving = serve(listener, Limits::default(), pipeline, Drain::new(), metrics);
        tokio::spawn(serving);
        Self { address, ahead }
    }

    /// Moves the agent's wall clock ahead.
    pub fn let_pass(&self, seconds: u64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// A connection from a pod.
    pub async fn connect(&self, pod: usize) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        let from: SocketAddr = format!("{}:0", address(pod)).parse().unwrap();
        socket.bind(from).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

/// Asks for a token; the status must be 200.
pub async fn ask(stream: &mut TcpStream, resource: &str) {
    let request = format!(
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let mut some = [0; 8192];
        let count = stream.read(&mut some).await.unwrap();
        assert_ne!(count, 0, "closed");
        answer.extend_from_slice(&some[..count]);
        if answer.ends_with(b"}") {
            break;
        }
    }
    let status = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    let whole = || String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(status, "HTTP/1.1 200", "{}", whole());
}

fn address(pod: usize) -> String {
    format!("127.7.0.{}", pod + 1)
}

fn world(source: Source) -> World {
    let sources = match source {
        Source::Imds => json!([{"imds": {}}]),
        Source::Certificate => {
            json!([{"servicePrincipal": {"certificateRef": {"name": "tls"}}}])
        }
    };
    let clients: Vec<String> = (0..PODS).map(client_id).collect();
    let mut manifests = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}}),
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy", "metadata": {"name": "shop"},
            "spec": {"namespaces": {"matchLabels": {"team": "shop"}}, "clientIDs": clients}}),
    ];
    for (n, client) in clients.iter().enumerate() {
        let name = format!("app-{n}");
        manifests.extend([
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": name}},
                "spec": {"containers": [], "serviceAccountName": name},
                "status": {"phase": "Running", "podIP": address(n)}}),
            json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
                "metadata": {"namespace": "shop", "name": name, "uid": name},
                "spec": {"clientID": client, "tenantID": TENANT, "tokenSources": sources}}),
            json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding",
                "metadata": {"namespace": "shop", "name": name},
                "spec": {"identity": name, "subjects": [{"podSelector": {"matchLabels": {"app": name}}}]}}),
        ]);
    }
    let mut world = World::default();
    for manifest in manifests {
        let object = object::read(manifest, "1").unwrap().unwrap();
        let long_ago = Duration::from_secs(1);
        world.change(Change::Apply(object), long_ago, &mut Touched::default());
    }
    world
}

/// All identities present the same certificate.
fn give(credentials: &Credentials) {
    let (certificate, key) = pair();
    let mut data = SecretData::default();
    for (name, value) in [("tls.crt", certificate), ("tls.key", key)] {
        data.insert(name.to_owned(), value.into_bytes().into());
    }
    credentials.take(&ObjectName::new("shop", "tls"), &Seen::There(&data));
}
