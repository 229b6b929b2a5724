//! The stage of the sources: simulated Azure with Entra, a stand-in for the API server, between them the
//! agent's pipeline with the credentials that it loads by itself. Every wait is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lanyard::sim::journal::Listener;
use lanyard::sim::{Entry, Exchange, Listen, Simulator};
use parking_lot::Mutex;
use serde_json::Value;

use super::apiserver::{ApiServer, Event};
use super::cast::{self, Wanted};
use super::composed::{Composed, Settings};
use crate::testkit::{Conversation, PATIENCE, Reply, VAULT, request};

/// The pod of most tests: label `app: app`, service account `app` of team shop.
pub const APP_POD: &str = "127.0.2.11";
/// Another pod of the same workload.
pub const TWIN_POD: &str = "127.0.2.12";
/// Team bank's.
pub const BANK_POD: &str = "127.0.2.21";

/// Whether the credential of `shop/app` can be used.
pub const USABLE: &str = "lanyard_credential_usable{identity=\"shop/app\"}";

/// How a stage differs from the usual one.
#[derive(Default)]
pub struct Options {
    /// Further lines of the application `app` in the simulator's world.
    pub application: String,
    /// Further keys of the simulator's world.
    pub azure: &'static str,
    /// Further lines of the policies.
    pub policy: String,
    pub settings: Settings,
}

/// The agent and Azure.
pub struct Stage {
    pub simulator: Simulator,
    pub api: ApiServer,
    agent: Composed,
    ahead: Arc<AtomicU64>,
    /// Sequence number of the journal that [`Stage::since`] begins at.
    marked: Mutex<u64>,
}

/// The usual stage: two teams, no workload yet.
pub async fn stage() -> Stage {
    stage_with(Options::default()).await
}

/// The usual stage with `shop/app` and its pods; nothing is in the Secret yet.
pub async fn stage_of(sources: &[&str]) -> Stage {
    let stage = stage().await;
    stage.workload(&Wanted {
        sources,
        ..Wanted::default()
    });
    stage
}

/// The usual stage with the client secret in place.
pub async fn stage_with_secret() -> Stage {
    let stage = stage_of(&[cast::USUAL]).await;
    stage.client_secret(cast::SECRET);
    stage.usable().await;
    stage
}

/// A stage of another kind.
pub async fn stage_with(options: Options) -> Stage {
    let api = ApiServer::start().await;
    let azure = cast::azure(&api.issuer(), &options.application, options.azure);
    let azure = lanyard::sim::World::from_yaml(&azure).unwrap();
    let simulator = Simulator::start(azure, Listen::loopback()).await.unwrap();
    let ahead = Arc::new(AtomicU64::new(0));
    let agent = Composed::start(&simulator, &api, ahead.clone(), options.settings).await;
    let stage = Stage {
        simulator,
        api,
        agent,
        ahead,
        marked: Mutex::new(0),
    };
    stage.apply(&cast::teams(&options.policy));
    stage
}

impl Stage {
    /// Objects come or change.
    pub fn apply(&self, manifests: &str) {
        self.agent.apply(manifests);
    }

    /// Objects go.
    pub fn delete(&self, manifests: &str) {
        self.agent.delete(manifests);
    }

    /// An identity of this name, granted to a pod and its twin (team shop) or to the bank's.
    pub fn workload(&self, wanted: &Wanted<'_>) {
        self.apply(&wanted.granted());
        let (namespace, name) = (wanted.namespace, wanted.name);
        if namespace == "shop" {
            self.apply(&cast::pod(namespace, name, name, name, APP_POD));
            let twin = format!("{name}-twin");
            self.apply(&cast::pod(namespace, &twin, name, name, TWIN_POD));
        } else {
            self.apply(&cast::pod(namespace, name, name, name, BANK_POD));
        }
    }

    /// The usual Secret holds this client secret.
    pub fn client_secret(&self, secret: &str) {
        let data = [("clientSecret", secret.as_bytes())];
        self.api.secret("shop", "app", &data);
    }

    /// Waits until the agent has read the credential of `shop/app`: from then on a request finds it, and
    /// is not what found it first.
    pub async fn usable(&self) {
        self.eventually("a credential", || self.metric(USABLE) == Some(1.0))
            .await;
    }

    /// Moves the agent's wall clock ahead.
    pub fn let_pass(&self, seconds: u64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Asks for a token as clients do, `more` behind the query (with its `&`).
    pub async fn token(&self, pod: &str, more: &str) -> Reply {
        self.token_for(pod, &format!("{VAULT}{more}")).await
    }

    /// Asks for a token for a resource, given as it is to stand in the query.
    pub async fn token_for(&self, pod: &str, resource: &str) -> Reply {
        let path = "/metadata/identity/oauth2/token?api-version=2018-02-01";
        let mut conversation = Conversation::open(pod, self.agent.address).await;
        conversation
            .send(request(&format!("{path}&resource={resource}")))
            .await;
        conversation.reply().await
    }

    /// As an SDK does: again while it is told to try again.
    pub async fn token_at_last(&self, pod: &str) -> Reply {
        self.until("an answer that is final", pod, |reply| {
            !matches!(reply.status, 429 | 503)
        })
        .await
    }

    /// Asks until the answer is as wanted.
    pub async fn until(&self, what: &str, pod: &str, is: impl Fn(&Reply) -> bool) -> Reply {
        let begun = Instant::now();
        loop {
            let reply = self.token(pod, "").await;
            if is(&reply) {
                return reply;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {reply:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until something that is not asked for by a pod has happened.
    pub async fn eventually(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !happened() {
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}; Events: {:?}",
                self.api.events()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The first Event on an identity with this reason; pods have theirs beside it.
    pub async fn event(&self, reason: &str) -> Event {
        let is = |one: &Event| one.reason == reason && one.about.starts_with("AzureIdentity/");
        let find = || self.api.events().into_iter().find(is);
        self.eventually(&format!("an Event {reason}"), || find().is_some())
            .await;
        find().unwrap()
    }

    /// The first Event with this in its note, while the pod asks and is served.
    pub async fn event_while_served(&self, word: &str) -> Event {
        let is = |one: &Event| one.note.contains(word) && one.about.starts_with("AzureIdentity/");
        let find = || self.api.events().into_iter().find(is);
        self.served_until(&format!("an Event with {word}"), || find().is_some())
            .await;
        find().unwrap()
    }

    /// The pod asks again and again, and is served each time, until something has happened.
    pub async fn served_until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !happened() {
            let events = self.api.events();
            assert!(begun.elapsed() < PATIENCE, "{what}; Events: {events:?}");
            self.token(APP_POD, "").await.claims();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the agent sent to Entra's token endpoint since the mark.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let entries = self.since();
        entries
            .into_iter()
            .filter(|entry| entry.listener == Listener::Entra)
            .filter_map(|entry| entry.exchange)
            .collect()
    }

    /// What the agent sent to IMDS since the mark.
    pub fn imds_calls(&self) -> usize {
        let entries = self.since();
        let calls = entries
            .iter()
            .filter(|entry| entry.listener == Listener::Imds);
        calls.count()
    }

    /// Everything that reached Azure since the mark.
    pub fn since(&self) -> Vec<Entry> {
        self.simulator.journal_since(*self.marked.lock())
    }

    /// Forgets what was sent so far.
    pub fn mark(&self) {
        *self.marked.lock() = self.simulator.journal().last().map_or(0, |entry| entry.seq);
    }

    /// The metrics as scraped.
    pub fn scrape(&self) -> String {
        self.agent.scrape()
    }

    /// The sum of all series that begin so.
    pub fn sum_of(&self, beginning: &str) -> f64 {
        let scraped = self.scrape();
        let series = scraped.lines().filter(|line| line.starts_with(beginning));
        let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum()
    }

    /// A metric's value, by its whole name with labels; `None`: it is not there.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let scraped = self.scrape();
        let mut lines = scraped.lines();
        let line = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }
}

/// The claims of a JWT.
pub fn claims(token: &str) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}
