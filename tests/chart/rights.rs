//! What the controller and the job that removes Lanyard may do, what nobody else may write, and who may ask on behalf of pods.

use serde_json::{Value, json};

use crate::controller::{find, render, with};

const ACCOUNT: &str = "system:serviceaccount:lanyard-system:lanyard-controller";

fn rights(role: &Value) -> Vec<String> {
    let rules = role["rules"].as_array().unwrap();
    let words = |value: &Value| -> Vec<String> {
        let list = value.as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect()
    };
    let mut told: Vec<String> = rules
        .iter()
        .flat_map(|rule| {
            let what = [words(&rule["resources"]), words(&rule["nonResourceURLs"])].concat();
            let (names, verbs) = (words(&rule["resourceNames"]), words(&rule["verbs"]));
            what.into_iter()
                .map(move |one| format!("{one} {names:?} {}", verbs.join(" ")))
        })
        .collect();
    told.sort();
    told
}

#[test]
fn its_rights_are_these() {
    let objects = with("federated", &[]);
    assert_eq!(
        rights(find(&objects, "ClusterRole", "lanyard-controller")),
        [
            "/.well-known/openid-configuration [] get",
            "azureassignments [] get list watch create update patch delete",
            "azureassignments/status [] update patch",
            "azureidentities [] get list watch patch",
            "azureidentities/status [] update patch",
            "azureidentitybindings [] get list watch",
            "azureidentitybindings/status [] update patch",
            "azureidentitypolicies [] get list watch",
            "azureidentitypolicies/status [] update patch",
            "azuremetadataexceptions [] get list watch",
            "azuremetadataexceptions/status [] update patch",
            "deployments [] get",
            "events [] create patch",
            "namespaces [] get list watch",
            "nodes [] get list watch",
            "pods [] get list watch",
            "statefulsets [] get",
        ]
    );
    assert_eq!(
        rights(find(&objects, "Role", "lanyard-controller")),
        [
            "configmaps [\"lanyard-removal\"] get list watch",
            "leases [\"lanyard-controller\"] get update",
            "leases [] create",
        ]
    );
    let bound = objects.iter().filter(|object| {
        object["subjects"]
            .to_string()
            .contains("\"lanyard-controller\"")
    });
    assert_eq!(bound.count(), 2, "another binding gives it more");
}

#[test]
fn nobody_else_writes_what_agents_believe() {
    let objects = with("federated", &[]);
    for name in ["lanyard-controller", "lanyard-controller-writes"] {
        let policy = &find(&objects, "ValidatingAdmissionPolicy", name)["spec"];
        assert_eq!(policy["failurePolicy"], "Fail");
        assert!(
            policy["matchConditions"].to_string().contains(ACCOUNT),
            "{name}"
        );
        let binding = &find(&objects, "ValidatingAdmissionPolicyBinding", name)["spec"];
        assert_eq!(
            *binding,
            json!({"policyName": name, "validationActions": ["Deny"]})
        );
    }
}

#[test]
fn what_becomes_of_managed_identities_is_said_to_the_job() {
    let job = |objects: &[Value]| {
        let job = find(objects, "Job", "lanyard-removal");
        job["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
    };
    assert!(!job(&render(&[])).contains("managed-identities"));
    let objects = with("federated", &[]);
    assert!(job(&objects).contains("--managed-identities=retain"));
    // Also without a controller: there may have been one.
    for objects in [&objects, &render(&[])] {
        let role = find(objects, "ClusterRole", "lanyard-removal");
        assert_eq!(rights(role), ["azureidentities [] list patch"]);
        assert_eq!(
            role["metadata"]["annotations"]["helm.sh/hook"],
            "pre-delete"
        );
    }
    let objects = with("federated", &["uninstall.managedIdentities=delete"]);
    assert!(job(&objects).contains("--managed-identities=delete"));
}

#[test]
fn agents_ask_who_asks_only_where_that_is_on() {
    let plain = render(&[]);
    let of_it = |objects: &[Value]| -> Vec<String> {
        let named = objects.iter().filter(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            matches!(name, "lanyard-agent-reviews" | "lanyard-host-token")
        });
        let mut kinds: Vec<_> = named.map(|object| object["kind"].to_string()).collect();
        kinds.sort();
        kinds
    };
    assert!(of_it(&plain).is_empty());
    let everything = serde_json::to_string(&plain).unwrap();
    for word in [
        "tokenreviews",
        "subjectaccessreviews",
        "azuretoken",
        "lanyard-host",
    ] {
        assert!(!everything.contains(word), "{word}");
    }
    let objects = render(&["hostToken.enabled=true"]);
    assert_eq!(
        of_it(&objects),
        [
            "\"ClusterRole\"",
            "\"ClusterRole\"",
            "\"ClusterRoleBinding\""
        ]
    );
    assert_eq!(
        rights(find(&objects, "ClusterRole", "lanyard-agent-reviews")),
        ["subjectaccessreviews [] create", "tokenreviews [] create"]
    );
    // Of nobody until an operator says so.
    let name = "lanyard-host-token";
    assert_eq!(
        rights(find(&objects, "ClusterRole", name)),
        ["pods/azuretoken [] create"]
    );
    assert!(
        !objects
            .iter()
            .any(|object| object["roleRef"]["name"] == name)
    );
    let binding = find(&objects, "ClusterRoleBinding", "lanyard-agent-reviews");
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": "lanyard-agent", "namespace": "lanyard-system"}])
    );
}
