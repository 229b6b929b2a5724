//! The stage: the agent's pipeline on a loopback port in front of the simulator, and a client that
//! speaks bytes from a pod's address. Every wait is bounded; the agent's wall clock can be moved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lanyard::agent::audit::Audit;
use lanyard::agent::config::{Enforcement, NodeMode};
use lanyard::agent::credentials::Credentials;
use lanyard::agent::directory::{Directory, Published};
use lanyard::agent::events::Events;
use lanyard::agent::forward::Forwarder;
use lanyard::agent::locate::Locator;
use lanyard::agent::metrics::AgentMetrics;
use lanyard::agent::observe::Observer;
use lanyard::agent::obtain::{self, EntraSetup, Ground, ObtainConfig, Sources};
use lanyard::agent::pipeline::Pipeline;
use lanyard::agent::touched::Touched;
use lanyard::agent::world::{Change, World};
use lanyard::api::object;
use lanyard::azure::https::{ProxyRules, Roots};
use lanyard::azure::imds::ImdsClient;
use lanyard::azure::relay::Relay;
use lanyard::serve::{ConnMetrics, Drain, Limits, clock, serve};
use lanyard::sim::{Entry, Listen, Simulator};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::world;

/// No wait of a test is longer; a test that needs this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// "At once", measured on a loaded machine: far below every wait of the agent.
pub const AT_ONCE: Duration = Duration::from_secs(2);
/// The resource that most tests ask for.
pub const VAULT: &str = "https://vault.azure.net";

/// How a stage differs from the usual one.
pub struct Options {
    pub limits: Limits,
    /// How long an unknown pod is waited for.
    pub pod_wait: Duration,
    pub obtain: ObtainConfig,
    pub enforcement: Enforcement,
    /// YAML behind the simulator's world.
    pub azure: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            pod_wait: Duration::from_secs(20),
            obtain: ObtainConfig::default(),
            enforcement: Enforcement::Enforce,
            azure: "",
        }
    }
}

/// The agent and Azure.
pub struct Stage {
    pub simulator: Simulator,
    pub address: SocketAddr,
    pub drain: Drain,
    pub observer: Arc<Observer>,
    pub pipeline: Arc<Pipeline<Sources>>,
    pub registry: prometheus::Registry,
    directory: Arc<Published>,
    world: Mutex<World>,
    /// Seconds by which the agent's wall clock is ahead.
    ahead: Arc<AtomicU64>,
}

/// The usual stage.
pub async fn stage() -> Stage {
    stage_with(Options::default()).await
}

/// A stage of another kind.
pub async fn stage_with(options: Options) -> Stage {
    let azure = lanyard::sim::World::from_yaml(&world::azure(options.azure)).unwrap();
    let simulator = Simulator::start(azure, Listen::loopback()).await.unwrap();
    let endpoint = format!("http://{}", simulator.addresses().imds.unwrap());
    let imds = ImdsClient::new(&endpoint).unwrap();
    let registry = prometheus::Registry::new();
    let directory = Arc::new(Published::default());
    let ahead = Arc::new(AtomicU64::new(0));
    let wall = {
        let ahead = ahead.clone();
        move || clock::since_epoch() + Duration::from_secs(ahead.load(Ordering::SeqCst))
    };
    let tasks = TaskTracker::new();
    let events = Events::register(&registry).unwrap();
    let ground = Ground {
        imds: imds.clone(),
        entra: EntraSetup {
            authority_host: format!("http://{}", simulator.addresses().entra.unwrap()),
            tenant: None,
            roots: Roots::Only(simulator.ca_pem().to_owned()),
            proxies: ProxyRules::default(),
        },
        credentials: Credentials::register(&registry, events.clone(), wall.clone()).unwrap(),
        accounts: None,
    };
    let broker = obtain::compose(options.obtain, ground, wall, &registry, tasks).unwrap();
    let relay = Relay::new(&endpoint).unwrap();
    let observer = Arc::new(Observer::register(options.enforcement, relay, &registry).unwrap());
    let pipeline = Arc::new(Pipeline {
        locator: Locator::new(directory.clone(), NodeMode::Redirect, options.pod_wait),
        directory: directory.clone(),
        broker,
        forwarder: Forwarder::new(imds),
        audit: Arc::new(Audit::default()),
        observer: observer.clone(),
        events,
        metrics: Arc::new(AgentMetrics::register(&registry).unwrap()),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (drain, metrics) = (Drain::new(), ConnMetrics::new(&registry, "pods").unwrap());
    tokio::spawn(serve(
        listener,
        options.limits,
        pipeline.clone(),
        drain.clone(),
        metrics,
    ));
    let stage = Stage {
        simulator,
        address,
        drain,
        observer,
        pipeline,
        registry,
        directory,
        world: Mutex::default(),
        ahead,
    };
    stage.apply(&world::manifests());
    stage
}

impl Stage {
    /// Objects come or change; they count as known for long.
    pub fn apply(&self, manifests: &str) {
        self.apply_at(manifests, Duration::from_secs(1));
    }

    /// Objects come or change; new ones were first seen at `now` (since the epoch).
    pub fn apply_at(&self, manifests: &str, now: Duration) {
        let changes = manifests.split("\n---\n").map(|text| {
            let value: Value = serde_saphyr::from_str(text).expect(text);
            let object = object::read(value, text).expect(text).expect(text);
            Change::Apply(object)
        });
        self.change(changes, now);
    }

    /// Objects go.
    pub fn delete(&self, manifests: &str) {
        let changes = manifests.split("\n---\n").map(|text| {
            let value: Value = serde_saphyr::from_str(text).expect(text);
            Change::Delete(object::read(value, text).expect(text).expect(text).key())
        });
        self.change(changes, Duration::from_secs(1));
    }

    /// From now on assignments count, and the one of this name is the node's.
    pub fn require_assignments(&self, name: &str) {
        let own = Change::Compute(name.into());
        self.change(std::iter::once(own), Duration::from_secs(1));
    }

    /// Until some request waits for a change of what is known.
    pub async fn until_waiting(&self) {
        let begun = Instant::now();
        while self.directory.waiting() == 0 {
            assert!(begun.elapsed() < PATIENCE, "nobody waits");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn change(&self, changes: impl Iterator<Item = Change>, now: Duration) {
        let mut world = self.world.lock();
        changes.for_each(|change| world.change(change, now, &mut Touched::default()));
        self.directory.publish(Directory::of(&world, |_, _| false));
    }

    /// Moves the agent's wall clock ahead.
    pub fn let_pass(&self, seconds: u64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Closes all of Azure's ports.
    pub async fn azure_goes_away(&mut self) {
        let azure = lanyard::sim::World::from_yaml(&world::azure("")).unwrap();
        let nothing = Simulator::start(azure, Listen::default()).await.unwrap();
        std::mem::replace(&mut self.simulator, nothing)
            .shutdown()
            .await;
    }

    /// What the agent sent to IMDS, its own words.
    pub fn upstream(&self) -> Vec<Entry> {
        self.simulator.journal()
    }

    /// The metrics as scraped.
    pub fn scrape(&self) -> String {
        let families = self.registry.gather();
        prometheus::TextEncoder::new()
            .encode_to_string(&families)
            .unwrap()
    }

    /// A connection from a pod.
    pub async fn connect(&self, pod: &str) -> Conversation {
        Conversation::open(pod, self.address).await
    }

    /// Sends bytes from a pod and reads the one answer.
    pub async fn send(&self, pod: &str, bytes: impl AsRef<[u8]>) -> Reply {
        let mut conversation = self.connect(pod).await;
        conversation.send(bytes).await;
        conversation.reply().await
    }

    /// GET with `Metadata: true`.
    pub async fn get(&self, pod: &str, target: &str) -> Reply {
        self.send(pod, request(target)).await
    }

    /// Asks for a token as clients do, `more` behind the query (with its `&`).
    pub async fn token(&self, pod: &str, more: &str) -> Reply {
        self.get(pod, &token_target(more)).await
    }

    /// Asks for a token for a resource, given as it is to stand in the query.
    pub async fn token_for(&self, pod: &str, resource: &str) -> Reply {
        let path = "/metadata/identity/oauth2/token?api-version=2018-02-01";
        self.get(pod, &format!("{path}&resource={resource}")).await
    }
}

/// The token route with what every client sends.
pub fn token_target(more: &str) -> String {
    format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={VAULT}{more}")
}

/// A plain GET with `Metadata: true`.
pub fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n")
}

/// A JWT's claims.
#[track_caller]
pub fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JWT");
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// One connection.
pub struct Conversation {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Conversation {
    /// Connects from an address.
    pub async fn open(from: &str, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        let from = SocketAddr::new(from.parse().unwrap(), 0);
        socket.bind(from).unwrap();
        let connected = timeout(PATIENCE, socket.connect(to)).await;
        Self {
            stream: connected.expect("a connection in time").unwrap(),
            unread: Vec::new(),
        }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("the agent takes bytes").expect("sent");
    }

    /// The next answer, by its `Content-Length`; the connection stays open.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// The next answer, to a request with that method: to HEAD there is no body.
    pub async fn reply_to(&mut self, method: &str) -> Reply {
        let begun = Instant::now();
        let read = async {
            loop {
                if let Some((reply, length)) = Reply::parse(&self.unread, method, begun) {
                    self.unread.drain(..length);
                    return reply;
                }
                let mut some = vec![0; 16 * 1024];
                let count = self.stream.read(&mut some).await.expect("readable");
                let before = String::from_utf8_lossy(&self.unread);
                assert_ne!(count, 0, "closed after {before:?}");
                self.unread.extend_from_slice(&some[..count]);
            }
        };
        timeout(PATIENCE, read).await.expect("an answer in time")
    }

    /// What comes until the agent closes.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.unread);
        let end = timeout(PATIENCE, self.stream.read_to_end(&mut all)).await;
        end.expect("closed in time").expect("closed, not reset");
        all
    }
}

/// One answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// By lower-case name.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// From the reading's start to its end.
    pub took: Duration,
}

impl Reply {
    fn parse(bytes: &[u8], method: &str, begun: Instant) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length?.1.parse().ok()?;
        let length = if method == "HEAD" { 0 } else { length };
        let body = bytes.get(end..end + length)?;
        let reply = Self {
            status,
            headers,
            body: String::from_utf8(body.to_vec()).ok()?,
            took: begun.elapsed(),
        };
        Some((reply, end + length))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as a JSON object.
    #[track_caller]
    pub fn json(&self) -> Value {
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/json; charset=utf-8"), "{self:?}");
        let value: Value = serde_json::from_str(&self.body).unwrap();
        assert!(value.is_object(), "{self:?}");
        value
    }

    /// A field of the body that is a string.
    #[track_caller]
    pub fn text(&self, field: &str) -> String {
        let value = self.json();
        value[field]
            .as_str()
            .unwrap_or_else(|| panic!("{field}: {self:?}"))
            .to_owned()
    }

    /// Asserts a token and gives its claims.
    #[track_caller]
    pub fn claims(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        claims_of(&self.text("access_token"))
    }

    /// Asserts a token of this identity.
    #[track_caller]
    pub fn is_token_of(&self, identity: world::Identity) {
        let claims = self.claims();
        assert_eq!(claims["appid"], identity.client_id, "{self:?}");
        assert_eq!(claims["oid"], identity.object_id, "{self:?}");
        assert_eq!(claims["tid"], world::TENANT);
        assert_eq!(self.text("client_id"), identity.client_id);
    }

    /// Asserts an error as clients understand it: its status, a JSON object with both texts, no
    /// token, and `Retry-After` exactly where the request may be repeated.
    #[track_caller]
    pub fn is_error(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        let object = self.json();
        assert!(
            object["error"].is_string() && object["error_description"].is_string(),
            "{self:?}"
        );
        assert_eq!(object.as_object().unwrap().len(), 2, "{self:?}");
        let after = self.header("retry-after");
        if matches!(status, 429 | 503) {
            let seconds: u32 = after.unwrap_or_else(|| panic!("{self:?}")).parse().unwrap();
            assert!((1..=70).contains(&seconds), "{self:?}");
        } else {
            assert_eq!(after, None, "{self:?}");
        }
    }

    /// Asserts an error that came without any wait.
    #[track_caller]
    pub fn is_error_at_once(&self, status: u16) {
        self.is_error(status);
        assert!(self.took < AT_ONCE, "{self:?}");
    }

    /// Asserts Azure's words for an identity that is not there or not granted, at once.
    #[track_caller]
    pub fn is_identity_not_found(&self) {
        self.is_error_at_once(400);
        let body = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
        assert_eq!(self.body, body);
    }
}
