//! Beside the watches: pods that are asked for directly, and the own node's assignment.

use super::*;
use crate::kubernetes::watch::Version;

#[tokio::test]
async fn a_pod_that_the_watch_has_not_shown_is_asked_for_once() {
    let mut scene = scene(quick(), |_| {}).await;
    scene.until_complete().await;
    scene.fake.put_silently(PODS, pod("late", "10.0.0.9"));
    let ip: IpAddr = "10.0.0.9".parse().unwrap();
    for _ in 0..50 {
        scene.lookups.ask(ip);
    }
    scene.until("the pod", |scene| scene.has("late")).await;
    assert_eq!(scene.fake.asked("status.podIP%3D10.0.0.9"), 1);
    for last in 1..=200 {
        scene.lookups.ask(IpAddr::from([10, 9, 9, last]));
    }
    let fake = scene.fake.clone();
    scene
        .until("the burst", |_| fake.asked("status.podIP%3D10.9.9.") >= 9)
        .await;
    assert!(
        fake.asked("status.podIP%3D10.9.9.") < 20,
        "a stranger is no flood"
    );
    assert!(!scene.published.is_too_old());
}

#[tokio::test]
async fn an_answer_older_than_the_watch_brings_nothing_back() {
    let mut mirror = Mirror::new(Facts(Kind::Pods));
    let read = |version: u64| {
        let mut pod = pod("p", "10.0.0.1");
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        let text = serde_json::value::RawValue::from_string(pod.to_string()).unwrap();
        kind::read(Kind::Pods, &text).unwrap()
    };
    let name = ObjectName::new("a", "p");
    assert!(mirror.take(read(5)).is_some());
    assert!(mirror.take(read(4)).is_none(), "older");
    assert!(mirror.take(read(5)).is_none(), "the same");
    assert!(
        mirror.delete(&name, Version::of("4")).is_none(),
        "of one before"
    );
    assert!(mirror.delete(&name, Version::of("6")).is_some());
    assert_eq!(
        mirror.replace(vec![read(3)]).len(),
        1,
        "a restored cluster counts lower"
    );
    assert_eq!(mirror.replace(vec![read(3)]).len(), 0, "the same");
    assert_eq!(mirror.replace(vec![]).len(), 1, "gone");
}

#[tokio::test]
async fn only_the_own_nodes_assignment_is_followed_and_nobody_is_answered_before_it() {
    use crate::model::facts::NodeAssignments;
    let vm = "/subscriptions/s/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool1";
    let name = vm
        .parse::<crate::model::compute::Compute>()
        .unwrap()
        .assignment_name();
    let node = |id: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": {"providerID": id}});
    let mut scene = scene_with(Assignments::Required, quick(), |fake| {
        fake.put_silently("nodes", node(Value::Null));
    })
    .await;
    scene
        .until("a word about the node", |scene| {
            scene.pending().contains("azureassignments")
        })
        .await;
    assert!(!scene.complete, "what is assigned is not known");
    let id = json!(format!("azure://{vm}/virtualMachines/3"));
    scene.fake.put_silently("nodes", node(id));
    scene.until_complete().await;
    assert_eq!(scene.world.assignments(), NodeAssignments::Required(None));
    let asked = scene.fake.asked("azureassignments?");
    let own = format!("fieldSelector=metadata.name%3D{name}");
    assert_eq!(scene.fake.asked(&own), asked);
    assert!(asked >= 1);
    scene.fake.put(
        "azureassignments",
        json!({"metadata": {"name": name}, "spec": {"computeID": vm}}),
    );
    scene
        .until("the assignment", |scene| {
            matches!(
                scene.world.assignments(),
                NodeAssignments::Required(Some(_))
            )
        })
        .await;
    scene
        .until("to be ready", |scene| scene.readiness.is_ready())
        .await;
}
