//! What a person sees: columns, Events, the list of identities, the plan.

use std::time::Duration;

use lanyard::sim::faults::Effect;
use serde_json::{Value, json};

use crate::looks::{fault, said};
use crate::rig::{Rig, identity_id, set_id, world};
use crate::{Trials, managed};

pub const TRIALS: Trials = &[
    ("columns_say_how_it_stands", columns_say_how_it_stands),
    (
        "the_next_controller_writes_no_status_anew",
        the_next_controller_writes_no_status_anew,
    ),
    ("events_say_what_happened", events_say_what_happened),
    ("a_dry_run_prints_the_plan", a_dry_run_prints_the_plan),
    ("identities_are_listed", identities_are_listed),
];

const QUICK: &[&str] = &["--debounce=100ms"];
/// Those whose statuses must not flap.
const OBJECTS: [(&str, &str); 4] = [
    ("shop", "pay"),
    ("shop", "idle"),
    ("shop", "own"),
    ("till", "lost"),
];

fn begin(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay", "idle"], &["pool"], &[], ""));
    rig.pool(&["pool"]);
    rig.granted("shop", "pay");
    rig.granted("shop", "idle");
    rig.granted("till", "lost");
    rig.pod("shop", "web", "node-pool", "pay");
    rig.pod("till", "web", "node-pool", "lost");
}

/// At 500 identities each status that is written without need is a call, and a condition that flaps.
fn the_next_controller_writes_no_status_anew(rig: &mut Rig<'_>) {
    begin(rig);
    managed::policy(rig);
    managed::managed(rig, "own", &json!({}));
    let quick = [QUICK, &[managed::ISSUER]].concat();
    rig.controller("controller", &quick);
    let settled = |rig: &Rig<'_>| {
        rig.ready("shop", "pay").1 == "Assigned"
            && rig.ready("shop", "own").1 == "Unused"
            && rig.ready("shop", "idle").1 == "Unused"
            && rig.ready("till", "lost").1 == "IdentityNotFound"
            && rig.matched("till", "lost") == 1
            && rig.synced(&set_id("pool")).1 == "IdentitiesFailed"
    };
    rig.until("all conditions", || settled(rig));
    let versions = |rig: &Rig<'_>| {
        let kinds = ["azureidentities", "azureidentitybindings"];
        let mut versions = Vec::new();
        for plural in kinds {
            for (namespace, name) in OBJECTS {
                let object = rig.object(plural, namespace, name);
                versions.push(object["metadata"]["resourceVersion"].clone());
            }
        }
        versions
    };
    let before = versions(rig);
    rig.kill("controller");
    rig.forget();
    // Reports come before Azure has said anything.
    let mut slow = fault("GET", "userAssignedIdentities", None, Effect::Silence);
    (slow.effect, slow.latency) = (None, Some(Duration::from_secs(2)));
    rig.sim().add_fault(slow);
    rig.controller("second", &quick);
    // What it is told last it writes last: by then everything else is written, if at all.
    rig.within(Duration::from_secs(45), "its looks", || {
        let asked = rig.asked();
        let about = |name: &str| asked.iter().any(|entry| said(entry).name.starts_with(name));
        ["pool", "pay", "idle", "lost", "lanyard-"]
            .into_iter()
            .all(about)
    });
    rig.sim().clear_faults();
    rig.granted("till", "pay");
    rig.until("a new binding's status", || rig.matched("till", "pay") == 0);
    assert_eq!(versions(rig), before, "{}", rig.log("second"));
    assert!(settled(rig));
    // It may try what Azure refused, once: what was set aside is not kept.
    for patch in rig.patches() {
        let added = said(&patch).added;
        assert!(added.iter().all(|id| id.ends_with("/lost")), "{added:?}");
    }
}

/// A row by its first cells.
fn row(table: &str, name: &str) -> String {
    let found = table.lines().find(|line| line.starts_with(name));
    let found = found.unwrap_or_else(|| panic!("no {name} in\n{table}"));
    found.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn columns_say_how_it_stands(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until("all conditions", || {
        rig.ready("shop", "pay").1 == "Assigned"
            && rig.ready("shop", "idle").1 == "Unused"
            && rig.ready("till", "lost").1 == "IdentityNotFound"
            && rig.matched("shop", "pay") == 1
            && rig.synced(&set_id("pool")).1 == "IdentitiesFailed"
    });
    let table = rig.kubectl(&["get", "azid", "-n", "shop"]);
    let head = row(&table, "NAME");
    assert_eq!(
        head,
        "NAME CLIENT ID PRINCIPAL ID ASSIGNED WANTED READY REASON AGE"
    );
    let pay = row(&table, "pay");
    // It states no client id: the one that was found is in the wide table.
    let principal = "20000000-0000-4000-8000-000000000000";
    assert!(
        pay.starts_with(&format!("pay {principal} 1 1 True Assigned")),
        "{pay}"
    );
    let wide = row(
        &rig.kubectl(&["get", "azid", "-n", "shop", "-o", "wide"]),
        "pay",
    );
    assert!(
        wide.contains("10000000-0000-4000-8000-000000000000"),
        "{wide}"
    );
    let idle = row(&table, "idle");
    assert!(idle.contains("0 0 True Unused"), "{idle}");
    let lost = row(
        &rig.kubectl(&["get", "azid", "-n", "till", "-o", "wide"]),
        "lost",
    );
    assert!(lost.contains("0 1 False IdentityNotFound"), "{lost}");
    assert!(
        lost.contains("create it, or correct spec.resourceID"),
        "{lost}"
    );
    let table = rig.kubectl(&["get", "azidb", "-A"]);
    let bound = row(&table, "shop");
    assert!(
        table.contains("IDENTITY") && bound.contains("True"),
        "{table}"
    );
    let table = rig.kubectl(&["get", "azas"]);
    assert!(
        row(&table, "vmss-pool-").contains("1 0 1 False IdentitiesFailed"),
        "{table}"
    );
    // Every condition says which spec it is about.
    for (plural, name) in [("azureidentities", "pay"), ("azureidentitybindings", "pay")] {
        let object = rig.object(plural, "shop", name);
        let condition = &object["status"]["conditions"][0];
        assert_eq!(
            condition["observedGeneration"],
            object["metadata"]["generation"]
        );
    }
    let policy = rig.send(
        "GET",
        "/apis/lanyard.dev/v1alpha1/azureidentitypolicies/all",
        &Value::Null,
    );
    let policy = policy.unwrap();
    assert_eq!(Rig::condition(&policy, "Accepted").0, "True", "{policy}");
}

fn events_say_what_happened(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", QUICK);
    let events = |rig: &Rig<'_>, namespace: &str, name: &str| {
        let of = format!("involvedObject.name={name}");
        rig.kubectl(&["get", "events", "-n", namespace, "--field-selector", &of])
    };
    rig.until("the good one", || {
        let said = events(rig, "shop", "pay");
        said.contains("Assigned") && said.contains("azureidentity/pay")
    });
    rig.until("the bad one", || {
        let said = events(rig, "till", "lost");
        said.contains("Warning") && said.contains("AssignmentFailed") && said.contains("create it")
    });
    let said = rig.kubectl(&["describe", "azid", "-n", "shop", "pay"]);
    assert!(
        said.contains("Assigned") && said.contains("Events:"),
        "{said}"
    );
}

fn a_dry_run_prints_the_plan(rig: &mut Rig<'_>) {
    begin(rig);
    let dry = |rig: &Rig<'_>, name: &str, more: &[&str]| {
        let mut args = rig.controller_args(&["--dry-run"]);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args.retain(|arg| !arg.starts_with("--kubeconfig="));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        rig.runs(name, &args)
    };
    let text = dry(rig, "dry", &[]);
    assert!(
        text.contains(&format!("{} (1 nodes)", set_id("pool"))),
        "{text}"
    );
    assert!(
        text.contains(&format!("+ {}", identity_id("pay"))),
        "{text}"
    );
    assert!(
        text.contains("1 of 1 compute resources would be changed. Nothing was written."),
        "{text}"
    );
    let said = dry(rig, "json", &["--output=json"]);
    let json = &said[said.find("{\n").unwrap_or_default()..];
    let plans: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(
        plans["computes"][0]["add"][0],
        identity_id("pay").as_str(),
        "{plans}"
    );
    assert_eq!(plans["computes"][0]["nodes"], 1);
    let lost = &plans["computes"][0]["identities"][identity_id("lost")];
    assert!(
        lost.as_str()
            .unwrap_or_default()
            .contains("IdentityNotFound"),
        "{plans}"
    );
    assert!(
        rig.asked().iter().all(|entry| entry.method == "GET"),
        "{:?}",
        rig.asked()
    );
    assert_eq!(rig.assignment(&set_id("pool")), None);
    assert_eq!(
        rig.object("azureidentities", "shop", "pay")["status"],
        Value::Null
    );
}

fn identities_are_listed(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", QUICK);
    rig.until("all conditions", || {
        rig.ready("shop", "pay").1 == "Assigned"
            && rig.ready("till", "lost").1 == "IdentityNotFound"
    });
    let table = rig.runs("list", &["identities", "-A"]);
    assert!(
        table.contains("10000000-0000-4000-8000-000000000000"),
        "{table}"
    );
    assert!(
        table.contains("20000000-0000-4000-8000-000000000000"),
        "{table}"
    );
    assert!(
        table.contains("IdentityNotFound") && table.contains("lost"),
        "{table}"
    );
    let said = rig.runs("list", &["identities", "-A", "--output=json"]);
    let list: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let text = list.to_string();
    assert!(
        text.contains(&identity_id("pay")) && text.contains("20000000-0000-4000-8000-000000000000"),
        "{text}"
    );
    let one = rig.runs("list", &["identities", "-n", "till"]);
    assert!(one.contains("lost") && !one.contains("pay"), "{one}");
}
