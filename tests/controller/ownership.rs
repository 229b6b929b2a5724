//! What is Lanyard's on a machine and what is not; and that whoever takes over knows it.

use std::time::Duration;

use lanyard::sim::arm::Operations;
use lanyard::sim::faults::Effect;
use lanyard::sim::world::{Instance, ScaleSet, SystemAssigned};
use serde_json::json;

use crate::Trials;
use crate::looks::{fault, said};
use crate::rig::{Rig, identity_id, set_id, world};

pub const TRIALS: Trials = &[
    ("drift_is_repaired", drift_is_repaired),
    (
        "what_is_foreign_is_never_removed",
        what_is_foreign_is_never_removed,
    ),
    (
        "what_is_immutable_is_never_removed",
        what_is_immutable_is_never_removed,
    ),
    (
        "removal_waits_for_its_grace_time",
        removal_waits_for_its_grace_time,
    ),
    (
        "a_pod_that_returns_within_the_grace_time_costs_nothing",
        a_pod_that_returns_within_the_grace_time_costs_nothing,
    ),
    (
        "the_system_assigned_identity_stays",
        the_system_assigned_identity_stays,
    ),
    (
        "an_identity_that_is_made_anew_is_assigned_anew",
        an_identity_that_is_made_anew_is_assigned_anew,
    ),
    (
        "killed_between_patch_and_status",
        killed_between_patch_and_status,
    ),
    (
        "killed_between_intent_and_patch",
        killed_between_intent_and_patch,
    ),
    (
        "killed_while_the_answer_is_on_its_way",
        killed_while_the_answer_is_on_its_way,
    ),
    ("killed_while_it_removes", killed_while_it_removes),
    (
        "a_grace_time_outlives_its_controller",
        a_grace_time_outlives_its_controller,
    ),
];

const QUICK: &[&str] = &["--debounce=100ms", "--removal-grace=1s"];

fn begin(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay", "theirs"], &["pool"], &[], ""));
    rig.pool(&["pool"]);
    rig.granted("shop", "pay");
    rig.pod("shop", "web", "node-pool", "pay");
}

fn drift_is_repaired(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &["--debounce=100ms", "--drift-interval=2s"]);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.sim().arm().unassign("pool", "pay").unwrap();
    rig.until("it to be back", || rig.has("pool", "pay"));
    rig.until_assigned(&set_id("pool"), "pay");
    assert_eq!(rig.patches().len(), 2);
    // What somebody adds is left alone.
    rig.sim().assign("pool", &["pay", "theirs"]).unwrap();
    rig.forget();
    rig.until("a look at it", || {
        let asked = rig.asked();
        asked
            .iter()
            .filter(|entry| said(entry).name == "pool")
            .count()
            >= 2
    });
    assert_eq!(rig.patches(), []);
    assert!(rig.has("pool", "theirs"));
}

fn what_is_foreign_is_never_removed(rig: &mut Rig<'_>) {
    begin(rig);
    // It is there already, and pods may use it as well.
    rig.sim().assign("pool", &["theirs"]).unwrap();
    rig.granted("shop", "theirs");
    rig.pod("shop", "other", "node-pool", "theirs");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until_assigned(&set_id("pool"), "theirs");
    assert_eq!(rig.entry(&set_id("pool"), "theirs").1["owned"], false);
    assert_eq!(rig.entry(&set_id("pool"), "pay").1["owned"], true);
    rig.delete_pod("shop", "other");
    rig.delete_pod("shop", "web");
    rig.until("the end of the record", || {
        rig.assignment(&set_id("pool")).is_none()
    });
    assert!(rig.has("pool", "theirs") && !rig.has("pool", "pay"));
    let removed: Vec<String> = rig
        .patches()
        .iter()
        .flat_map(|one| said(one).removed)
        .collect();
    assert_eq!(removed.len(), 1, "{removed:?}");
}

fn what_is_immutable_is_never_removed(rig: &mut Rig<'_>) {
    begin(rig);
    // Spelled otherwise than Azure does.
    let stays = json!({"resourceID": identity_id("theirs").to_uppercase().replacen("/SUBSCRIPTIONS", "/subscriptions", 1), "immutable": true});
    let policy = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy",
        "metadata": {"name": "upper"}, "spec": {"namespaces": {},
        "resourceIDPrefixes": [format!("/subscriptions/{}", crate::rig::SUBSCRIPTION)]}});
    rig.make(&policy);
    rig.identity("shop", "theirs", &stays);
    rig.bound("shop", "theirs", "theirs");
    rig.pod("shop", "other", "node-pool", "theirs");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "theirs");
    rig.until_assigned(&set_id("pool"), "pay");
    let count = rig.patches().len();
    rig.delete_pod("shop", "other");
    rig.delete_pod("shop", "web");
    rig.until("the end of what is not immutable", || {
        !rig.has("pool", "pay")
    });
    rig.until("what the record says", || {
        let (status, intent) = rig.entry(&set_id("pool"), "theirs");
        status["state"] == "Assigned" && intent["immutable"] == true && intent["owned"] == true
    });
    assert!(rig.has("pool", "theirs"));
    assert_eq!(rig.patches().len(), count + 1);
    // Nobody knows any more whether it is immutable: it stays.
    rig.kubectl(&[
        "delete",
        "azureidentity,azureidentitybinding",
        "-n",
        "shop",
        "theirs",
    ]);
    rig.pod("shop", "again", "node-pool", "pay");
    rig.until("pay again", || rig.has("pool", "pay"));
    assert!(rig.has("pool", "theirs"));
}

fn removal_waits_for_its_grace_time(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &["--debounce=100ms", "--removal-grace=4s"]);
    rig.until_assigned(&set_id("pool"), "pay");
    let gone = jiff::Timestamp::now();
    rig.delete_pod("shop", "web");
    rig.until("the time of its removal", || {
        rig.entry(&set_id("pool"), "pay").1["removeAfter"].is_string()
    });
    assert_eq!(
        rig.state(&set_id("pool"), "pay"),
        "Assigned",
        "agents go on serving"
    );
    rig.until("its removal", || !rig.has("pool", "pay"));
    let removal = rig.patches().pop().unwrap().time;
    assert!(
        removal >= gone + jiff::SignedDuration::from_secs(4),
        "{gone} {removal}"
    );
    rig.until("the end of the record", || {
        rig.assignment(&set_id("pool")).is_none()
    });
}

fn a_pod_that_returns_within_the_grace_time_costs_nothing(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &["--debounce=100ms", "--removal-grace=3s"]);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.forget();
    rig.delete_pod("shop", "web");
    rig.until("the time of its removal", || {
        rig.entry(&set_id("pool"), "pay").1["removeAfter"].is_string()
    });
    rig.pod("shop", "web", "node-pool", "pay");
    rig.until("no such time", || {
        let (status, intent) = rig.entry(&set_id("pool"), "pay");
        intent["removeAfter"].is_null() && status["state"] == "Assigned"
    });
    rig.never(Duration::from_secs(4), "a PATCH", || {
        !rig.patches().is_empty()
    });
    assert!(rig.has("pool", "pay"));
}

fn the_system_assigned_identity_stays(rig: &mut Rig<'_>) {
    begin(rig);
    let with = ScaleSet {
        name: "system".to_owned(),
        resource_id: Some(set_id("system")),
        location: "westeurope".to_owned(),
        identities: Vec::new(),
        system_assigned: Some(SystemAssigned {
            client_id: "30000000-0000-4000-8000-000000000001".to_owned(),
            principal_id: "30000000-0000-4000-8000-000000000002".to_owned(),
        }),
        instances: vec![Instance {
            name: "system_0".to_owned(),
            sources: Vec::new(),
        }],
        sources: Vec::new(),
    };
    rig.sim().arm().add_scale_set(&with).unwrap();
    rig.instance("node-system", "system");
    rig.pod("shop", "with", "node-system", "pay");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("system"), "pay");
    rig.until_assigned(&set_id("pool"), "pay");
    assert_eq!(
        rig.shown("system").kind.replace(' ', ""),
        "SystemAssigned,UserAssigned"
    );
    assert_eq!(rig.shown("pool").kind, "UserAssigned");
    rig.delete_pod("shop", "with");
    rig.delete_pod("shop", "web");
    rig.until("both ends", || {
        !rig.has("system", "pay") && !rig.has("pool", "pay")
    });
    assert_eq!(rig.shown("system").kind, "SystemAssigned");
    assert_eq!(rig.shown("pool").kind, "None");
}

fn an_identity_that_is_made_anew_is_assigned_anew(rig: &mut Rig<'_>) {
    begin(rig);
    rig.granted("shop", "theirs");
    rig.pod("shop", "other", "node-pool", "theirs");
    rig.controller("controller", &["--debounce=100ms", "--drift-interval=2s"]);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until_assigned(&set_id("pool"), "theirs");
    let anew = rig.sim().arm().recreate_identity("pay").unwrap();
    rig.within(Duration::from_mins(1), "the new principal there", || {
        let shown = rig.shown("pool").identities;
        shown
            .iter()
            .any(|(id, principal)| id.ends_with("/pay") && *principal == anew.principal_id)
    });
    rig.until("the new ids in the objects", || {
        let object = rig.object("azureidentities", "shop", "pay");
        object["status"]["principalID"] == anew.principal_id.as_str()
            && object["status"]["clientID"] == anew.client_id.as_str()
            && rig.entry(&set_id("pool"), "pay").0["principalID"] == anew.principal_id.as_str()
            && rig.ready("shop", "pay").0 == "True"
    });
    assert!(rig.has("pool", "theirs"));
    // Off, and on again: once.
    assert_eq!(rig.patches().len(), 3, "{:?}", rig.patches());
    rig.never(Duration::from_secs(3), "one more", || {
        rig.patches().len() > 3
    });
}

/// A second controller finds the assignment made, knows that it is Lanyard's, and asks for nothing but
/// `more` changes.
fn taken_over(rig: &mut Rig<'_>, more: usize) {
    rig.forget();
    rig.controller("second", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    assert_eq!(rig.patches().len(), more, "{:?}", rig.patches());
    assert_eq!(rig.entry(&set_id("pool"), "pay").1["owned"], true);
    rig.delete_pod("shop", "web");
    rig.until("its removal", || !rig.has("pool", "pay"));
    rig.until("the end of the record", || {
        rig.assignment(&set_id("pool")).is_none()
    });
}

fn killed_between_patch_and_status(rig: &mut Rig<'_>) {
    begin(rig);
    rig.sim()
        .arm()
        .set_operations("pool", Operations::Hold)
        .unwrap();
    rig.controller("controller", QUICK);
    rig.until("the PATCH", || rig.patches().len() == 1);
    rig.until("its operation", || {
        said(&rig.patches()[0]).operation.is_some()
    });
    rig.kill("controller");
    assert_eq!(rig.entry(&set_id("pool"), "pay").1["owned"], true);
    // The next one comes while it still runs, and does not ask for it again.
    rig.forget();
    rig.controller("second", QUICK);
    rig.within(Duration::from_secs(45), "its look", || {
        rig.asked().iter().any(|entry| said(entry).name == "pool")
    });
    rig.never(Duration::from_secs(2), "a second PATCH", || {
        !rig.patches().is_empty()
    });
    rig.sim()
        .arm()
        .set_operations("pool", Operations::World)
        .unwrap();
    rig.sim().arm().release("pool", None).unwrap();
    rig.until_assigned(&set_id("pool"), "pay");
    assert_eq!(rig.patches(), []);
    rig.delete_pod("shop", "web");
    rig.until("its removal", || !rig.has("pool", "pay"));
}

fn killed_between_intent_and_patch(rig: &mut Rig<'_>) {
    begin(rig);
    // Held before anything is done about it.
    rig.sim()
        .add_fault(fault("PATCH", "", Some(1), Effect::Silence));
    rig.controller("controller", QUICK);
    rig.until("the PATCH", || rig.patches().len() == 1);
    assert_eq!(
        rig.entry(&set_id("pool"), "pay").1["owned"],
        true,
        "the intent comes first"
    );
    rig.kill("controller");
    assert!(!rig.has("pool", "pay"));
    taken_over(rig, 1);
}

fn killed_while_the_answer_is_on_its_way(rig: &mut Rig<'_>) {
    begin(rig);
    let mut lost = fault("PATCH", "", Some(1), Effect::Silence);
    lost.applied = true;
    rig.sim().add_fault(lost);
    rig.controller("controller", QUICK);
    rig.until("the PATCH", || rig.has("pool", "pay"));
    rig.kill("controller");
    taken_over(rig, 0);
}

fn killed_while_it_removes(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.sim()
        .arm()
        .set_operations("pool", Operations::Hold)
        .unwrap();
    rig.forget();
    rig.delete_pod("shop", "web");
    rig.until("its removal", || rig.patches().len() == 1);
    rig.until("its operation", || {
        said(&rig.patches()[0]).operation.is_some()
    });
    rig.kill("controller");
    // It is wanted again when the next one comes: it is put back.
    rig.pod("shop", "web", "node-pool", "pay");
    rig.forget();
    rig.controller("second", QUICK);
    rig.within(Duration::from_secs(45), "its look", || {
        rig.asked().iter().any(|entry| said(entry).name == "pool")
    });
    rig.sim()
        .arm()
        .set_operations("pool", Operations::World)
        .unwrap();
    rig.sim().arm().release("pool", None).unwrap();
    rig.within(Duration::from_mins(1), "it to be back", || {
        rig.has("pool", "pay") && rig.assigned(&set_id("pool"), "pay")
    });
    let added: Vec<String> = rig
        .patches()
        .iter()
        .flat_map(|one| said(one).added)
        .collect();
    assert_eq!(added.len(), 1, "{:?}", rig.patches());
    assert_eq!(rig.entry(&set_id("pool"), "pay").1["owned"], true);
}

fn a_grace_time_outlives_its_controller(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &["--debounce=100ms", "--removal-grace=5s"]);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.delete_pod("shop", "web");
    rig.until("the time of its removal", || {
        rig.entry(&set_id("pool"), "pay").1["removeAfter"].is_string()
    });
    rig.kill("controller");
    rig.controller("second", &["--debounce=100ms", "--removal-grace=15m"]);
    rig.within(Duration::from_secs(45), "its removal at that time", || {
        !rig.has("pool", "pay")
    });
}
