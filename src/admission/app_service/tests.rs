#![allow(
    clippy::needless_pass_by_value,
    reason = "objects are written where they are given"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::APP_SERVICE_ENDPOINT;

fn labelled(spec: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "till-", "labels": {"lanyard.dev/app-service": "true", "app": "till"}},
        "spec": spec,
    })
}

fn plain() -> Value {
    labelled(json!({"containers": [{"name": "main", "image": "till"}]}))
}

fn request(object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "r-1",
            "operation": "CREATE",
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": object,
        },
    })
}

/// The response to a whole review.
fn respond(review: &Value) -> Value {
    let answer = super::review(review.to_string().as_bytes()).unwrap();
    assert_eq!(answer["response"]["uid"], "r-1");
    answer["response"].clone()
}

fn warnings(response: &Value) -> String {
    response["warnings"].to_string()
}

/// The pod as the API server would store it, and what it was told.
fn created(pod: &Value) -> (Value, Value) {
    let response = respond(&request(pod.clone()));
    assert_eq!(response["allowed"], true, "{response}");
    let mut pod = pod.clone();
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let patch: Vec<Value> = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
        assert!(!patch.is_empty());
        for operation in patch {
            apply(&mut pod, &operation);
        }
    }
    (pod, response)
}

/// RFC 6902, as much of it as is used.
fn apply(pod: &mut Value, operation: &Value) {
    assert_eq!(operation["op"], "add");
    let (parent, key) = operation["path"]
        .as_str()
        .unwrap()
        .rsplit_once('/')
        .unwrap();
    match pod.pointer_mut(parent).expect(parent) {
        Value::Array(list) => list.insert(key.parse().unwrap(), operation["value"].clone()),
        Value::Object(fields) => {
            assert!(fields.get(key).is_none_or(Value::is_null), "overwritten");
            fields.insert(key.to_owned(), operation["value"].clone());
        }
        other => panic!("{other}"),
    }
}

fn value<'a>(pod: &'a Value, container: &str, name: &str) -> Option<&'a str> {
    let env = pod.pointer(&format!("/spec/{container}/env"))?.as_array()?;
    let mut found = env.iter().filter(|variable| variable["name"] == name);
    let value = found.next()?["value"].as_str();
    assert!(found.next().is_none(), "{name} twice in {container}");
    value
}

#[test]
fn every_container_and_init_container_gets_both_variables_and_one_secret() {
    let (pod, response) = created(&labelled(json!({
        "initContainers": [{"name": "wait"}, {"name": "sidecar", "restartPolicy": "Always", "env": []}],
        "containers": [
            {"name": "main", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(IDENTITY_ENDPOINT)"}]},
            {"name": "second", "env": null},
            {"name": "third"},
        ],
    })));
    assert_eq!(warnings(&response), "null");
    let secret = value(&pod, "containers/0", "IDENTITY_HEADER").unwrap();
    for container in [
        "initContainers/0",
        "initContainers/1",
        "containers/0",
        "containers/1",
        "containers/2",
    ] {
        assert_eq!(
            value(&pod, container, "IDENTITY_ENDPOINT"),
            Some(APP_SERVICE_ENDPOINT)
        );
        assert_eq!(value(&pod, container, "IDENTITY_HEADER"), Some(secret));
        assert_eq!(value(&pod, container, "MSI_ENDPOINT"), None);
    }
    // What is made of others stands behind them, and what was there is there, in its order.
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let names: Vec<&str> = env
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["IDENTITY_ENDPOINT", "IDENTITY_HEADER", "A", "B"]);
}

#[test]
fn agents_know_the_secret_that_was_added() {
    use crate::model::presented::SecretDigest;
    let (pod, _) = created(&plain());
    let secret = value(&pod, "containers/0", "IDENTITY_HEADER").unwrap();
    let read: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod.clone()).unwrap();
    let name = crate::model::ids::ObjectName::new("shop", "till");
    let facts = crate::api::pod::facts(&read, name, "1");
    assert!(facts.secrets[0].is_same(&SecretDigest::of(secret.as_bytes())));
}

#[test]
fn pods_of_one_template_have_secrets_of_their_own() {
    let secrets: std::collections::BTreeSet<String> = (0..100)
        .map(|_| {
            let (pod, _) = created(&plain());
            value(&pod, "containers/0", "IDENTITY_HEADER")
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(secrets.len(), 100);
}

#[test]
fn only_true_is_true_and_false_is_false() {
    for (label, adds, told) in [
        (json!("true"), true, false),
        (json!("false"), false, false),
        (Value::Null, false, false),
        (json!("True"), false, true),
        (json!(""), false, true),
        (json!("yes"), false, true),
    ] {
        let mut pod = plain();
        pod["metadata"]["labels"]["lanyard.dev/app-service"] = label.clone();
        if label.is_null() {
            pod["metadata"]["labels"] = json!({"app": "till"});
        }
        let (pod, response) = created(&pod);
        let there = value(&pod, "containers/0", "IDENTITY_HEADER").is_some();
        assert_eq!(there, adds, "{label}");
        assert_eq!(response["patch"].is_string(), adds, "{label}");
        assert_eq!(warnings(&response).contains("neither"), told, "{label}");
    }
}

#[test]
fn the_older_pair_is_a_further_opt_in() {
    for (annotation, adds, told) in [
        (json!("true"), true, false),
        (json!(" true "), true, false),
        (json!("false"), false, false),
        (json!("1"), false, true),
    ] {
        let mut pod = plain();
        pod["metadata"]["annotations"]["lanyard.dev/app-service-2017"] = annotation.clone();
        let (pod, response) = created(&pod);
        let newer = value(&pod, "containers/0", "IDENTITY_HEADER");
        assert!(newer.is_some());
        let older = value(&pod, "containers/0", "MSI_SECRET");
        assert_eq!(older, newer.filter(|_| adds), "{annotation}");
        let endpoint = value(&pod, "containers/0", "MSI_ENDPOINT");
        assert_eq!(endpoint, Some(APP_SERVICE_ENDPOINT).filter(|_| adds));
        assert_eq!(
            warnings(&response).contains("neither"),
            told,
            "{annotation}"
        );
    }
}

#[test]
fn what_is_there_is_never_changed() {
    let endpoint = json!({"name": "IDENTITY_ENDPOINT", "value": APP_SERVICE_ENDPOINT});
    let from = json!({"name": "IDENTITY_HEADER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}});
    let header = json!({"name": "IDENTITY_HEADER", "value": "by hand"});
    let elsewhere = json!({"name": "IDENTITY_ENDPOINT", "value": "http://localhost:4000/"});
    for (env, words) in [
        (json!([endpoint, header]), "null"),
        (json!([header, endpoint]), "null"),
        (json!([endpoint]), "no IDENTITY_HEADER is added"),
        (json!([header]), "no IDENTITY_ENDPOINT is added"),
        (json!([from]), "no IDENTITY_ENDPOINT is added"),
        (
            json!([elsewhere, header]),
            "keeps its own IDENTITY_ENDPOINT",
        ),
        (json!([endpoint, from]), "not written out"),
    ] {
        let pod =
            labelled(json!({"containers": [{"name": "main", "env": env}, {"name": "other"}]}));
        let (after, response) = created(&pod);
        assert_eq!(after["spec"]["containers"][0], pod["spec"]["containers"][0]);
        assert!(
            value(&after, "containers/1", "IDENTITY_HEADER").is_some(),
            "{env}"
        );
        assert!(warnings(&response).contains(words), "{env}: {response}");
    }
}

#[test]
fn asked_again_it_adds_only_what_came_meanwhile() {
    let mut pod = plain();
    pod["metadata"]["annotations"]["lanyard.dev/app-service-2017"] = json!("true");
    let (mut once, _) = created(&pod);
    let (twice, response) = created(&once);
    assert_eq!(twice, once);
    assert!(response["patch"].is_null() && response["warnings"].is_null());
    // Another webhook has put a container in front.
    let containers = once["spec"]["containers"].as_array_mut().unwrap();
    containers.insert(0, json!({"name": "proxy"}));
    let (again, _) = created(&once);
    assert_eq!(
        again["spec"]["containers"][1],
        once["spec"]["containers"][1]
    );
    assert!(value(&again, "containers/0", "MSI_SECRET").is_some());
}

#[test]
fn strange_pods_are_allowed() {
    for spec in [
        json!({"containers": []}),
        json!({"containers": null}),
        json!({}),
        Value::Null,
    ] {
        let (_, response) = created(&labelled(spec.clone()));
        assert!(response["patch"].is_null(), "{spec}");
    }
    let host = labelled(json!({"hostNetwork": true, "containers": [{"name": "main"}]}));
    let (after, response) = created(&host);
    assert!(value(&after, "containers/0", "IDENTITY_HEADER").is_some());
    assert!(warnings(&response).contains("hostNetwork"));
    let mut mirror = plain();
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("hash");
    let (after, response) = created(&mirror);
    assert_eq!(after, mirror);
    assert!(warnings(&response).contains("a file of its node"));
    let many: Vec<Value> = (0..200)
        .map(|n| json!({"name": format!("c{n}"), "env": [{"name": "MSI_SECRET", "value": "x"}, {"name": "IDENTITY_HEADER"}]}))
        .collect();
    let (_, response) = created(&labelled(json!({"containers": many})));
    assert_eq!(
        response["warnings"].as_array().unwrap().len(),
        9,
        "{response}"
    );
    assert!(warnings(&response).contains("and 192 more"));
}

#[test]
fn what_is_no_new_pod_is_allowed_as_it_is() {
    let deployment =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": "many"}});
    for (field, value, named) in [
        ("operation", json!("UPDATE"), ": pods stay"),
        ("operation", json!("DELETE"), ": pods stay"),
        (
            "subResource",
            json!("ephemeralcontainers"),
            "pods/ephemeralcontainers",
        ),
        ("subResource", json!("binding"), "pods/binding"),
        (
            "resource",
            json!({"group": "apps", "resource": "deployments"}),
            "deployments.apps",
        ),
        (
            "resource",
            json!({"group": "metrics.k8s.io", "resource": "pods"}),
            "pods.metrics.k8s.io",
        ),
    ] {
        for object in [plain(), deployment.clone(), Value::Null, json!([1])] {
            let mut review = request(object);
            review["request"][field] = value.clone();
            let response = respond(&review);
            assert_eq!(response["allowed"], true);
            assert!(response["patch"].is_null(), "{response}");
            assert!(warnings(&response).contains(named), "{response}");
        }
    }
}

#[test]
fn what_is_no_pod_is_refused_with_words_and_what_is_no_review_is_an_error() {
    let wrong = labelled(json!({"containers": [{"name": "main", "env": "A=1"}]}));
    for object in [
        wrong,
        Value::Null,
        json!("pod"),
        json!({"apiVersion": "v1", "kind": "Node"}),
    ] {
        let response = respond(&request(object.clone()));
        assert_eq!(response["allowed"], false, "{object}");
        assert_eq!(response["status"]["code"], 400);
        let told = response["status"]["message"].as_str().unwrap();
        assert!(told.contains("cannot read this pod"), "{told}");
        assert!(!told.contains("A=1"), "a variable's value: {told}");
    }
    for body in [
        &b""[..],
        b"[]",
        b"<html>",
        b"{}",
        br#"{"apiVersion":"admission.k8s.io/v1"}"#,
    ] {
        assert!(super::review(body).is_err());
    }
    let mut beta = request(plain());
    beta["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let error = super::review(beta.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("v1beta1"));
}
