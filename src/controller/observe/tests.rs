use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::api::kind::Kind;
use crate::controller::world::{Change, World};
use crate::kubernetes::watch::fake::Fake;
use crate::model::ids::ObjectName;
use crate::serve::ready::Readiness;

mod sequences;

const PODS: &str = "pods";
const IDENTITIES: &str = "azureidentities";
const BINDINGS: &str = "azureidentitybindings";
const ASSIGNMENTS: &str = "azureassignments";
const PATIENCE: Duration = Duration::from_secs(30);
const SET: &str = "/subscriptions/s/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool1";

/// The controller's watches on a fake API server, and the world that their batches make.
struct Scene {
    fake: Fake,
    batches: mpsc::Receiver<Batch>,
    world: World,
    /// Kinds of the changes that came.
    changes: Vec<Kind>,
    complete: usize,
    readiness: Readiness,
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "labels": {"app": "till"}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "till"}, "status": {"phase": "Pending"}})
}

fn identity(name: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "generation": 1},
        "spec": {"resourceID": format!("/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}")}})
}

fn binding(name: &str, identity: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "generation": 1},
        "spec": {"identity": identity, "subjects": [{"podSelector": {"matchLabels": {"app": "till"}}}]}})
}

async fn scene(before: impl FnOnce(&Fake)) -> Scene {
    let fake = Fake::start().await;
    before(&fake);
    let (sender, batches) = mpsc::channel(16);
    let readiness = Readiness::default();
    let millis = Duration::from_millis;
    let observe = Observe {
        cluster: fake.cluster(),
        counts_hosts: false,
        batches: sender,
        latch: readiness.latch("watches"),
        metrics: metrics(&Registry::new()).unwrap(),
        timing: Timing {
            first_pause: millis(5),
            longest_pause: millis(50),
            tick: millis(10),
            urgent_ask: millis(20),
            ..Timing::default()
        },
    };
    tokio::spawn(observe.run());
    Scene {
        fake,
        batches,
        world: World::default(),
        changes: Vec::new(),
        complete: 0,
        readiness,
    }
}

impl Scene {
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(tokio::time::Instant::now() < deadline, "waited for {what}");
            let soon = tokio::time::timeout(Duration::from_millis(5), self.batches.recv());
            if let Ok(batch) = soon.await {
                let batch = batch.expect("watches that go on");
                self.complete += usize::from(batch.complete);
                for change in batch.changes {
                    self.changes.push(change.kind());
                    self.world.apply(change);
                }
            }
        }
    }

    async fn until_complete(&mut self) {
        self.until("everything", |scene| scene.complete == 1).await;
    }

    fn count(&self, kind: Kind) -> usize {
        self.changes.iter().filter(|of| **of == kind).count()
    }

    fn has(&self, pod: &str) -> bool {
        self.world.pods.contains_key(&ObjectName::new("shop", pod))
    }
}

#[tokio::test]
async fn all_kinds_are_told_and_then_it_is_complete() {
    let assignment = SET.parse::<crate::model::compute::Compute>().unwrap();
    let assignment = assignment.assignment_name();
    let mut scene = scene(|fake| {
        fake.put_silently(PODS, pod("p"));
        fake.put_silently("nodes", json!({"metadata": {"name": "node-1", "uid": "n"}, "spec": {"providerID": format!("azure://{SET}/virtualMachines/0")}}));
        fake.put_silently("namespaces", json!({"metadata": {"name": "shop", "labels": {"team": "till"}}}));
        fake.put_silently(IDENTITIES, identity("i"));
        fake.put_silently(BINDINGS, binding("b", "i"));
        fake.put_silently("azureidentitypolicies", json!({"metadata": {"name": "pol", "uid": "u", "generation": 1},
            "spec": {"resourceIDPrefixes": ["/subscriptions/s"], "namespaces": {}}}));
        fake.put_silently("azuremetadataexceptions", json!({"metadata": {"name": "exc", "uid": "u", "generation": 1},
            "spec": {"namespace": "shop", "serviceAccounts": ["till"], "paths": ["/metadata/instance"]}}));
        fake.put_silently(ASSIGNMENTS, json!({"metadata": {"name": assignment, "uid": "u", "generation": 1}, "spec": {"computeID": SET}}));
    })
    .await;
    scene.until_complete().await;
    let world = &scene.world;
    assert!(scene.has("p"));
    assert_eq!(
        world.nodes["node-1"].compute.as_ref().unwrap().id,
        SET.parse().unwrap()
    );
    assert_eq!(world.namespaces["shop"].len(), 2, "with its own name");
    let name = |name: &str| ObjectName::new("shop", name);
    assert!(world.identities[&name("i")].said.is_ok());
    assert!(world.bindings[&name("b")].said.is_ok());
    assert_eq!(world.policies["pol"].said.as_ref().err(), None);
    assert_eq!(world.exceptions["exc"].said.as_ref().err(), None);
    let known = &world.assignments[assignment.as_str()];
    assert_eq!(known.spec.compute_id, SET);
    assert!(known.metadata.resource_version.is_some());
    scene
        .until("to be ready", |scene| scene.readiness.is_ready())
        .await;
}

#[tokio::test]
async fn what_changes_nothing_that_counts_is_no_change() {
    let mut scene = scene(|fake| {
        fake.put_silently(PODS, pod("p"));
        fake.put_silently(IDENTITIES, identity("i"));
        fake.put_silently(BINDINGS, binding("b", "i"));
    })
    .await;
    scene.until_complete().await;
    let watched = scene.fake.clone();
    scene
        .until("watches", |_| {
            watched.asked("?watch=true") + watched.asked("&watch=true") >= 8
        })
        .await;
    let before = scene.changes.len();
    let mut running = pod("p");
    running["status"] = json!({"phase": "Running", "podIP": "10.0.0.1"});
    running["metadata"]["annotations"] = json!({"note": "edited"});
    let mut edited = identity("i");
    edited["metadata"]["annotations"] = json!({"note": "edited"});
    edited["metadata"]["labels"] = json!({"note": "edited"});
    let mut reported = binding("b", "i");
    reported["status"] = json!({"conditions": []});
    scene.fake.put(PODS, running);
    scene.fake.put(IDENTITIES, edited);
    scene.fake.put(BINDINGS, reported);
    // Behind each of them one that counts.
    scene.fake.put(PODS, pod("q"));
    scene.fake.put(IDENTITIES, identity("j"));
    scene.fake.put(BINDINGS, binding("c", "j"));
    scene
        .until("what counts", |scene| scene.changes.len() >= before + 3)
        .await;
    assert_eq!(scene.changes.len(), before + 3);
    assert_eq!(scene.count(Kind::Pods), 2);
}

#[tokio::test]
async fn status_and_finalizers_of_an_identity_count() {
    let mut scene = scene(|fake| {
        fake.put_silently(IDENTITIES, identity("i"));
    })
    .await;
    scene.until_complete().await;
    let name = ObjectName::new("shop", "i");
    let mut object = identity("i");
    object["status"] =
        json!({"observedGeneration": 1, "principalID": "11111111-1111-4111-8111-111111111111"});
    scene.fake.put(IDENTITIES, object.clone());
    scene
        .until("the status", |scene| {
            scene.world.identities[&name].status.is_some()
        })
        .await;
    object["metadata"]["finalizers"] = json!(["lanyard.dev/managed-identity"]);
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    scene.fake.put(IDENTITIES, object);
    scene
        .until("the deletion", |scene| {
            scene.world.identities[&name].meta.deleting
        })
        .await;
    assert_eq!(scene.world.identities[&name].meta.finalizers.len(), 1);
    scene.fake.delete(IDENTITIES, "i");
    scene
        .until("its end", |scene| scene.world.identities.is_empty())
        .await;
}

#[tokio::test]
async fn a_malformed_object_is_known_as_such_and_harms_no_other() {
    let mut broken = identity("broken");
    broken["spec"] = json!({"resourceID": "../payments"});
    let mut huge = binding("huge", "i");
    huge["spec"]["subjects"] = json!([{"serviceAccounts": ["x".repeat(70_000)]}]);
    let mut bare = binding("bare", "i");
    bare.as_object_mut().unwrap().remove("spec");
    let mut scene = scene(|fake| {
        fake.put_silently(IDENTITIES, broken);
        fake.put_silently(IDENTITIES, identity("i"));
        fake.put_silently(BINDINGS, huge);
        fake.put_silently(BINDINGS, bare);
        fake.put_silently(BINDINGS, binding("b", "i"));
    })
    .await;
    scene.until_complete().await;
    let name = |name: &str| ObjectName::new("shop", name);
    let broken = &scene.world.identities[&name("broken")];
    assert!(
        broken
            .said
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("spec.resourceID")
    );
    assert_eq!(
        (&*broken.meta.uid, broken.meta.generation),
        ("uid-broken", 1)
    );
    let huge = &scene.world.bindings[&name("huge")];
    assert!(
        huge.said
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("split it")
    );
    let bare = &scene.world.bindings[&name("bare")];
    assert!(
        bare.said
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("is missing")
    );
    assert!(scene.world.identities[&name("i")].said.is_ok());
    assert!(scene.world.bindings[&name("b")].said.is_ok());
    scene.fake.put(IDENTITIES, identity("broken"));
    scene
        .until("the corrected one", |scene| {
            scene.world.identities[&name("broken")].said.is_ok()
        })
        .await;
}

#[tokio::test]
async fn a_pod_that_ended_is_gone_and_one_that_never_counted_is_no_change() {
    let mut host = pod("host");
    host["spec"]["hostNetwork"] = json!(true);
    let mut scene = scene(|fake| {
        fake.put_silently(PODS, pod("p"));
        fake.put_silently(PODS, host.clone());
    })
    .await;
    scene.until_complete().await;
    assert_eq!(scene.count(Kind::Pods), 1);
    let mut ended = pod("p");
    ended["status"]["phase"] = json!("Succeeded");
    scene.fake.put(PODS, ended);
    scene.until("its end", |scene| !scene.has("p")).await;
    scene.fake.put(PODS, host);
    scene.fake.delete(PODS, "host");
    scene.fake.put(PODS, pod("q"));
    scene.until("another", |scene| scene.has("q")).await;
    assert_eq!(scene.count(Kind::Pods), 3);
    let list = "/pods?fieldSelector=spec.nodeName%21%3D%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&limit";
    assert_eq!(scene.fake.asked(list), 1);
}
