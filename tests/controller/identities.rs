//! Who is who: names that are the same and mean something else, ids that differ and mean the same.

use std::collections::BTreeSet;

use lanyard::sim::world::{Instance, ScaleSet};
use serde_json::json;

use crate::Trials;
use crate::looks::said;
use crate::rig::{Rig, SUBSCRIPTION, identity_id, set_id, world};

pub const TRIALS: Trials = &[
    (
        "pods_of_the_same_name_in_two_namespaces",
        pods_of_the_same_name_in_two_namespaces,
    ),
    (
        "two_objects_for_one_identity_and_one_of_them_wrong",
        two_objects_for_one_identity_and_one_of_them_wrong,
    ),
    ("scale_sets_of_the_same_name", scale_sets_of_the_same_name),
    ("ids_that_azure_spells_in_lower_case", |rig| {
        spelled(rig, "lower");
    }),
    ("ids_that_azure_spells_in_upper_case", |rig| {
        spelled(rig, "upperGroups");
    }),
    (
        "more_than_a_hundred_and_fifty_identities",
        more_than_a_hundred_and_fifty_identities,
    ),
    (
        "another_namespaces_identity_needs_a_policy",
        another_namespaces_identity_needs_a_policy,
    ),
];

const QUICK: &[&str] = &["--debounce=100ms", "--removal-grace=1s"];

fn pods_of_the_same_name_in_two_namespaces(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    rig.pool(&["pool"]);
    for namespace in ["shop", "till"] {
        rig.granted(namespace, "pay");
        rig.pod(namespace, "web-0", "node-pool", "pay");
    }
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.delete_pod("shop", "web-0");
    rig.until("the count", || rig.matched("shop", "pay") == 0);
    rig.never(std::time::Duration::from_secs(3), "a removal", || {
        rig.patches().len() > 1
    });
    assert!(rig.assigned(&set_id("pool"), "pay"));
    rig.delete_pod("till", "web-0");
    rig.until("its removal", || !rig.has("pool", "pay"));
}

fn two_objects_for_one_identity_and_one_of_them_wrong(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    rig.pool(&["pool"]);
    rig.granted("shop", "pay");
    let typo = json!({"resourceID": identity_id("pay").replace("resourceGroups", "RESOURCEGROUPS"),
        "clientID": "10000000-0000-4000-8000-00000000000f"});
    rig.identity("shop", "typo", &typo);
    rig.bound("shop", "typo", "typo");
    rig.pod("shop", "right", "node-pool", "pay");
    rig.pod("shop", "wrong", "node-pool", "typo");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until("what is said of the typo", || {
        let (status, reason, message) = rig.ready("shop", "typo");
        status == "False" && reason == "ClientIDMismatch" && message.contains("clientID")
    });
    rig.until("the right one's condition", || {
        rig.ready("shop", "pay").0 == "True"
    });
    rig.delete_pod("shop", "wrong");
    rig.until("the count", || rig.matched("shop", "typo") == 0);
    rig.never(std::time::Duration::from_secs(3), "a removal", || {
        rig.patches().len() > 1
    });
    assert!(rig.has("pool", "pay"));
}

fn scale_sets_of_the_same_name(rig: &mut Rig<'_>) {
    let other = "5d9c1e00-0000-4000-8000-000000000002";
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    let ids = [
        set_id("pool"),
        set_id("pool").replace("/resourceGroups/nodes/", "/resourceGroups/more/"),
        set_id("pool").replace(SUBSCRIPTION, other),
    ];
    for (number, id) in ids.iter().enumerate().skip(1) {
        let set = ScaleSet {
            // How commands speak of it; its ARM name is the last part of the id.
            name: format!("pool{number}"),
            resource_id: Some(id.clone()),
            location: "westeurope".to_owned(),
            identities: Vec::new(),
            system_assigned: None,
            instances: vec![Instance {
                name: format!("instance{number}"),
                sources: Vec::new(),
            }],
            sources: Vec::new(),
        };
        rig.sim().arm().add_scale_set(&set).unwrap();
    }
    rig.admit_all();
    rig.granted("shop", "pay");
    for (number, id) in ids.iter().enumerate() {
        rig.node(
            &format!("node-{number}"),
            &format!("azure://{id}/virtualMachines/0"),
        );
        rig.pod(
            "shop",
            &format!("web-{number}"),
            &format!("node-{number}"),
            "pay",
        );
    }
    rig.controller("controller", QUICK);
    for id in &ids {
        rig.until_assigned(id, "pay");
    }
    let has = |rig: &Rig<'_>| -> Vec<bool> {
        let computes = rig.sim().arm().resources().computes;
        ids.iter()
            .map(|id| {
                let one = computes.iter().find(|one| one.id.eq_ignore_ascii_case(id));
                !one.unwrap().identities.is_empty()
            })
            .collect()
    };
    assert_eq!(has(rig), [true, true, true]);
    let patched: BTreeSet<String> = rig.patches().into_iter().map(|one| one.target).collect();
    assert_eq!((patched.len(), rig.patches().len()), (3, 3), "{patched:?}");
    rig.delete_pod("shop", "web-1");
    rig.until("the removal there", || has(rig) == [true, false, true]);
    assert!(rig.assigned(&ids[0], "pay") && rig.assigned(&ids[2], "pay"));
}

fn spelled(rig: &mut Rig<'_>, how: &str) {
    rig.azure(&world(
        &["Pay", "foreign"],
        &["pool"],
        &[],
        &format!("arm: {{idCase: {how}}}\n"),
    ));
    rig.sim().assign("pool", &["foreign"]).unwrap();
    rig.pool(&["pool"]);
    rig.identity("shop", "pay", &json!({"resourceID": identity_id("Pay")}));
    rig.bound("shop", "pay", "pay");
    rig.pod("shop", "web", "node-pool", "pay");
    // The cloud's node controller spells as it likes, too.
    let upper = set_id("pool")
        .to_uppercase()
        .replacen("/SUBSCRIPTIONS", "/subscriptions", 1);
    rig.node("node-upper", &format!("azure://{upper}/virtualMachines/1"));
    rig.pod("shop", "upper", "node-upper", "pay");
    rig.controller(
        "controller",
        &[
            "--debounce=100ms",
            "--drift-interval=1s",
            "--removal-grace=1s",
        ],
    );
    rig.until_assigned(&set_id("pool"), "pay");
    rig.forget();
    rig.until("three looks", || {
        let asked = rig.asked();
        asked
            .iter()
            .filter(|entry| said(entry).kind == "virtualMachineScaleSets")
            .count()
            >= 3
    });
    assert_eq!(rig.patches(), [], "what is there is not asked for");
    rig.until("its nodes", || {
        rig.object("azureidentities", "shop", "pay")["status"]["assignedNodes"] == 2
    });
    rig.delete_pod("shop", "web");
    rig.delete_pod("shop", "upper");
    rig.until("its removal", || !rig.has("pool", "Pay"));
    assert!(rig.has("pool", "foreign"));
}

fn more_than_a_hundred_and_fifty_identities(rig: &mut Rig<'_>) {
    let names: Vec<String> = (0..160).map(|number| format!("i{number:03}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    rig.azure(&world(&all, &["pool"], &[], ""));
    rig.pool(&["pool"]);
    for name in &names {
        rig.granted("shop", name);
        rig.pod("shop", &format!("web-{name}"), "node-pool", name);
    }
    rig.controller("controller", &[]);
    rig.within(std::time::Duration::from_mins(1), "all of them", || {
        rig.assignment(&set_id("pool")).unwrap_or_default()["status"]["assigned"] == 160
    });
    assert_eq!(rig.shown("pool").identities.len(), 160);
    let patches = rig.patches();
    let sizes: Vec<usize> = patches.iter().map(|one| said(one).added.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 160, "{sizes:?}");
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 150), "{sizes:?}");
}

fn another_namespaces_identity_needs_a_policy(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    rig.instance("node-pool", "pool");
    rig.granted("shop", "pay");
    rig.pod("shop", "web", "node-pool", "pay");
    rig.controller("controller", QUICK);
    rig.until("what it is told", || {
        let (status, reason, message) = rig.ready("shop", "pay");
        status == "False" && reason == "NoPolicy" && message.contains("AzureIdentityPolicy")
    });
    assert!(
        rig.asked().is_empty(),
        "nothing is asked for it: {:?}",
        rig.asked()
    );
    assert_eq!(
        rig.object("azureidentities", "shop", "pay")["status"]["clientID"],
        json!(null)
    );
    rig.admit_all();
    rig.until_assigned(&set_id("pool"), "pay");
    // And off again where the policy goes.
    rig.kubectl(&["delete", "azureidentitypolicy", "all"]);
    rig.until("its removal", || !rig.has("pool", "pay"));
}
