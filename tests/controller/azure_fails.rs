//! Azure hangs, refuses, throttles, fails: what is struck waits and says why, the others go on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lanyard::sim::Entry;
use lanyard::sim::arm::{Failure, Operations, Poison, ProvisioningState};
use lanyard::sim::faults::Effect;
use serde_json::json;

use crate::Trials;
use crate::looks::{fault, said, status};
use crate::rig::{Rig, identity_id, set_id, vm_id, world};

pub const TRIALS: Trials = &[
    (
        "a_stuck_scale_set_delays_no_other",
        a_stuck_scale_set_delays_no_other,
    ),
    (
        "a_poisoned_identity_that_azure_names_blocks_no_other",
        |rig| poisoned(rig, Poison::Named, 2),
    ),
    (
        "a_poisoned_identity_that_azure_does_not_name_blocks_no_other",
        |rig| poisoned(rig, Poison::Unnamed, 9),
    ),
    (
        "a_poisoned_identity_that_shows_late_blocks_no_other",
        |rig| poisoned(rig, Poison::Late, 2),
    ),
    (
        "a_deleted_identity_among_twenty_blocks_no_other",
        a_deleted_identity_among_twenty_blocks_no_other,
    ),
    ("retry_after_is_obeyed", retry_after_is_obeyed),
    (
        "a_storm_of_429_over_ten_scale_sets",
        a_storm_of_429_over_ten_scale_sets,
    ),
    (
        "throttled_reads_of_a_subscription_are_obeyed_by_all",
        throttled_reads_of_a_subscription_are_obeyed_by_all,
    ),
    (
        "somebody_elses_operation_is_waited_out",
        somebody_elses_operation_is_waited_out,
    ),
    ("an_operation_that_fails", an_operation_that_fails),
    ("an_operation_that_never_ends", an_operation_that_never_ends),
    (
        "a_machine_that_is_being_deleted",
        a_machine_that_is_being_deleted,
    ),
    ("a_machine_deleted_under_it", a_machine_deleted_under_it),
    (
        "an_answer_that_never_came_is_not_asked_for_twice",
        an_answer_that_never_came_is_not_asked_for_twice,
    ),
];

const QUICK: &[&str] = &["--debounce=100ms"];

/// Two scale sets, and pods on both.
fn two(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay", "more"], &["pool", "other"], &[], ""));
    rig.pool(&["pool", "other"]);
    rig.granted("shop", "pay");
    rig.granted("shop", "more");
    for node in ["node-pool", "node-other"] {
        rig.pod("shop", &format!("web-{node}"), node, "pay");
    }
}

/// One of them and a pod, which is how most begin.
fn one(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay", "more"], &["pool"], &[], ""));
    rig.pool(&["pool"]);
    rig.granted("shop", "pay");
    rig.pod("shop", "web", "node-pool", "pay");
}

fn a_stuck_scale_set_delays_no_other(rig: &mut Rig<'_>) {
    two(rig);
    let hangs = Operations::Take {
        milliseconds: 600_000,
    };
    rig.sim().arm().set_operations("pool", hangs).unwrap();
    rig.controller("controller", QUICK);
    rig.until("the PATCH that hangs", || rig.patches_of("pool").len() == 1);
    rig.until_assigned(&set_id("other"), "pay");
    // What comes while it hangs is done elsewhere, too.
    rig.pod("shop", "late-pool", "node-pool", "more");
    rig.pod("shop", "late-other", "node-other", "more");
    rig.until_assigned(&set_id("other"), "more");
    assert_eq!(rig.state(&set_id("pool"), "pay"), "Pending");
    assert_eq!(rig.patches_of("pool").len(), 1);
    rig.until("the condition that counts both", || {
        let object = rig.object("azureidentities", "shop", "pay");
        object["status"]["assignedNodes"] == 1 && object["status"]["wantedNodes"] == 2
    });
    rig.sim()
        .arm()
        .set_operations("pool", Operations::World)
        .unwrap();
    rig.sim().arm().release("pool", None).unwrap();
    rig.until_assigned(&set_id("pool"), "more");
    assert_eq!(rig.patches_of("pool").len(), 2, "{:?}", rig.patches());
}

fn twenty(rig: &mut Rig<'_>) -> Vec<String> {
    let names: Vec<String> = (0..20).map(|number| format!("i{number:02}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    rig.azure(&world(&all, &["pool"], &[], ""));
    rig.pool(&["pool"]);
    for name in &names {
        rig.granted("shop", name);
        rig.pod("shop", &format!("web-{name}"), "node-pool", name);
    }
    names
}

fn poisoned(rig: &mut Rig<'_>, how: Poison, most: usize) {
    let names = twenty(rig);
    rig.sim().arm().poison("i13", Some(how)).unwrap();
    rig.controller("controller", QUICK);
    rig.until("all others", || {
        let others = names.iter().filter(|name| *name != "i13");
        others.clone().count() == 19 && others.clone().all(|name| rig.has("pool", name))
    });
    rig.until("what is said of it", || {
        rig.state(&set_id("pool"), "i13") == "Failed"
    });
    let count = rig.patches().len();
    assert!(count <= most, "{count} PATCHes: {:?}", rig.patches());
    rig.until("its condition", || {
        let (status, reason, message) = rig.ready("shop", "i13");
        status == "False" && reason == "BadIdentity" && message.contains("FailedIdentityOperation")
    });
    rig.until("a good one's condition", || {
        rig.ready("shop", "i07").0 == "True"
    });
    rig.until("the record's condition", || {
        let (status, reason, message) = rig.synced(&set_id("pool"));
        status == "False" && reason == "IdentitiesFailed" && message.contains("i13")
    });
    assert!(!rig.has("pool", "i13"));
    // Whoever mends it says so in the object, and need not wait.
    rig.sim().arm().poison("i13", None).unwrap();
    let edit = json!({"spec": {"allowedResources": ["https://vault.azure.net"]}});
    rig.merge("azureidentities", "shop", "i13", &edit);
    rig.until_assigned(&set_id("pool"), "i13");
}

fn a_deleted_identity_among_twenty_blocks_no_other(rig: &mut Rig<'_>) {
    let names = twenty(rig);
    rig.sim().arm().delete_identity("i04").unwrap();
    rig.controller("controller", QUICK);
    rig.until("all others", || {
        names
            .iter()
            .filter(|name| *name != "i04")
            .all(|name| rig.assigned(&set_id("pool"), name))
    });
    rig.until("its condition", || {
        let (_, reason, message) = rig.ready("shop", "i04");
        reason == "IdentityNotFound" && message.contains("create it, or correct spec.resourceID")
    });
    assert!(rig.patches().len() <= 2, "{:?}", rig.patches());
}

/// No request about the scale set within that time after one that was answered 429.
fn obeyed(asked: &[Entry], seconds: i64) {
    for (at, refused) in asked.iter().enumerate() {
        if refused.status != Some(429) {
            continue;
        }
        let until = refused.time + SignedDuration::from_secs(seconds);
        let name = said(refused).name;
        let early: Vec<&Entry> = asked[at + 1..]
            .iter()
            .filter(|entry| said(entry).name == name && entry.time < until)
            .collect();
        assert!(early.is_empty(), "before {until}: {early:?}");
    }
}

fn retry_after_is_obeyed(rig: &mut Rig<'_>) {
    two(rig);
    let throttled = fault(
        "PATCH",
        "virtualMachineScaleSets/pool",
        Some(1),
        status(429, Some(4)),
    );
    rig.sim().add_fault(throttled);
    rig.controller("controller", QUICK);
    rig.until("the 429", || rig.patches_of("pool").len() == 1);
    rig.until_assigned(&set_id("other"), "pay");
    assert_eq!(rig.state(&set_id("pool"), "pay"), "Pending");
    // What happens meanwhile is no reason to ask.
    rig.pod("shop", "late", "node-pool", "more");
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until_assigned(&set_id("pool"), "more");
    obeyed(&rig.asked(), 4);
    assert_eq!(rig.patches_of("pool").len(), 2, "{:?}", rig.patches());
    assert_eq!(rig.patches_of("other").len(), 1);
}

fn a_storm_of_429_over_ten_scale_sets(rig: &mut Rig<'_>) {
    let names: Vec<String> = (0..10).map(|number| format!("pool{number}")).collect();
    let sets: Vec<&str> = names.iter().map(String::as_str).collect();
    rig.azure(&world(&["pay"], &sets, &[], ""));
    rig.pool(&sets);
    rig.granted("shop", "pay");
    for set in &sets {
        rig.pod("shop", &format!("web-{set}"), &format!("node-{set}"), "pay");
    }
    let storm = fault(
        "PATCH",
        "virtualMachineScaleSets",
        Some(25),
        status(429, Some(2)),
    );
    rig.sim().add_fault(storm);
    rig.controller("controller", QUICK);
    for set in &sets {
        rig.until_assigned(&set_id(set), "pay");
    }
    obeyed(&rig.asked(), 2);
    assert_eq!(rig.patches().len(), 35, "{:?}", rig.patches());
}

fn throttled_reads_of_a_subscription_are_obeyed_by_all(rig: &mut Rig<'_>) {
    two(rig);
    let body = json!({"error": {"code": "SubscriptionRequestsThrottled", "message": "Number of requests exceeded the limit."}});
    let throttled = Effect::Status {
        code: 429,
        retry_after: Some(4),
        body: Some(body.to_string()),
    };
    rig.sim().add_fault(fault(
        "PATCH",
        "virtualMachineScaleSets",
        Some(1),
        throttled,
    ));
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until_assigned(&set_id("other"), "pay");
    let refused: Vec<Timestamp> = rig
        .asked()
        .iter()
        .filter(|entry| entry.status == Some(429))
        .map(|entry| entry.time)
        .collect();
    let until = refused[0] + SignedDuration::from_secs(4);
    // What was on its way when the answer came does not count.
    let from = refused[0] + SignedDuration::from_millis(500);
    let asked = rig.asked();
    let early: Vec<_> = asked
        .iter()
        .filter(|entry| entry.time > from && entry.time < until)
        .collect();
    assert!(early.is_empty(), "{early:?}");
}

fn somebody_elses_operation_is_waited_out(rig: &mut Rig<'_>) {
    one(rig);
    rig.sim()
        .arm()
        .set_state("pool", ProvisioningState::Updating)
        .unwrap();
    rig.controller("controller", QUICK);
    rig.until("what is said of it", || {
        let (status, reason, _) = rig.synced(&set_id("pool"));
        status == "False" && reason == "Conflict"
    });
    assert!(rig.patches().len() <= 1, "{:?}", rig.patches());
    rig.sim()
        .arm()
        .set_state("pool", ProvisioningState::Succeeded)
        .unwrap();
    rig.until_assigned(&set_id("pool"), "pay");
    assert!(rig.patches().len() <= 3, "{:?}", rig.patches());
    rig.until("what is said in the end", || {
        rig.synced(&set_id("pool")).0 == "True"
    });
}

fn an_operation_that_fails(rig: &mut Rig<'_>) {
    one(rig);
    rig.sim()
        .arm()
        .set_operations("pool", Operations::Hold)
        .unwrap();
    rig.controller("controller", QUICK);
    rig.until("the PATCH", || rig.patches().len() == 1);
    rig.until("its operation", || {
        said(&rig.patches()[0]).operation.is_some()
    });
    rig.sim()
        .arm()
        .set_operations("pool", Operations::World)
        .unwrap();
    let failure = Failure {
        code: "InternalExecutionError".to_owned(),
        message: "An internal execution error occurred. Please retry later.".to_owned(),
    };
    rig.sim().arm().release("pool", Some(failure)).unwrap();
    rig.until("what is said of it", || {
        rig.synced(&set_id("pool"))
            .2
            .contains("InternalExecutionError")
    });
    rig.until_assigned(&set_id("pool"), "pay");
    assert_eq!(rig.patches().len(), 2, "{:?}", rig.patches());
}

fn an_operation_that_never_ends(rig: &mut Rig<'_>) {
    one(rig);
    rig.sim()
        .arm()
        .set_operations("pool", Operations::Hold)
        .unwrap();
    rig.controller(
        "controller",
        &["--debounce=100ms", "--operation-timeout=3s"],
    );
    rig.until("what is said of it", || {
        rig.synced(&set_id("pool")).1 == "OperationTimeout"
    });
    rig.until("the identity's condition", || {
        let (_, reason, _) = rig.ready("shop", "pay");
        ["OperationTimeout", "Conflict"].contains(&&*reason)
    });
    // Whatever is tried after that time, Azure has the one operation.
    let patches = rig.patches().into_iter();
    let taken = patches.filter(|one| said(one).operation.is_some());
    assert_eq!(taken.count(), 1, "{:?}", rig.patches());
    rig.sim()
        .arm()
        .set_operations("pool", Operations::World)
        .unwrap();
    rig.sim().arm().release("pool", None).unwrap();
    rig.until_assigned(&set_id("pool"), "pay");
}

fn machines(rig: &mut Rig<'_>) {
    rig.azure(
        &world(&["pay"], &[], &["lone", "stays"], "scaleSets: []\n").replacen(
            "scaleSets:\nvms",
            "vms",
            1,
        ),
    );
    for name in ["lone", "stays"] {
        rig.node(name, &format!("azure://{}", vm_id(name)));
        rig.pod("shop", &format!("web-{name}"), name, "pay");
    }
    rig.admit_all();
    rig.granted("shop", "pay");
}

fn a_machine_that_is_being_deleted(rig: &mut Rig<'_>) {
    machines(rig);
    rig.sim()
        .arm()
        .set_state("lone", ProvisioningState::Deleting)
        .unwrap();
    rig.controller("controller", QUICK);
    rig.until_assigned(&vm_id("stays"), "pay");
    rig.until("what is said of it", || {
        rig.synced(&vm_id("lone")).1 == "ComputeGone"
    });
    assert_eq!(rig.patches_of("lone"), []);
}

fn a_machine_deleted_under_it(rig: &mut Rig<'_>) {
    machines(rig);
    rig.controller("controller", &["--debounce=100ms", "--drift-interval=2s"]);
    rig.until_assigned(&vm_id("lone"), "pay");
    rig.until_assigned(&vm_id("stays"), "pay");
    rig.sim().arm().delete_compute("lone").unwrap();
    rig.until("what is said of it", || {
        rig.synced(&vm_id("lone")).1 == "ComputeGone"
    });
    rig.forget();
    rig.delete_node("lone");
    rig.delete_pod("shop", "web-lone");
    rig.until("the end of its record", || {
        rig.assignment(&vm_id("lone")).is_none()
    });
    assert_eq!(rig.patches(), []);
    rig.until("the identity's count", || {
        let object = rig.object("azureidentities", "shop", "pay");
        object["status"]["wantedNodes"] == 1 && rig.ready("shop", "pay").0 == "True"
    });
}

fn an_answer_that_never_came_is_not_asked_for_twice(rig: &mut Rig<'_>) {
    for (round, effect) in [
        Effect::Reset,
        Effect::Silence,
        status(500, None),
        Effect::Html,
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("pay{round}");
        if round == 0 {
            rig.azure(&world(
                &["pay0", "pay1", "pay2", "pay3"],
                &["pool"],
                &[],
                "",
            ));
            rig.pool(&["pool"]);
            rig.controller("controller", QUICK);
        }
        rig.forget();
        let mut lost = fault("PATCH", "virtualMachineScaleSets", Some(1), effect.clone());
        lost.applied = true;
        rig.sim().add_fault(lost);
        rig.pod("shop", &name, "node-pool", &name);
        rig.granted("shop", &name);
        rig.within(Duration::from_secs(45), "its assignment", || {
            rig.assigned(&set_id("pool"), &name)
        });
        assert_eq!(rig.patches().len(), 1, "{effect:?}: {:?}", rig.patches());
        let (_, intent) = rig.entry(&set_id("pool"), &name);
        assert_eq!(intent["owned"], true, "{}", identity_id(&name));
        rig.sim().clear_faults();
    }
}
