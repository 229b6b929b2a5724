//! What the tests of this folder stand on: a source in memory that answers as it is told, grants,
//! and a clock whose wall part can be stepped. Nothing here is built into the product.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::model::facts::{IdentityFacts, PolicyScope, SourceFacts};
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Grant;
use crate::model::ids::{Guid, ObjectName};
use crate::model::token::Token;

use super::key::Applicant;
use super::source::{Call, SourceError, TokenSource, Urgency};
use super::{Broker, Clock, ObtainConfig, ObtainMetrics};

/// Wall time at which every test begins (since the epoch).
pub const BEGIN: Duration = Duration::from_hours(500_000);
pub const TENANT: &str = "0000000a-0000-4000-8000-00000000000a";

pub const S: fn(u64) -> Duration = Duration::from_secs;
pub const MS: fn(u64) -> Duration = Duration::from_millis;

/// A clock that tokio's paused time moves; its wall part can be stepped by seconds.
#[derive(Clone, Default)]
pub struct Steps(Arc<AtomicI64>);

impl Steps {
    pub fn clock(&self) -> Clock {
        let (start, steps) = (Instant::now(), Arc::clone(&self.0));
        Clock::new(move || {
            let wall = BEGIN + start.elapsed();
            let step = steps.load(Ordering::SeqCst);
            let by = S(step.unsigned_abs());
            if step < 0 { wall - by } else { wall + by }
        })
    }

    pub fn step(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

pub fn client(n: u32) -> Guid {
    format!("{n:08x}-0000-4000-8000-000000000001")
        .parse()
        .unwrap()
}

/// Who calls IMDS for identity `n`.
pub fn applicant(n: u32) -> Applicant {
    Applicant::of(&SourceFacts::Imds, &grant(n).identity)
}

pub fn resource_id(n: u32) -> String {
    format!(
        "/subscriptions/s/resourceGroups/rg-{n}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id"
    )
}

pub fn scope(prefix: &str) -> Arc<PolicyScope> {
    Arc::new(PolicyScope {
        resource_id_prefixes: vec![prefix.to_owned()],
        tenant_ids: vec![],
        ..PolicyScope::default()
    })
}

/// A grant of identity `n`, seen for long, that policy admits by its resource group.
pub fn grant(n: u32) -> Grant {
    Grant {
        identity: Arc::new(IdentityFacts {
            name: ObjectName::new("ns", format!("id-{n}")),
            uid: format!("uid-{n}").into(),
            generation: 1,
            client_id: client(n),
            tenant_id: None,
            object_id: None,
            resource_id: Some(resource_id(n).parse().unwrap()),
            sources: vec![SourceFacts::Imds],
            authority_host: None,
            allowed_resources: vec![],
        }),
        binding: ObjectName::new("ns", "binding"),
        default: false,
        scopes: Arc::new([scope(&format!("/subscriptions/s/resourceGroups/rg-{n}"))]),
        first_seen: BEGIN - S(86_400),
    }
}

pub use crate::agent::testkit::asker;

/// A call for identity `n`.
pub fn call(n: u32) -> Call {
    Call {
        source: SourceFacts::Imds,
        grant: grant(n),
        resource: VAULT.to_owned(),
        asker: asker("pod"),
        claims: None,
        bypass_cache: false,
        deadline: Instant::now() + S(19),
    }
}

/// A bearer text with these claims (unsigned).
pub fn jwt(claims: &serde_json::Value) -> String {
    let part = |value: &str| URL_SAFE_NO_PAD.encode(value);
    format!(
        "{}.{}.sig",
        part(r#"{"alg":"none"}"#),
        part(&claims.to_string())
    )
}

/// The audience that a token of [`token`]'s says.
pub fn audience(token: &Token) -> String {
    let payload = token.expose().split('.').nth(1).unwrap();
    let json = URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&json).unwrap();
    claims["aud"].as_str().unwrap().to_owned()
}

/// A token of identity `n` for `resource`, for `life` from `now` on.
pub fn token(n: u32, resource: &str, now: Duration, life: Duration) -> Token {
    made(n, resource, now, life, serde_json::json!({}))
}

/// The same with further claims.
fn made(n: u32, resource: &str, now: Duration, life: Duration, more: serde_json::Value) -> Token {
    let mut claims = serde_json::json!({
        "appid": client(n).to_string(), "tid": TENANT, "xms_mirid": resource_id(n), "aud": resource,
    });
    if let (Some(claims), serde_json::Value::Object(more)) = (claims.as_object_mut(), more) {
        claims.extend(more);
    }
    let mut token = Token::new(jwt(&claims), now, now, S((now + life).as_secs()));
    token.client_id = Some(client(n));
    token
}

pub fn fault(kind: FaultKind) -> SourceError {
    SourceError::Fault(Fault::new(kind, "test"))
}

/// What the source does.
#[derive(Clone)]
pub enum Reply {
    /// A token with this life.
    Lives(Duration),
    /// A token that ends then (since the epoch).
    Until(Duration),
    /// Another identity's token.
    Foreign,
    Fails(SourceError),
    Silent,
    Panics,
}

#[derive(Default)]
struct Script {
    by_identity: HashMap<Guid, Reply>,
    calls: Vec<(Guid, String, Duration, bool)>,
    running: HashMap<(Guid, String), usize>,
    drained: bool,
}

/// A source in memory. Every call takes `latency`.
#[derive(Clone)]
pub struct Fake {
    script: Arc<Mutex<Script>>,
    clock: Clock,
    pub latency: Duration,
}

impl Fake {
    pub fn new(clock: Clock) -> Self {
        Self {
            script: Arc::default(),
            clock,
            latency: MS(30),
        }
    }

    /// From now on identity `n` gets this; without it, tokens of 24 h.
    pub fn say(&self, n: u32, reply: Reply) {
        self.script.lock().by_identity.insert(client(n), reply);
    }

    pub fn calls(&self) -> usize {
        self.script.lock().calls.len()
    }

    /// Monotonic times of the calls for identity `n`.
    pub fn times(&self, n: u32) -> Vec<Duration> {
        let script = self.script.lock();
        let of = script.calls.iter().filter(|call| call.0 == client(n));
        of.map(|call| call.2).collect()
    }

    /// Whether somebody waited when the last call began.
    pub fn last_was_urgent(&self) -> bool {
        self.script.lock().calls.last().unwrap().3
    }

    pub fn drained(&self) -> bool {
        self.script.lock().drained
    }
}

struct Running(Arc<Mutex<Script>>, (Guid, String));

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running.remove(&self.1);
    }
}

impl TokenSource for Fake {
    async fn fetch(&self, call: Call, urgency: Urgency) -> Result<Token, SourceError> {
        let id = call.grant.identity.client_id;
        let key = (id, call.resource.clone());
        let _running = {
            let mut script = self.script.lock();
            let urgent = urgency.is_urgent();
            let begun = (id, call.resource.clone(), self.clock.mono(), urgent);
            script.calls.push(begun);
            // What is for one caller only belongs to no key; keys differ by more than these where a
            // credential is not the node's.
            let counted = call.claims.is_none() && call.source == SourceFacts::Imds;
            counted.then(|| {
                let running = script.running.entry(key.clone()).or_default();
                *running += 1;
                assert_eq!(*running, 1, "two fetches in flight for {key:?}");
                Running(Arc::clone(&self.script), key)
            })
        };
        tokio::time::sleep(self.latency).await;
        let said = self.script.lock().by_identity.get(&id).cloned();
        let reply = said.unwrap_or(Reply::Lives(S(86_400)));
        let n = (1..100).find(|n| client(*n) == id).unwrap();
        let now = self.clock.wall();
        // By what the token was got, for who checks whether it may be served.
        let identity = &call.grant.identity;
        let by = serde_json::json!({
            "source": call.source.as_str(), "uid": *identity.uid, "generation": identity.generation,
            "account": format!("{}/{}", call.asker.pod.namespace, call.asker.service_account),
            "own": call.claims.as_ref().map(|_| &*call.asker.uid),
        });
        let make = |n, life| Ok(made(n, &call.resource, now, life, by.clone()));
        match reply {
            Reply::Lives(life) => make(n, life),
            Reply::Until(end) => make(n, end.saturating_sub(now)),
            Reply::Foreign => make(n + 1, S(3600)),
            Reply::Fails(error) => Err(error),
            Reply::Silent => std::future::pending().await,
            Reply::Panics => panic!("a bug in a source"),
        }
    }

    fn drain(&self, draining: bool) {
        self.script.lock().drained = draining;
    }
}

/// A broker over a fake source.
pub struct Bench {
    pub broker: Arc<Broker<Fake>>,
    pub fake: Fake,
    pub steps: Steps,
}

pub fn bench_with(config: ObtainConfig) -> Bench {
    let steps = Steps::default();
    let clock = steps.clock();
    let fake = Fake::new(clock.clone());
    let metrics = ObtainMetrics::register(&prometheus::Registry::new()).unwrap();
    let broker = Broker::new(config, fake.clone(), clock, metrics, TaskTracker::new());
    Bench {
        broker,
        fake,
        steps,
    }
}

pub fn bench() -> Bench {
    bench_with(ObtainConfig::default())
}

pub const VAULT: &str = "https://vault.azure.net";
