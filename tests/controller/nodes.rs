//! Nodes come, go and are strange; pods move.

use std::time::Duration;

use serde_json::json;

use crate::Trials;
use crate::looks::said;
use crate::rig::{Rig, set_id, vm_id, world};

pub const TRIALS: Trials = &[
    (
        "nodes_that_are_none_of_azures_disturb_nothing",
        nodes_that_are_none_of_azures_disturb_nothing,
    ),
    (
        "a_pool_grows_from_one_to_twenty",
        a_pool_grows_from_one_to_twenty,
    ),
    (
        "a_pod_of_a_stateful_set_moves",
        a_pod_of_a_stateful_set_moves,
    ),
    ("a_machine_of_its_own", a_machine_of_its_own),
    (
        "a_node_that_says_later_what_it_is",
        a_node_that_says_later_what_it_is,
    ),
];

const QUICK: &[&str] = &["--debounce=100ms", "--removal-grace=1s"];

fn nodes_that_are_none_of_azures_disturb_nothing(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay", "lost"], &["pool"], &[], ""));
    rig.pool(&["pool"]);
    rig.make(&json!({"kind": "Node", "metadata": {"name": "plain"}}));
    rig.node("cloud", "aws:///eu-west-1a/i-0123456789abcdef0");
    rig.node("broken", "azure:///subscriptions/not/a/node");
    rig.granted("shop", "pay");
    rig.granted("shop", "lost");
    for node in ["plain", "cloud", "broken", "node-pool"] {
        rig.pod("shop", &format!("web-{node}"), node, "pay");
    }
    rig.pod("shop", "only", "plain", "lost");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    for (name, of) in [("pay", "3 of 4"), ("lost", "1 of 1")] {
        rig.until("what it is told", || {
            let (status, reason, message) = rig.ready("shop", name);
            let names = ["broken", "cloud", "plain"];
            status == "False"
                && reason == "NodeNotInAzure"
                && message.contains(of)
                && names.iter().all(|name| message.contains(name))
        });
    }
    assert_eq!(rig.patches().len(), 1);
    let kept = rig.kubectl(&["get", "azas", "-o", "name"]);
    assert_eq!(kept.lines().count(), 1, "{kept}");
}

fn a_pool_grows_from_one_to_twenty(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    rig.pool(&["pool"]);
    rig.granted("shop", "pay");
    rig.pod("shop", "web-0", "node-pool", "pay");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.forget();
    for number in 1..20 {
        let node = format!("node-{number}");
        rig.node(
            &node,
            &format!("azure://{}/virtualMachines/{number}", set_id("pool")),
        );
        rig.pod("shop", &format!("web-{number}"), &node, "pay");
    }
    rig.until("all its nodes", || {
        let status = rig.object("azureidentities", "shop", "pay")["status"].clone();
        status["assignedNodes"] == 20 && status["wantedNodes"] == 20
    });
    let calls: Vec<_> = rig
        .asked()
        .into_iter()
        .filter(|entry| said(entry).kind == "virtualMachineScaleSets")
        .collect();
    assert_eq!(calls, []);
}

fn a_pod_of_a_stateful_set_moves(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool", "other"], &[], ""));
    rig.pool(&["pool", "other"]);
    rig.granted("shop", "pay");
    rig.pod("shop", "db-0", "node-pool", "pay");
    rig.controller("controller", &["--debounce=100ms", "--removal-grace=2s"]);
    rig.until_assigned(&set_id("pool"), "pay");
    // The same name, a moment later, somewhere else.
    rig.delete_pod("shop", "db-0");
    rig.pod("shop", "db-0", "node-other", "pay");
    rig.until_assigned(&set_id("other"), "pay");
    rig.until("its end where it was", || {
        !rig.has("pool", "pay") && rig.assignment(&set_id("pool")).is_none()
    });
    assert!(rig.has("other", "pay"));
    assert_eq!(rig.patches().len(), 3, "{:?}", rig.patches());
}

fn a_machine_of_its_own(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &["lone"], ""));
    rig.node("lone", &format!("azure://{}", vm_id("lone")));
    rig.admit_all();
    rig.granted("shop", "pay");
    rig.pod("shop", "web", "lone", "pay");
    // A pod that ended uses nothing.
    rig.instance("node-pool", "pool");
    rig.pod("shop", "done", "node-pool", "pay");
    let done = json!({"status": {"phase": "Succeeded"}});
    rig.send("PATCH", "/api/v1/namespaces/shop/pods/done/status", &done)
        .unwrap();
    rig.controller("controller", QUICK);
    rig.until_assigned(&vm_id("lone"), "pay");
    assert_eq!(rig.patches_of("pool"), []);
    rig.delete_pod("shop", "web");
    rig.until("its end", || rig.assignment(&vm_id("lone")).is_none());
    assert_eq!(rig.shown("lone").kind, "None");
}

fn a_node_that_says_later_what_it_is(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    rig.admit_all();
    rig.granted("shop", "pay");
    rig.make(&json!({"kind": "Node", "metadata": {"name": "new"}}));
    rig.pod("shop", "web", "new", "pay");
    rig.controller("controller", QUICK);
    rig.until("what it is told", || {
        rig.ready("shop", "pay").1 == "NodeNotInAzure"
    });
    let provider = format!("azure://{}/virtualMachines/7", set_id("pool"));
    rig.send(
        "PATCH",
        "/api/v1/nodes/new",
        &json!({"spec": {"providerID": provider}}),
    )
    .unwrap();
    rig.within(Duration::from_secs(30), "its assignment", || {
        rig.assigned(&set_id("pool"), "pay")
    });
}
