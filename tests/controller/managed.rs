//! Identities whose life is an object's: made, used, owned, removed, kept, let go of at the uninstall.

use std::time::Duration;

use lanyard::sim::faults::{Effect, Fault, Matching, Target};
use serde_json::{Value, json};

use crate::Trials;
use crate::rig::{Rig, SUBSCRIPTION, set_id, world};

pub const TRIALS: Trials = &[
    (
        "a_managed_identity_lives_and_goes_with_its_object",
        a_managed_identity_lives_and_goes_with_its_object,
    ),
    (
        "azure_being_away_delays_a_removal_visibly",
        azure_being_away_delays_a_removal_visibly,
    ),
    (
        "without_a_policy_nothing_is_made",
        without_a_policy_nothing_is_made,
    ),
    (
        "a_managed_identity_goes_with_its_owner",
        a_managed_identity_goes_with_its_owner,
    ),
    (
        "the_uninstall_removes_managed_identities",
        the_uninstall_removes_managed_identities,
    ),
    (
        "the_uninstall_without_a_controller_holds_nobody",
        the_uninstall_without_a_controller_holds_nobody,
    ),
];

const FINALIZER: &str = "lanyard.dev/managed-identity";
pub const ISSUER: &str = "--service-account-issuer=https://issuer.example";
const KIND: &str = "azureidentities";

pub fn group() -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/ids")
}

/// An Azure with that resource group, a policy that allows it, and a scale set with a node.
pub fn begin(rig: &mut Rig<'_>) {
    rig.azure(&world(&["other"], &["pool"], &[], ""));
    rig.instance("node-1", "pool");
    policy(rig);
}

/// Lets identities be made in the group.
pub fn policy(rig: &Rig<'_>) {
    rig.make(
        &json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy",
        "metadata": {"name": "managed"}, "spec": {"namespaces": {},
            "resourceIDPrefixes": [format!("/subscriptions/{SUBSCRIPTION}")],
            "managedResourceGroups": [group()]}}),
    );
}

/// A managed identity of the namespace `shop`, bound to the service account `web`.
pub fn managed(rig: &Rig<'_>, name: &str, more: &Value) {
    let mut managed = json!({"resourceGroup": group(), "location": "westeurope"});
    for (field, value) in more.as_object().into_iter().flatten() {
        managed[field] = value.clone();
    }
    rig.identity(
        "shop",
        name,
        &json!({"managed": managed, "tokenSources": [{"imds": {}}, {"federated": {}}]}),
    );
    rig.make(
        &json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"identity": name, "subjects": [
            {"podSelector": {"matchLabels": {"app": name}}, "serviceAccounts": ["default", "web"]}]}}),
    );
}

/// The ARM id that the status tells.
pub fn told(rig: &Rig<'_>, name: &str) -> Option<String> {
    let object = rig.object(KIND, "shop", name);
    object["status"]["resourceID"].as_str().map(str::to_owned)
}

/// The ARM id of the one in Azure that is this object's.
fn made(rig: &Rig<'_>, name: &str) -> Option<String> {
    let object = rig.object(KIND, "shop", name);
    let uid = object["metadata"]["uid"].as_str()?;
    in_azure(rig).into_iter().find(|id| id.ends_with(uid))
}

/// Identities of Lanyard's in Azure.
pub fn in_azure(rig: &Rig<'_>) -> Vec<String> {
    let shown = rig.sim().arm().resources().identities.into_iter();
    shown
        .map(|one| one.id)
        .filter(|id| id.contains("/lanyard-"))
        .collect()
}

/// What was written of federated credentials: methods and paths.
fn credentials(rig: &Rig<'_>) -> usize {
    let asked = rig
        .asked()
        .into_iter()
        .filter(|entry| entry.method == "PUT");
    asked
        .filter(|entry| format!("{entry:?}").contains("federatedIdentityCredentials"))
        .count()
}

pub fn delete(rig: &Rig<'_>, name: &str) {
    let path = format!("/apis/lanyard.dev/v1alpha1/namespaces/shop/{KIND}/{name}");
    rig.send("DELETE", &path, &Value::Null).unwrap();
}

pub fn is_gone(rig: &Rig<'_>, name: &str) -> bool {
    rig.object(KIND, "shop", name) == Value::Null
}

pub fn is_held(rig: &Rig<'_>, name: &str) -> bool {
    let object = rig.object(KIND, "shop", name);
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER))
}

fn a_managed_identity_lives_and_goes_with_its_object(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &["--debounce=100ms", ISSUER]);
    rig.pod("shop", "web-1", "node-1", "pay");
    managed(rig, "pay", &json!({}));
    rig.until("its ids", || told(rig, "pay").is_some());
    let object = rig.object(KIND, "shop", "pay");
    let uid = object["metadata"]["uid"].as_str().unwrap();
    let id = told(rig, "pay").unwrap();
    assert!(id.ends_with(uid) && is_held(rig, "pay"), "{object}");
    assert!(object["status"]["principalID"].is_string(), "{object}");
    rig.until("two credentials", || credentials(rig) == 2);
    rig.until("its assignment", || {
        let assignment = rig.assignment(&set_id("pool")).unwrap_or_default();
        let entry = &assignment["status"]["identities"][0];
        let same = entry["resourceID"].as_str().unwrap_or_default();
        same.eq_ignore_ascii_case(&id) && entry["state"] == "Assigned"
    });
    // A new controller makes no second one.
    rig.kill("controller");
    rig.controller("second", &["--debounce=100ms", ISSUER]);
    rig.until("its look", || rig.log("second").contains("lead"));
    delete(rig, "pay");
    rig.until("its end", || is_gone(rig, "pay"));
    assert_eq!(in_azure(rig), Vec::<String>::new());
    let made = rig.asked().into_iter().filter(|entry| {
        let text = format!("{entry:?}");
        entry.method == "PUT" && !text.contains("federatedIdentityCredentials")
    });
    assert_eq!(made.count(), 1);
    let shown = rig.sim().arm().resources();
    assert!(
        shown.computes.iter().all(|one| one.identities.is_empty()),
        "it was taken off first: {shown:?}"
    );
}

fn azure_being_away_delays_a_removal_visibly(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &["--debounce=100ms", ISSUER]);
    managed(rig, "pay", &json!({}));
    rig.until("its ids", || told(rig, "pay").is_some());
    rig.sim().add_fault(Fault {
        target: Target::Arm,
        matching: Matching {
            method: Some("DELETE".to_owned()),
            ..Matching::default()
        },
        after: 0,
        count: None,
        latency: None,
        effect: Some(Effect::Status {
            code: 503,
            retry_after: None,
            body: None,
        }),
        applied: false,
    });
    delete(rig, "pay");
    rig.until("the delay in its condition", || {
        let object = rig.object(KIND, "shop", "pay");
        Rig::condition(&object, "Ready").1 == "DeletionDelayed"
    });
    assert!(is_held(rig, "pay"));
    rig.sim().clear_faults();
    rig.within(Duration::from_mins(1), "its end", || is_gone(rig, "pay"));
    assert_eq!(in_azure(rig), Vec::<String>::new());
}

fn without_a_policy_nothing_is_made(rig: &mut Rig<'_>) {
    rig.azure(&world(&["other"], &["pool"], &[], ""));
    rig.controller("controller", &[ISSUER]);
    managed(rig, "pay", &json!({}));
    rig.until("the refusal", || {
        let object = rig.object(KIND, "shop", "pay");
        Rig::condition(&object, "Ready").1 == "GroupNotAllowed"
    });
    assert!(!is_held(rig, "pay"));
    assert!(rig.asked().is_empty(), "{:?}", rig.asked());
    policy(rig);
    rig.until("its ids", || told(rig, "pay").is_some());
}

fn a_managed_identity_goes_with_its_owner(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &[ISSUER]);
    let owner = json!({"owner": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
    managed(rig, "pay", &owner);
    rig.until("what it waits for", || {
        let object = rig.object(KIND, "shop", "pay");
        Rig::condition(&object, "Ready").1 == "OwnerMissing"
    });
    assert_eq!(in_azure(rig), Vec::<String>::new());
    let labels = json!({"app": "web"});
    let web = rig.make(
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "none"}]}}}}),
    );
    rig.until("its ids", || made(rig, "pay").is_some());
    let references = |rig: &Rig<'_>| {
        let object = rig.object(KIND, "shop", "pay");
        object["metadata"]["ownerReferences"].clone()
    };
    assert_eq!(
        references(rig),
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web",
            "uid": web["metadata"]["uid"], "blockOwnerDeletion": false}])
    );
    // Whoever does not name an owner any more keeps the identity when the workload goes.
    rig.merge(
        KIND,
        "shop",
        "pay",
        &json!({"spec": {"managed": {"owner": null}}}),
    );
    rig.until("no owner", || references(rig).is_null());
    let path = "/apis/apps/v1/namespaces/shop/deployments/web";
    rig.send("DELETE", path, &Value::Null).unwrap();
}

/// Runs the uninstall of a cluster; what it said.
fn uninstall(rig: &Rig<'_>, name: &str, more: &[&str]) -> String {
    let mut args = vec!["uninstall", "--cluster", "--best-effort", "--timeout=5s"];
    args.extend(more);
    rig.runs(name, &args)
}

fn the_uninstall_removes_managed_identities(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &[ISSUER, "--removal-marker=lanyard-removal"]);
    managed(rig, "pay", &json!({}));
    managed(rig, "stays", &json!({"deletionPolicy": "Retain"}));
    rig.until("both", || {
        made(rig, "pay").is_some() && made(rig, "stays").is_some()
    });
    // There are no pods here: an object stands for the controller's.
    let pod = rig.make(&json!({"kind": "Pod", "metadata": {"namespace": "lanyard-system", "name": "controller",
        "labels": {"app.kubernetes.io/part-of": "lanyard", "app.kubernetes.io/component": "controller"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "controller",
            "uid": "5e000000-0000-4000-8000-000000000001"}]},
        "spec": {"containers": [{"name": "main", "image": "none"}]}}));
    assert!(pod["metadata"]["uid"].is_string());
    let said = uninstall(rig, "uninstall", &["--managed-identities=delete"]);
    assert!(said.contains("waiting for 2 of 2"), "{said}");
    assert!(said.contains("2 managed identities were removed"), "{said}");
    assert!(!is_held(rig, "pay") && !is_held(rig, "stays"));
    let stays = made(rig, "stays").unwrap();
    assert_eq!(in_azure(rig).len(), 1);
    assert!(in_azure(rig)[0].eq_ignore_ascii_case(&stays));
    // The marker stands: nothing is created any more.
    rig.forget();
    managed(rig, "late", &json!({}));
    rig.until("what it is told", || {
        let object = rig.object(KIND, "shop", "late");
        Rig::condition(&object, "Ready").1 == "LanyardLeaves"
    });
    assert!(rig.asked().iter().all(|entry| entry.method != "PUT"));
    let marker = "/api/v1/namespaces/lanyard-system/configmaps/lanyard-removal";
    rig.send("DELETE", marker, &Value::Null).unwrap();
}

fn the_uninstall_without_a_controller_holds_nobody(rig: &mut Rig<'_>) {
    begin(rig);
    rig.controller("controller", &[ISSUER]);
    managed(rig, "pay", &json!({}));
    rig.until("its ids", || made(rig, "pay").is_some());
    let id = made(rig, "pay").unwrap();
    rig.kill("controller");
    let said = uninstall(rig, "uninstall-alone", &["--managed-identities=delete"]);
    assert!(said.contains("NOT REMOVED"), "{said}");
    let uid = &id[id.len() - 36..];
    assert!(said.contains(uid), "{said}");
    assert!(!is_held(rig, "pay"));
    assert_eq!(in_azure(rig).len(), 1, "nobody could remove it");
}
