//! The path itself: binding → PATCH → Assigned → removed, and what costs Azure nothing.

use serde_json::json;

use crate::Trials;
use crate::rig::{Rig, set_id, world};

pub const TRIALS: Trials = &[
    (
        "a_binding_becomes_an_assignment",
        a_binding_becomes_an_assignment,
    ),
    (
        "forty_four_pods_cost_one_patch",
        forty_four_pods_cost_one_patch,
    ),
    ("metadata_edits_cost_nothing", metadata_edits_cost_nothing),
    (
        "a_restart_storm_costs_nothing",
        a_restart_storm_costs_nothing,
    ),
];

fn a_binding_becomes_an_assignment(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    rig.controller("controller", &["--debounce=200ms", "--removal-grace=1s"]);
    rig.instance("node-1", "pool");
    rig.admit_all();
    rig.pod("shop", "web-1", "node-1", "pay");
    rig.granted("shop", "pay");
    rig.until("the identity on the scale set", || {
        rig.state(&set_id("pool"), "pay") == "Assigned"
    });
    assert_eq!(rig.patches().len(), 1, "{:?}", rig.patches());
    rig.until("the identity's status", || {
        let status = &rig.object("azureidentities", "shop", "pay")["status"];
        status["clientID"] == "10000000-0000-4000-8000-000000000000"
            && status["principalID"] == "20000000-0000-4000-8000-000000000000"
            && status["tenantID"].is_string()
    });
    rig.until("the binding's pods", || {
        let binding = rig.object("azureidentitybindings", "shop", "pay");
        binding["status"]["matchedPods"] == 1 && Rig::condition(&binding, "Ready").0 == "True"
    });
    // The last pod goes: after the grace time the identity does, too.
    rig.delete_pod("shop", "web-1");
    rig.until("the assignment's end", || {
        rig.assignment(&set_id("pool")).is_none()
    });
    assert_eq!(rig.patches().len(), 2, "{:?}", rig.patches());
}

fn forty_four_pods_cost_one_patch(rig: &mut Rig<'_>) {
    let names = ["a", "b", "c", "d", "e"];
    rig.azure(&world(&names, &["pool"], &[], ""));
    rig.instance("node-1", "pool");
    rig.instance("node-2", "pool");
    rig.admit_all();
    for name in names {
        rig.granted("shop", name);
    }
    for pod in 0..44 {
        let node = if pod % 2 == 0 { "node-1" } else { "node-2" };
        rig.pod("shop", &format!("web-{pod}"), node, names[pod % 5]);
    }
    rig.controller("controller", &[]);
    rig.until("all five", || {
        names
            .iter()
            .all(|name| rig.state(&set_id("pool"), name) == "Assigned")
    });
    assert_eq!(rig.patches().len(), 1, "{:?}", rig.patches());
}

fn metadata_edits_cost_nothing(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    rig.instance("node-1", "pool");
    rig.admit_all();
    rig.granted("shop", "pay");
    for pod in 0..100 {
        rig.pod("shop", &format!("web-{pod}"), "node-1", "pay");
    }
    rig.controller("controller", &["--debounce=100ms"]);
    rig.until("the identity on the scale set", || {
        rig.state(&set_id("pool"), "pay") == "Assigned"
    });
    let generation =
        |rig: &Rig<'_>| rig.assignment(&set_id("pool")).unwrap()["metadata"]["generation"].clone();
    let before = generation(rig);
    rig.forget();
    let edit = json!({"metadata": {"annotations": {"team": "shop"}, "labels": {"edited": "yes"}}});
    rig.merge("azureidentities", "shop", "pay", &edit);
    rig.merge("azureidentitybindings", "shop", "pay", &edit);
    // Another grant is worked out after the edits: nothing else was asked for until then.
    rig.granted("till", "pay");
    rig.until("the binding of later", || {
        let binding = rig.object("azureidentitybindings", "till", "pay");
        binding["status"]["matchedPods"] == 0
    });
    assert!(
        rig.asked().iter().all(|entry| entry.method == "GET"),
        "{:?}",
        rig.asked()
    );
    assert_eq!(generation(rig), before);
}

fn a_restart_storm_costs_nothing(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    rig.instance("node-1", "pool");
    rig.admit_all();
    rig.granted("shop", "pay");
    for pod in 0..20 {
        rig.pod("shop", &format!("web-{pod}"), "node-1", "pay");
    }
    rig.controller("controller", &["--debounce=100ms"]);
    rig.until("the identity on the scale set", || {
        rig.state(&set_id("pool"), "pay") == "Assigned"
    });
    rig.forget();
    for _ in 0..3 {
        for pod in 0..20 {
            rig.delete_pod("shop", &format!("web-{pod}"));
        }
        rig.until("no pod", || {
            let binding = rig.object("azureidentitybindings", "shop", "pay");
            binding["status"]["matchedPods"] == 0
        });
        assert_eq!(
            rig.state(&set_id("pool"), "pay"),
            "Assigned",
            "agents go on serving"
        );
        for pod in 0..20 {
            rig.pod("shop", &format!("web-{pod}"), "node-1", "pay");
        }
        rig.until("all pods", || {
            let binding = rig.object("azureidentitybindings", "shop", "pay");
            binding["status"]["matchedPods"] == 20
        });
    }
    assert_eq!(rig.patches(), []);
    assert_eq!(rig.state(&set_id("pool"), "pay"), "Assigned");
}
