//! Random histories of several pods, identities and sources: whatever happens, a token is served only
//! while its pod is granted it, only by what the identity says at that moment, only got for that key,
//! and never within 30 s of its end.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::agent::obtain::fake::{asker, bench_with, fault};
use crate::agent::obtain::{IdentityKey, ObtainConfig};
use crate::agent::rate::Rate;
use crate::api::object::Object;
use crate::model::facts::SourceFacts;
use crate::model::ids::Guid;

/// Two teams; each has two pods of different service accounts.
const TEAMS: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Event {
    Ask(usize, usize, Kind),
    WaitMs(u64),
    Wait(u64),
    Step(i64),
    Say(u32, u8),
    /// The team's identity is granted from now on, or is not any more.
    Grant(usize, bool),
    /// It names other sources: another generation.
    Sources(usize, u8),
    /// It is deleted and made again.
    Recreate(usize),
    /// Team b's names team a's client id, or its own again.
    Steal(bool),
    /// Team a's Secret changed.
    Renew,
    Retain,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Usual,
    Claims,
    Bypass,
}

/// A team's identity as it is now.
#[derive(Clone, Debug)]
struct Truth {
    granted: bool,
    sources: u8,
    generation: u64,
    uid: u32,
    client: u32,
}

impl Truth {
    fn sources(&self) -> Vec<&'static str> {
        let own = ["imds", "federated", "servicePrincipal"];
        match self.sources {
            n @ 0..=2 => vec![own[usize::from(n)]],
            3 => vec!["federated", "imds"],
            _ => vec!["imds", "servicePrincipal"],
        }
    }

    fn objects(&self, team: &str, number: u32) -> Vec<Object> {
        let sources = self.sources().into_iter().map(|source| match source {
            "servicePrincipal" => json!({source: {"secretRef": {"name": "s"}}}),
            _ => json!({source: {}}),
        });
        let mut objects = vec![object(json!({
            "apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
            "metadata": {"namespace": team, "name": "x", "uid": self.uid.to_string(), "generation": self.generation},
            "spec": {"clientID": client(self.client).to_string(), "tenantID": fake::TENANT, "resourceID": resource_id(number),
                "tokenSources": sources.collect::<Vec<_>>()}}))];
        if self.granted {
            let everyone = json!([{"podSelector": {}}]);
            objects.push(binding(team, "x", &everyone, false));
        }
        objects
    }
}

struct Stage {
    rig: Rig,
    truth: Mutex<[Truth; 2]>,
    served: Mutex<HashMap<Guid, usize>>,
}

fn address(team: usize, pod: usize) -> String {
    format!("10.0.{team}.{pod}")
}

impl Stage {
    fn new() -> Arc<Self> {
        let plenty = Rate {
            per_second: 1000,
            burst: 1000,
        };
        let bench = bench_with(ObtainConfig {
            pod_fetches: plenty,
            pod_anew: plenty,
            ..ObtainConfig::default()
        });
        let truth = |client| Truth {
            granted: true,
            sources: 0,
            generation: 1,
            uid: client,
            client,
        };
        let stage = Self {
            rig: rig_over(bench),
            truth: Mutex::new([truth(1), truth(2)]),
            served: Mutex::default(),
        };
        stage.publish();
        Arc::new(stage)
    }

    fn publish(&self) {
        let truth = self.truth.lock();
        let mut objects = Vec::new();
        for (team, name) in TEAMS.iter().enumerate() {
            let number = u32::try_from(team).unwrap() + 1;
            let prefix = format!("/subscriptions/s/resourceGroups/rg-{number}");
            objects.push(namespace(name, name));
            objects.push(policy(name, name, &[&prefix]));
            objects.extend([1, 2].map(|n| {
                let pod_name = format!("{name}{n}");
                pod(name, &pod_name, &address(team, n), None)
            }));
            objects.extend(truth[team].objects(name, number));
        }
        let directory = Directory::of(&world(objects), |_, _| false);
        self.rig.pipeline.directory.publish(directory);
    }

    fn change(&self, team: usize, change: impl FnOnce(&mut Truth)) {
        change(&mut self.truth.lock()[team]);
        self.publish();
    }

    async fn ask(self: Arc<Self>, team: usize, pod: usize, kind: Kind) {
        let query = TokenQuery {
            dialect: Dialect::Imds,
            resource: VAULT.to_owned(),
            selector: Selector::Default,
            claims: matches!(kind, Kind::Claims).then(|| "{}".to_owned()),
            bypass_cache: matches!(kind, Kind::Bypass),
        };
        let peer = address(team, pod).parse().unwrap();
        let answer = self.rig.pipeline.token(&Origin::of(peer), &query).await;
        // Nothing runs between the answer and these looks at what is true now.
        let (wall, truth) = (
            self.rig.bench.broker.wall(),
            self.truth.lock()[team].clone(),
        );
        let Ok(answer) = answer else { return };
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let number = |name: &str| body[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(S(number("expires_on")) > wall + S(30), "too late");
        assert!(number("expires_in") >= 30);
        let token = body["access_token"].as_str().unwrap();
        let claims = token.split('.').nth(1).unwrap();
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert!(truth.granted, "not granted any more: {claims}");
        // Whoever names another team's client id gets nothing, whatever it was got by.
        let own = client(u32::try_from(team).unwrap() + 1);
        assert_eq!(claims["appid"], own.to_string());
        assert_eq!(truth.client, u32::try_from(team).unwrap() + 1);
        let source = claims["source"].as_str().unwrap();
        let named = truth.sources();
        assert!(
            named
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&source.replace('_', ""))),
            "{source} is not of {named:?}"
        );
        if source != "imds" {
            assert_eq!(claims["uid"], truth.uid.to_string());
            assert_eq!(claims["generation"], truth.generation);
        }
        let name = format!("{}{pod}", TEAMS[team]);
        if source == "federated" {
            assert_eq!(claims["account"], format!("{}/sa-{name}", TEAMS[team]));
        }
        let for_one = matches!(kind, Kind::Claims).then(|| format!("uid-{name}"));
        assert_eq!(
            claims["own"],
            json!(for_one),
            "a token for claims is its asker's"
        );
        *self.served.lock().entry(own).or_default() += 1;
    }
}

fn reply(n: u8) -> Reply {
    let mut throttled = Fault::new(FaultKind::UpstreamThrottled, "test");
    throttled.retry_after = Some(S(20));
    match n {
        0 => Reply::Lives(S(3600)),
        1 => Reply::Lives(S(45)),
        2 => Reply::Lives(S(330)),
        3 => Reply::Fails(fault(FaultKind::UpstreamUnavailable)),
        4 => Reply::Fails(SourceError::NotHere(String::new())),
        5 => Reply::Foreign,
        6 => Reply::Fails(SourceError::Fault(throttled)),
        7 => Reply::Fails(fault(FaultKind::UpstreamRefused)),
        _ => Reply::Silent,
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let kind = prop_oneof![
        6 => Just(Kind::Usual),
        1 => Just(Kind::Claims),
        1 => Just(Kind::Bypass),
    ];
    let event = prop_oneof![
        10 => (0usize..2, 1usize..3, kind).prop_map(|(team, pod, kind)| Event::Ask(team, pod, kind)),
        6 => (0u64..60).prop_map(Event::WaitMs),
        3 => prop_oneof![0u64..50, 0u64..4_000, Just(270u64), Just(3_570)].prop_map(Event::Wait),
        1 => (-4_000i64..4_000).prop_map(Event::Step),
        2 => (1u32..3, 0u8..9).prop_map(|(client, n)| Event::Say(client, n)),
        2 => (0usize..2, any::<bool>()).prop_map(|(team, on)| Event::Grant(team, on)),
        2 => (0usize..2, 0u8..5).prop_map(|(team, n)| Event::Sources(team, n)),
        1 => (0usize..2).prop_map(Event::Recreate),
        1 => any::<bool>().prop_map(Event::Steal),
        1 => Just(Event::Renew),
        1 => Just(Event::Retain),
    ];
    proptest::collection::vec(event, 1..80)
}

async fn check(events: Vec<Event>) -> usize {
    let stage = Stage::new();
    let bench = &stage.rig.bench;
    let mut asking = tokio::task::JoinSet::new();
    for event in events {
        match event {
            Event::Ask(team, pod, kind) => {
                asking.spawn(stage.clone().ask(team, pod, kind));
            }
            Event::WaitMs(ms) => tokio::time::sleep(MS(ms)).await,
            Event::Wait(seconds) => tokio::time::sleep(S(seconds)).await,
            Event::Step(seconds) => bench.steps.step(seconds),
            Event::Say(client, n) => bench.fake.say(client, reply(n)),
            Event::Grant(team, on) => stage.change(team, |truth| truth.granted = on),
            Event::Sources(team, n) => stage.change(team, |truth| {
                truth.sources = n;
                truth.generation += 1;
            }),
            Event::Recreate(team) => stage.change(team, |truth| {
                truth.uid += 10;
                truth.generation = 1;
            }),
            Event::Steal(steals) => stage.change(1, |truth| {
                truth.client = if steals { 1 } else { 2 };
                truth.generation += 1;
            }),
            Event::Renew => bench.broker.renew(|key| {
                let owner = key.owner();
                owner.is_some_and(|owner| *owner.namespace == *"a")
            }),
            Event::Retain => {
                let identity = &fake::grant(1).identity;
                let kept = IdentityKey::of(&SourceFacts::Imds, identity, &asker("p"));
                bench.broker.retain(|key| *key == kept);
            }
        }
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    stage.served.lock().values().sum()
}

#[test]
fn a_token_is_served_only_to_whom_it_is_granted_by_what_it_was_got_and_in_time() {
    let served = Mutex::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&events(), |events| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        *served.lock() += runtime.block_on(check(events));
        Ok(())
    });
    outcome.unwrap();
    // Histories in which nobody gets anything prove nothing.
    assert!(*served.lock() > 1_000, "{} served", served.lock());
}
