use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::fake::{Fake, Mood};
use super::*;
use crate::agent::touched::Touched;
use crate::agent::world::World;
use crate::model::ids::ObjectName;
use crate::serve::ready::Readiness;

mod accounts;
mod lookups;

const PODS: &str = "pods";
const BINDINGS: &str = "azureidentitybindings";
const PATIENCE: Duration = Duration::from_secs(30);

/// A watch on a fake API server, and the world that its batches make.
struct Scene {
    fake: Fake,
    batches: mpsc::Receiver<Batch>,
    world: World,
    complete: bool,
    readiness: Readiness,
    registry: prometheus::Registry,
    published: Arc<Published>,
    lookups: Arc<Lookups>,
}

fn quick() -> Timing {
    let millis = Duration::from_millis;
    Timing {
        call: millis(500),
        silence: Duration::from_mins(1),
        lifetime: Duration::from_mins(5),
        first_pause: millis(5),
        longest_pause: millis(50),
        tick: millis(10),
        ask: millis(500),
        routine_ask: Duration::from_mins(1),
        urgent_ask: millis(20),
    }
}

async fn scene(timing: Timing, before: impl FnOnce(&Fake)) -> Scene {
    scene_with(Assignments::Ignored, timing, before).await
}

async fn scene_with(assignments: Assignments, timing: Timing, before: impl FnOnce(&Fake)) -> Scene {
    scene_of((assignments, false), timing, before).await
}

/// With assignments, and with or without service accounts.
async fn scene_of(
    (assignments, workload_identity): (Assignments, bool),
    timing: Timing,
    before: impl FnOnce(&Fake),
) -> Scene {
    let fake = Fake::start().await;
    before(&fake);
    let (sender, batches) = mpsc::channel(16);
    let (readiness, registry) = (Readiness::default(), prometheus::Registry::new());
    let published = Arc::new(Published::default());
    let watch = Watch {
        cluster: fake.cluster(),
        source: KubernetesSource {
            kubeconfig: None,
            node: "node-1".to_owned(),
            namespace: "lanyard-system".to_owned(),
            max_staleness: Duration::from_hours(24),
            assignments,
            startup_taint: false,
            removal_marker: None,
        },
        workload_identity,
        batches: sender,
        latch: readiness.latch("watches"),
        metrics: WatchMetrics::register(&registry).unwrap(),
        health: Arc::new(Health::new(&ALWAYS)),
        published: published.clone(),
        timing,
    };
    let (lookups, work) = watch.start();
    tokio::spawn(work);
    Scene {
        fake,
        batches,
        world: World::default(),
        complete: false,
        readiness,
        registry,
        published,
        lookups,
    }
}

impl Scene {
    fn take(&mut self, batch: Batch) {
        for change in batch.changes {
            self.world
                .change(change, Duration::ZERO, &mut Touched::default());
        }
        self.complete |= batch.complete;
    }

    /// Takes batches until the condition holds, bounded.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited in vain for {what}"
            );
            let soon = tokio::time::timeout(Duration::from_millis(5), self.batches.recv());
            if let Ok(batch) = soon.await {
                self.take(batch.expect("a watch that goes on"));
            }
        }
    }

    async fn until_complete(&mut self) {
        self.until("a complete list", |scene| scene.complete).await;
    }

    fn has(&self, pod: &str) -> bool {
        self.world.pod(&ObjectName::new("a", pod)).is_some()
    }

    fn bindings(&self) -> usize {
        self.world.binding_count()
    }

    fn shows(&self, line: &str) -> bool {
        let families = self.registry.gather();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&families)
            .unwrap();
        text.lines().any(|shown| shown == line)
    }

    fn pending(&self) -> String {
        format!("{:?}", self.readiness.pending())
    }
}

fn pod(name: &str, ip: &str) -> Value {
    json!({"metadata": {"namespace": "a", "name": name, "uid": format!("uid-{name}"), "managedFields": [{"manager": "kubelet"}]},
        "spec": {"nodeName": "node-1", "containers": []}, "status": {"phase": "Running", "podIP": ip}})
}

fn binding(name: &str) -> Value {
    json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding", "metadata": {"namespace": "a", "name": name},
        "spec": {"identity": name, "subjects": [{"podSelector": {}}]}})
}

#[tokio::test]
async fn nothing_is_complete_before_every_kind_was_listed_to_its_last_page() {
    let mut scene = scene(quick(), |fake| {
        for number in 0..600 {
            fake.put_silently(BINDINGS, binding(&format!("b{number}")));
        }
        fake.put_silently(
            "namespaces",
            json!({"metadata": {"name": "a", "labels": {"team": "x"}}}),
        );
        fake.lists(PODS, Mood::Refuses(500));
    })
    .await;
    scene
        .until("all pages", |scene| scene.bindings() == 600)
        .await;
    scene
        .until("the namespace", |scene| {
            scene.world.namespace("a").is_some()
        })
        .await;
    assert!(!scene.complete, "no pod was listed yet");
    assert!(
        scene
            .fake
            .asked("azureidentitybindings?limit=250&continue=500")
            == 1
    );
    assert!(scene.fake.asked("fieldSelector=spec.nodeName%3Dnode-1") > 0);
    scene.fake.lists(PODS, Mood::Works);
    scene.until_complete().await;
}

#[tokio::test]
async fn large_objects_are_listed_a_few_at_a_time() {
    let timing = Timing {
        call: PATIENCE,
        ..quick()
    };
    let mut scene = scene(timing, |fake| {
        for number in 0..40 {
            let mut large = binding(&format!("b{number}"));
            large["metadata"]["annotations"] = json!({"x": "y".repeat(250_000)});
            fake.put_silently(BINDINGS, large);
        }
    })
    .await;
    scene.until_complete().await;
    assert_eq!(scene.bindings(), 40);
    let asked = |query: &str| {
        let call = format!("{BINDINGS}?{query}");
        scene.fake.asked(&call)
    };
    assert_eq!(asked("limit=250&continue="), 1, "more than 8 MiB");
    assert_eq!(asked("limit=31&continue="), 2, "one page and the rest");
}

#[tokio::test]
async fn a_malformed_object_is_dropped_alone_until_it_is_corrected() {
    let mut scene = scene(quick(), |fake| {
        fake.put_silently(BINDINGS, binding("good"));
        let mut bad = binding("bad");
        bad["spec"]["subjects"] = json!("everyone");
        fake.put_silently(BINDINGS, bad);
    })
    .await;
    scene.until_complete().await;
    assert_eq!(scene.bindings(), 1);
    assert!(scene.shows("lanyard_objects_malformed{kind=\"azureidentitybindings\"} 1"));
    scene.fake.put(BINDINGS, binding("bad"));
    scene
        .until("the corrected one", |scene| scene.bindings() == 2)
        .await;
    assert!(scene.shows("lanyard_objects_malformed{kind=\"azureidentitybindings\"} 0"));
    let mut worse = binding("good");
    worse["spec"] = json!(["nonsense"]);
    scene.fake.put(BINDINGS, worse);
    scene.fake.put(PODS, pod("p", "10.0.0.1"));
    scene
        .until("what no other object disturbs", |scene| scene.has("p"))
        .await;
    scene
        .until("its earlier version to go", |scene| scene.bindings() == 1)
        .await;
    scene.fake.delete(BINDINGS, "good");
    scene
        .until("no malformed one", |scene| {
            scene.shows("lanyard_objects_malformed{kind=\"azureidentitybindings\"} 0")
        })
        .await;
}

#[tokio::test]
async fn events_are_taken_in_order_and_a_watch_that_ends_is_begun_again_where_it_was() {
    let mut scene = scene(quick(), |_| {}).await;
    scene.until_complete().await;
    scene.fake.put(PODS, pod("p", "10.0.0.1"));
    scene.until("a new pod", |scene| scene.has("p")).await;
    scene.fake.tell(
        PODS,
        "BOOKMARK",
        &json!({"metadata": {"resourceVersion": "555"}}),
    );
    scene.fake.end_watches();
    let fake = scene.fake.clone();
    scene
        .until("a watch from the bookmark on", |_| {
            fake.asked("resourceVersion=555") > 0
        })
        .await;
    assert_eq!(
        fake.asked("/pods?fieldSelector=spec.nodeName%3Dnode-1&limit"),
        1,
        "listed once"
    );
    scene.fake.delete(PODS, "p");
    scene
        .until("the deleted pod to go", |scene| !scene.has("p"))
        .await;
}

#[tokio::test]
async fn after_a_version_that_is_forgotten_what_is_gone_is_deleted() {
    let mut scene = scene(quick(), |fake| {
        fake.put_silently(BINDINGS, binding("stays"));
        fake.put_silently(BINDINGS, binding("goes"));
    })
    .await;
    scene.until_complete().await;
    let fake = scene.fake.clone();
    scene
        .until("a watch", |_| fake.asked("azureidentitybindings?watch") > 0)
        .await;
    scene.fake.delete_silently(BINDINGS, "goes");
    scene.fake.tell(
        BINDINGS,
        "ERROR",
        &json!({"kind": "Status", "code": 410, "message": "too old"}),
    );
    scene
        .until("the deleted one to go", |scene| scene.bindings() == 1)
        .await;
    let counted =
        "lanyard_watch_restarts_total{kind=\"azureidentitybindings\",reason=\"expired\"} 1";
    assert!(scene.shows(counted));
}

#[tokio::test]
async fn a_watch_that_has_died_in_silence_is_noticed_and_begun_again() {
    let silence = Duration::from_millis(200);
    let mut scene = scene(Timing { silence, ..quick() }, |fake| {
        fake.put_silently(BINDINGS, binding("goes"));
    })
    .await;
    scene.until_complete().await;
    scene.fake.delete_silently(BINDINGS, "goes");
    scene
        .until("the change that nobody told", |scene| scene.bindings() == 0)
        .await;
    let counted = "lanyard_watch_restarts_total{kind=\"azureidentitybindings\",reason=\"silent\"} ";
    assert!(scene.shows(&format!("{counted}1")) || scene.shows(&format!("{counted}2")));
}

#[tokio::test]
async fn bookmarks_keep_a_quiet_watch_alive() {
    let silence = Duration::from_secs(2);
    let mut scene = scene(Timing { silence, ..quick() }, |_| {}).await;
    scene.until_complete().await;
    let begun = tokio::time::Instant::now();
    let fake = scene.fake.clone();
    while begun.elapsed() < silence * 2 {
        for kind in ALWAYS {
            fake.tell(
                kind.as_str(),
                "BOOKMARK",
                &json!({"metadata": {"resourceVersion": "101"}}),
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        fake.asked("limit="),
        ALWAYS.len(),
        "nothing was listed again"
    );
}

#[tokio::test]
async fn a_stalled_watch_is_not_ready_and_an_absent_api_server_is() {
    let mut scene = scene(quick(), |_| {}).await;
    scene.until_complete().await;
    scene
        .until("to be ready", |scene| scene.readiness.is_ready())
        .await;
    // The API server is away altogether.
    scene.fake.ready(Mood::Refuses(503));
    for kind in ALWAYS {
        scene.fake.lists(kind.as_str(), Mood::Refuses(503));
        scene.fake.watches(kind.as_str(), Mood::Refuses(503));
    }
    scene.fake.end_watches();
    scene
        .until("to be degraded", |scene| {
            scene.shows("lanyard_degraded{reason=\"api_unreachable\"} 1")
        })
        .await;
    assert!(scene.readiness.is_ready(), "{}", scene.pending());
    // It comes back, but for one kind.
    scene.fake.ready(Mood::Works);
    for kind in ALWAYS.into_iter().filter(|kind| *kind != Kind::Bindings) {
        scene.fake.lists(kind.as_str(), Mood::Works);
        scene.fake.watches(kind.as_str(), Mood::Works);
    }
    scene
        .until("to be named", |scene| scene.pending().contains(BINDINGS))
        .await;
    assert!(scene.shows("lanyard_degraded{reason=\"api_unreachable\"} 0"));
    scene.fake.lists(BINDINGS, Mood::Works);
    scene.fake.watches(BINDINGS, Mood::Works);
    scene
        .until("to be ready again", |scene| scene.readiness.is_ready())
        .await;
}

#[tokio::test]
async fn what_is_missing_at_the_start_is_named_with_the_way_out() {
    let mut scene = scene(quick(), |fake| {
        fake.lists(BINDINGS, Mood::Refuses(404));
        fake.lists(PODS, Mood::Refuses(403));
    })
    .await;
    scene
        .until("the CRD", |scene| {
            let pending = scene.pending();
            pending.contains("the CRD azureidentitybindings.lanyard.dev is not installed")
                && pending.contains("the agent may not list and watch pods")
        })
        .await;
    assert!(!scene.complete);
    scene.fake.lists(BINDINGS, Mood::Works);
    scene.fake.lists(PODS, Mood::Works);
    scene.until_complete().await;
    scene
        .until("to be ready", |scene| scene.readiness.is_ready())
        .await;
}

#[tokio::test]
async fn a_list_that_never_answers_has_its_deadline() {
    let call = Duration::from_millis(100);
    let mut scene = scene(Timing { call, ..quick() }, |fake| {
        fake.lists(BINDINGS, Mood::Hangs);
    })
    .await;
    let fake = scene.fake.clone();
    scene
        .until("a second attempt", |_| {
            fake.asked("azureidentitybindings?limit") > 1
        })
        .await;
    scene.fake.lists(BINDINGS, Mood::Works);
    scene.until_complete().await;
}
