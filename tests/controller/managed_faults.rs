//! Managed identities while Azure fails at each of its calls, and what is somebody else's.

use std::time::Duration;

use lanyard::sim::faults::Effect;
use serde_json::{Value, json};

use crate::Trials;
use crate::looks::{fault, said, status};
use crate::managed::{ISSUER, begin, delete, group, in_azure, is_gone, is_held, managed, told};
use crate::rig::{Rig, set_id};

pub const TRIALS: Trials = &[
    ("each_call_of_a_managed_identity_fails_once", |rig| {
        failing(rig, 0);
    }),
    (
        "slow_each_call_of_a_managed_identity_fails_by_turns_3",
        |rig| {
            failing(rig, 3);
        },
    ),
    (
        "slow_each_call_of_a_managed_identity_fails_by_turns_1",
        |rig| {
            failing(rig, 1);
        },
    ),
    (
        "slow_each_call_of_a_managed_identity_fails_by_turns_2",
        |rig| {
            failing(rig, 2);
        },
    ),
    (
        "slow_each_call_of_a_managed_identity_fails_by_turns_4",
        |rig| {
            failing(rig, 4);
        },
    ),
    (
        "slow_each_call_of_a_managed_identity_fails_by_turns_5",
        |rig| {
            failing(rig, 5);
        },
    ),
    (
        "what_has_another_tag_is_neither_adopted_nor_deleted",
        what_has_another_tag_is_neither_adopted_nor_deleted,
    ),
    (
        "a_controller_killed_while_it_creates_makes_no_second_one",
        a_controller_killed_while_it_creates_makes_no_second_one,
    ),
    ("a_group_that_no_policy_names", a_group_that_no_policy_names),
];

const FLAGS: &[&str] = &["--debounce=100ms", "--removal-grace=1s", ISSUER];
/// The calls that a managed identity takes.
const CALLS: &[(&str, &str)] = &[
    ("GET", "userAssignedIdentities/lanyard-"),
    ("PUT", "userAssignedIdentities/lanyard-"),
    ("GET", "federatedIdentityCredentials"),
    ("PUT", "federatedIdentityCredentials/"),
    ("GET", "virtualMachineScaleSets"),
    ("PATCH", "virtualMachineScaleSets"),
    ("DELETE", "userAssignedIdentities/lanyard-"),
];

/// How it fails, and whether Azure does it all the same.
fn ways() -> [(Effect, bool); 6] {
    [
        (status(500, None), false),
        (status(429, Some(1)), false),
        (Effect::Reset, false),
        (Effect::Silence, true),
        (Effect::Reset, true),
        (Effect::Html, false),
    ]
}

/// One call after the other fails once, in another way each time.
fn failing(rig: &mut Rig<'_>, turn: usize) {
    begin(rig);
    let ways = ways();
    for (at, (method, part)) in CALLS.iter().enumerate() {
        let (effect, applied) = ways[(at + turn) % ways.len()].clone();
        let mut once = fault(method, part, Some(1), effect);
        once.applied = applied;
        rig.sim().add_fault(once);
    }
    rig.controller("controller", FLAGS);
    rig.pod("shop", "web-1", "node-1", "pay");
    managed(rig, "pay", &json!({}));
    let patience = Duration::from_mins(2);
    rig.within(patience, "its ids", || told(rig, "pay").is_some());
    let id = told(rig, "pay").unwrap();
    rig.within(patience, "its assignment", || {
        let assignment = rig.assignment(&set_id("pool")).unwrap_or_default();
        let entry = &assignment["status"]["identities"][0];
        let same = entry["resourceID"].as_str().unwrap_or_default();
        same.eq_ignore_ascii_case(&id) && entry["state"] == "Assigned"
    });
    rig.within(patience, "all of it", || {
        rig.ready("shop", "pay").0 == "True"
    });
    assert_eq!(in_azure(rig).len(), 1);
    let object = rig.object("azureidentities", "shop", "pay");
    assert!(object["status"]["principalID"].is_string(), "{object}");
    delete(rig, "pay");
    rig.within(patience, "its end", || is_gone(rig, "pay"));
    assert_eq!(in_azure(rig), Vec::<String>::new());
    rig.until("nothing on the scale set", || {
        rig.shown("pool").identities.is_empty()
    });
    let struck: Vec<String> = rig
        .asked()
        .iter()
        .filter(|entry| entry.fault.is_some())
        .map(|entry| format!("{} {}", entry.method, said(entry).kind))
        .collect();
    assert!(
        struck.len() >= CALLS.len() - 1,
        "each was struck: {struck:?}"
    );
}

/// What Lanyard would call it, in Azure.
fn name_in_azure(rig: &Rig<'_>, uid: &Value) -> String {
    let system = rig
        .send("GET", "/api/v1/namespaces/kube-system", &Value::Null)
        .unwrap();
    format!(
        "{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/lanyard-{}-{}",
        group(),
        system["metadata"]["uid"].as_str().unwrap(),
        uid.as_str().unwrap()
    )
}

fn what_has_another_tag_is_neither_adopted_nor_deleted(rig: &mut Rig<'_>) {
    begin(rig);
    managed(rig, "pay", &json!({}));
    let object = rig.object("azureidentities", "shop", "pay");
    let id = name_in_azure(rig, &object["metadata"]["uid"]);
    rig.sim().arm().put_identity(&id, None).unwrap();
    rig.pod("shop", "web-1", "node-1", "pay");
    rig.controller("controller", FLAGS);
    rig.until("what it is told", || {
        let (status, reason, message) = rig.ready("shop", "pay");
        status == "False" && reason == "NotOurs" && message.contains("lanyard-owner")
    });
    assert!(
        rig.asked().iter().all(|entry| entry.method == "GET"),
        "{:?}",
        rig.asked()
    );
    delete(rig, "pay");
    rig.until("its end", || is_gone(rig, "pay"));
    assert_eq!(in_azure(rig).len(), 1, "it is somebody else's");
}

fn a_controller_killed_while_it_creates_makes_no_second_one(rig: &mut Rig<'_>) {
    begin(rig);
    // It is made, and nobody hears of it.
    let mut lost = fault(
        "PUT",
        "userAssignedIdentities/lanyard-",
        Some(1),
        Effect::Silence,
    );
    lost.applied = true;
    rig.sim().add_fault(lost);
    rig.controller("controller", FLAGS);
    managed(rig, "pay", &json!({}));
    rig.until("the identity", || in_azure(rig).len() == 1);
    rig.kill("controller");
    assert!(is_held(rig, "pay"), "the finalizer comes first");
    rig.controller("second", FLAGS);
    rig.within(Duration::from_mins(1), "its ids", || {
        told(rig, "pay").is_some()
    });
    assert_eq!(in_azure(rig).len(), 1);
    delete(rig, "pay");
    rig.until("its end", || is_gone(rig, "pay"));
    assert_eq!(in_azure(rig), Vec::<String>::new());
}

fn a_group_that_no_policy_names(rig: &mut Rig<'_>) {
    begin(rig);
    let other = group().replace("/ids", "/vault");
    rig.controller("controller", FLAGS);
    managed(rig, "pay", &json!({"resourceGroup": other}));
    rig.until("what it is told", || {
        let (status, reason, message) = rig.ready("shop", "pay");
        status == "False"
            && reason == "GroupNotAllowed"
            && message.contains("managedResourceGroups")
    });
    assert!(!is_held(rig, "pay"));
    assert_eq!(rig.asked(), []);
    delete(rig, "pay");
    rig.until("its end", || is_gone(rig, "pay"));
}
