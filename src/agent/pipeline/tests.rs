//! What becomes of a request whose pod is granted something else while its token is fetched. On paused
//! time, over a source in memory that takes 30 ms.

mod histories;

use serde_json::{Value, json};

use super::*;
use crate::agent::config::{Enforcement, NodeMode};
use crate::agent::directory::Directory;
use crate::agent::obtain::fake::{Bench, MS, Reply, S, VAULT, bench, client, resource_id};
use crate::agent::obtain::{SourceError, fake};
use crate::agent::testkit::{binding, namespace, object, pod, policy, world};
use crate::azure::imds::ImdsClient;
use crate::azure::relay::Relay;
use crate::model::fault::FaultKind;

const POD: &str = "10.0.0.1";

struct Rig {
    pipeline: Arc<Pipeline<fake::Fake>>,
    bench: Bench,
}

fn rig() -> Rig {
    let rig = rig_over(bench());
    rig.grant(1, &json!([{"imds": {}}]));
    rig
}

fn rig_over(bench: Bench) -> Rig {
    let registry = prometheus::Registry::new();
    let nobody = "http://127.0.0.1:1";
    let directory = Arc::new(Published::default());
    let relay = Relay::new(nobody).unwrap();
    let observer = Observer::register(Enforcement::Enforce, relay, &registry).unwrap();
    let pipeline = Pipeline {
        locator: Locator::new(directory.clone(), NodeMode::Redirect, S(1)),
        directory,
        broker: bench.broker.clone(),
        forwarder: Forwarder::new(ImdsClient::new(nobody).unwrap()),
        audit: Arc::new(Audit::default()),
        events: Events::register(&registry).unwrap(),
        observer: Arc::new(observer),
        metrics: Arc::new(AgentMetrics::register(&registry).unwrap()),
    };
    Rig {
        pipeline: Arc::new(pipeline),
        bench,
    }
}

impl Rig {
    /// From now on the pod is granted this generation of its identity, by these sources.
    fn grant(&self, generation: u64, sources: &Value) {
        let identity = object(
            json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
            "metadata": {"namespace": "a", "name": "x", "uid": "uid-x", "generation": generation},
            "spec": {"clientID": client(1).to_string(), "resourceID": resource_id(1), "tokenSources": sources}}),
        );
        let everyone = json!([{"podSelector": {}}]);
        self.publish([identity, binding("a", "x", &everyone, false)]);
    }

    fn publish(&self, objects: impl IntoIterator<Item = crate::api::object::Object>) {
        let base = [
            namespace("a", "a"),
            pod("a", "p", POD, None),
            policy("all", "a", &["/subscriptions/s"]),
        ];
        let world = world(base.into_iter().chain(objects));
        let directory = Directory::of(&world, |_, _| false);
        self.pipeline.directory.publish(directory);
    }

    fn ask(&self) -> tokio::task::JoinHandle<Result<Answer, Fault>> {
        let pipeline = self.pipeline.clone();
        tokio::spawn(async move {
            let query = TokenQuery {
                dialect: Dialect::Imds,
                resource: VAULT.to_owned(),
                selector: Selector::Default,
                claims: None,
                bypass_cache: false,
            };
            pipeline
                .token(&Origin::of(POD.parse().unwrap()), &query)
                .await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_changes_its_source_while_a_token_is_fetched_fails_nothing() {
    let rig = rig();
    let asking = rig.ask();
    tokio::time::sleep(MS(10)).await;
    rig.grant(2, &json!([{"federated": {}}]));
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    // By the new source: what the old one brought is nobody's.
    assert_eq!(rig.bench.fake.calls(), 2);
    assert_eq!(rig.ask().await.unwrap().unwrap().status(), 200);
    assert_eq!(rig.bench.fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_old_source_refuses_meanwhile_is_not_the_answer() {
    let rig = rig();
    let not_here = SourceError::NotHere("unassigned".to_owned());
    rig.bench.fake.say(1, Reply::Fails(not_here));
    let asking = rig.ask();
    tokio::time::sleep(MS(10)).await;
    rig.grant(2, &json!([{"federated": {}}]));
    tokio::time::sleep(MS(30)).await;
    rig.bench.fake.say(1, Reply::Lives(S(3600)));
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_was_revoked_meanwhile_is_refused() {
    let rig = rig();
    let asking = rig.ask();
    tokio::time::sleep(MS(10)).await;
    rig.publish([]);
    let fault = asking.await.unwrap().unwrap_err();
    assert_eq!(fault.kind, FaultKind::IdentityNotFound);
    assert_eq!(rig.bench.fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_never_stands_still_is_told_to_come_again_in_time() {
    let rig = rig();
    let begun = Instant::now();
    let asking = rig.ask();
    let mut generation = 1;
    while !asking.is_finished() {
        generation += 1;
        rig.grant(generation, &json!([{"federated": {}}]));
        tokio::time::sleep(MS(20)).await;
    }
    let fault = asking.await.unwrap().unwrap_err();
    assert!(fault.kind.may_retry(), "{fault}");
    assert!(begun.elapsed() < S(21), "{:?}", begun.elapsed());
}
