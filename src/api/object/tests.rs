//! Good and bad manifests.

use serde_json::json;

use super::*;
use crate::model::facts::PodLife;

fn ours(kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "n", "namespace": "ns"}, "spec": spec})
}

fn problem(document: Value) -> String {
    read(document, "1").expect_err("malformed").to_string()
}

#[test]
fn a_pod_with_both_address_fields_is_known_by_each_address_once() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "annotations": {"lanyard.dev/identity": " a, ns2/b,"}},
        "spec": {"containers": [], "serviceAccountName": "sa"},
        "status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]}});
    let Ok(Some(Object::Pod(pod))) = read(pod, "1") else {
        panic!("a pod")
    };
    assert_eq!(
        pod.ips,
        [
            "10.0.0.7".parse::<std::net::IpAddr>().unwrap(),
            "fd00::7".parse().unwrap()
        ]
    );
    assert_eq!(pod.wanted, Some(vec!["a".to_owned(), "ns2/b".to_owned()]));
    assert_eq!(
        (pod.life, &*pod.service_account, &*pod.version),
        (PodLife::Live, "sa", "1")
    );
}

#[test]
fn a_host_network_pod_owns_no_address_and_an_ended_pod_is_ended() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [], "hostNetwork": true}, "status": {"phase": "Failed", "podIP": "10.0.0.7"}});
    let Ok(Some(Object::Pod(pod))) = read(pod, "1") else {
        panic!("a pod")
    };
    assert!(pod.ips.is_empty());
    assert_eq!(pod.life, PodLife::Ended);
}

#[test]
fn other_kinds_are_skipped_but_unknown_kinds_of_our_group_are_told() {
    assert_eq!(
        read(json!({"apiVersion": "apps/v1", "kind": "Deployment"}), "1"),
        Ok(None)
    );
    assert!(problem(ours("AzureIdentiti", &json!({}))).contains("has no kind `AzureIdentiti`"));
    assert!(problem(json!({"apiVersion": "v1"})).starts_with("kind: is missing"));
}

/// The rules one by one: tests/crds.
#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            "AzureIdentity",
            json!({"clientID": "payments"}),
            "spec.clientID: `payments`: must be a GUID",
        ),
        (
            "AzureIdentity",
            json!({"resourceID": "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"}),
            "spec.clientID: is required",
        ),
        (
            "AzureIdentity",
            json!({"clientId": "x"}),
            "unknown field `clientId`",
        ),
        (
            "AzureIdentity",
            json!({"tokenSources": [{"magic": {}}]}),
            "unknown field `magic`",
        ),
        (
            "AzureIdentityBinding",
            json!({"identity": "a", "subjects": [{"podSelector": {}}, {"serviceAccounts": ["a", "B"]}]}),
            "spec.subjects[1].serviceAccounts[1]: `B`: must be the name of a service account",
        ),
        (
            "AzureIdentityBinding",
            json!({"identity": "a", "subjects": [{"podSelector": {"matchExpressions": [{"key": "k", "operator": "is"}]}}]}),
            "spec.subjects[0].podSelector.matchExpressions[key=k]: operator is none of",
        ),
    ];
    for (kind, spec, expected) in cases {
        let problem = problem(ours(kind, &spec));
        assert!(problem.contains(expected), "{kind} {spec}: {problem}");
    }
}

#[test]
fn evidence_is_bound_to_a_pods_sandbox_not_to_whatever_changes() {
    let version = |resource_version: &str, since: &str| {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "a", "resourceVersion": resource_version},
            "status": {"podIP": "10.0.0.1", "conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:09Z"},
                {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": since},
            ]},
        });
        match read(pod, "").unwrap() {
            Some(Object::Pod(facts)) => facts.version,
            other => panic!("{other:?}"),
        }
    };
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z");
    assert_eq!(version("7", old), version("8", old));
    assert_ne!(version("7", old), version("7", new));
}

/// Such a name is a service account's identity's.
#[test]
fn no_object_of_ours_has_a_colon_in_its_name() {
    let mut identity = ours(
        "AzureIdentity",
        &json!({"clientID": "11111111-1111-4111-8111-111111111111"}),
    );
    assert!(read(identity.clone(), "1").is_ok());
    identity["metadata"]["name"] = json!("serviceaccount:app");
    assert!(problem(identity).starts_with("metadata.name: has a `:`"));
}
