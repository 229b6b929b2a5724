//! What a stolen agent token can get of the API server (invariant 9): service account tokens of pods on
//! its own node, for Entra only, and the Secrets that the chart was told to name.
//!
//! In: the server with the release on it, `lanyard admission` beside it. Out: a trial for each question.

use std::process::Command;

use serde_json::{Value, json};

use crate::server::{Refused, Server};
use crate::thief::{AUDIENCE, NAMESPACE, ask, pod, request, stage, thief};
use crate::webhook;

const TRIES: usize = 200;

/// A pod's name that no other trial uses.
fn fresh(what: &str) -> String {
    format!("{what}-{}", fastrand::u64(..))
}

fn words(outcome: Result<String, Refused>) -> String {
    match outcome {
        Ok(_) => "a token was given".to_owned(),
        Err(refused) => refused.message,
    }
}

/// The token's own claims.
fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = engine.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

pub fn a_stolen_token_gets_tokens_of_its_own_nodes_pods_only(server: &Server) {
    stage(server);
    let client = thief(server, Some("node-a"));
    let name = fresh("own");
    let uid = pod(server, "shop", &name, Some("node-a"), "app");
    let token = ask(server, &client, "shop", "app", &request(&name, &uid)).unwrap();
    let claims = claims(&token);
    assert_eq!(claims["sub"], "system:serviceaccount:shop:app");
    assert_eq!(claims["aud"], json!([AUDIENCE]));
    assert_eq!(claims["kubernetes.io"]["pod"]["uid"], uid);
    // The pod is its own, the account is not the pod's.
    let told = words(ask(server, &client, "shop", "till", &request(&name, &uid)));
    assert!(told.contains("another service account"), "{told}");
    // Another pod's uid under its own pod's name, and the other way round.
    let theirs = fresh("theirs");
    let their_uid = pod(server, "shop", &theirs, Some("node-b"), "app");
    for (name, uid, expected) in [
        (&*theirs, &*their_uid, "on node node-b"),
        (&*theirs, &*uid, "there is no pod"),
        (&*name, &*their_uid, "there is no pod"),
        ("nobody", &*uid, "there is no pod"),
        ("../../../shop/pods/x?y=", &*uid, "by its name and uid"),
    ] {
        let told = words(ask(server, &client, "shop", "app", &request(name, uid)));
        assert!(told.contains(expected), "{name}: {told}");
    }
    let waiting = fresh("waiting");
    let uid = pod(server, "shop", &waiting, None, "app");
    let told = words(ask(
        server,
        &client,
        "shop",
        "app",
        &request(&waiting, &uid),
    ));
    assert!(told.contains("on no node yet"), "{told}");
    // A dry run gives a token like any other.
    let path = "/api/v1/namespaces/shop/serviceaccounts/app/token?dryRun=All";
    let dry = server.send_as(&client, "POST", path, &request(&theirs, &their_uid));
    let told = dry.unwrap_err().message;
    assert!(told.contains("on node node-b"), "{told}");
}

pub fn a_pod_that_was_just_made_on_another_node_is_never_its(server: &Server) {
    stage(server);
    let client = thief(server, Some("node-a"));
    for number in 0..TRIES {
        let name = fresh("new");
        let uid = pod(server, "shop", &name, Some("node-b"), "app");
        let told = words(ask(server, &client, "shop", "app", &request(&name, &uid)));
        assert!(told.contains("on node node-b"), "try {number}: {told}");
        if number % 10 == 0 {
            let name = fresh("new");
            let uid = pod(server, "shop", &name, Some("node-a"), "app");
            ask(server, &client, "shop", "app", &request(&name, &uid)).unwrap();
        }
    }
}

pub fn tokens_for_anything_but_entra_and_a_pod_are_denied(server: &Server) {
    stage(server);
    let client = thief(server, Some("node-a"));
    let name = fresh("own");
    let uid = pod(server, "shop", &name, Some("node-a"), "app");
    let audience = "of the audience api://AzureADTokenExchange only";
    let bound = "bound to a pod by its name and uid";
    for (pointer, value, expected) in [
        ("/spec/audiences", json!([]), audience),
        (
            "/spec/audiences",
            json!(["https://kubernetes.default.svc"]),
            audience,
        ),
        (
            "/spec/audiences",
            json!([AUDIENCE, "https://kubernetes.default.svc"]),
            audience,
        ),
        ("/spec/audiences", json!([AUDIENCE, AUDIENCE]), audience),
        (
            "/spec/audiences",
            json!(["api://azureadtokenexchange"]),
            audience,
        ),
        ("/spec/boundObjectRef", Value::Null, bound),
        ("/spec/boundObjectRef/uid", Value::Null, bound),
        ("/spec/boundObjectRef/uid", json!(""), bound),
        ("/spec/boundObjectRef/name", Value::Null, bound),
        ("/spec/boundObjectRef/kind", json!("Secret"), bound),
        ("/spec/boundObjectRef/kind", json!("Node"), bound),
        ("/spec/boundObjectRef/kind", Value::Null, bound),
        ("/spec/boundObjectRef/apiVersion", json!("v2"), bound),
        ("/spec/expirationSeconds", json!(3601), "at most an hour"),
    ] {
        let mut request = request(&name, &uid);
        *request.pointer_mut(pointer).unwrap() = value.clone();
        let told = words(ask(server, &client, "shop", "app", &request));
        assert!(
            told.contains("Lanyard's agents") && told.contains(expected),
            "{pointer} {value}: {told}"
        );
    }
    let mut short = request(&name, &uid);
    short["spec"]["expirationSeconds"] = json!(600);
    ask(server, &client, "shop", "app", &short).unwrap();
}

pub fn a_token_of_no_node_gets_none(server: &Server) {
    stage(server);
    let client = thief(server, None);
    let name = fresh("own");
    let uid = pod(server, "shop", &name, Some("node-a"), "app");
    let told = words(ask(server, &client, "shop", "app", &request(&name, &uid)));
    assert!(
        told.contains("with a token of the node that they run on"),
        "{told}"
    );
}

pub fn namespaces_that_are_not_listed_are_closed(server: &Server) {
    stage(server);
    let client = thief(server, Some("node-a"));
    let name = fresh("own");
    let uid = pod(server, "other", &name, Some("node-a"), "app");
    let told = words(ask(server, &client, "other", "app", &request(&name, &uid)));
    assert!(
        told.contains("cannot create resource \"serviceaccounts/token\""),
        "{told}"
    );
    let agents = request("agent", &uid);
    let told = words(ask(
        server,
        &client,
        NAMESPACE,
        "lanyard-admission",
        &agents,
    ));
    assert!(told.contains("cannot create resource"), "{told}");
}

pub fn named_secrets_are_all_that_agents_read(server: &Server) {
    stage(server);
    let client = thief(server, Some("node-a"));
    let secrets = "/api/v1/namespaces/shop/secrets";
    for name in ["till-credential", "private"] {
        server.made(secrets, &json!({"metadata": {"name": name}}));
    }
    let may = |method: &str, path: &str, object: Value| {
        let path = format!("{secrets}{path}");
        server
            .send_as(&client, method, &path, &object)
            .map_err(|refused| refused.message)
    };
    may("GET", "/till-credential", Value::Null).unwrap();
    let watch =
        |name: &str| format!("?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3D{name}");
    may("GET", &watch("till-credential"), Value::Null).unwrap();
    for (method, path) in [
        ("GET", "/private".to_owned()),
        ("GET", watch("private")),
        ("GET", "?watch=true&timeoutSeconds=1".to_owned()),
        ("GET", String::new()),
        (
            "GET",
            "?fieldSelector=metadata.name%3Dtill-credential".to_owned(),
        ),
        ("PATCH", "/till-credential".to_owned()),
        ("DELETE", "/till-credential".to_owned()),
    ] {
        let told = may(method, &path, json!({})).unwrap_err();
        assert!(told.contains("cannot"), "{method} {path}: {told}");
    }
    let told = may("POST", "", json!({"metadata": {"name": "mine"}})).unwrap_err();
    assert!(told.contains("cannot create"), "{told}");
}

pub fn without_the_webhook_agents_get_none_and_others_theirs(server: &Server) {
    stage(server);
    let client = thief(server, Some("node-a"));
    let name = fresh("own");
    let uid = pod(server, "shop", &name, Some("node-a"), "app");
    webhook::end();
    let told = words(ask(server, &client, "shop", "app", &request(&name, &uid)));
    // Kubelets ask for pods of theirs, controllers for none, people for what they like.
    let mut plain = request(&name, &uid);
    plain["spec"] = json!({"audiences": ["vault"], "expirationSeconds": 7200});
    for user in [
        "system:node:node-b",
        "system:kube-controller-manager",
        "jane",
    ] {
        let other = server.client_as(user);
        for request in [&plain, &request(&name, &uid)] {
            ask(server, &other, "shop", "app", request).unwrap();
        }
    }
    webhook::again(server);
    assert!(told.contains("failed calling webhook"), "{told}");
    server.patiently("the webhook's return", || {
        let answer = ask(server, &client, "shop", "app", &request(&name, &uid));
        answer.map(drop).map_err(|refused| refused.message)
    });
}

pub fn an_upgrade_keeps_the_authority_until_it_is_old(server: &Server) {
    stage(server);
    let rendered = || upgraded(server);
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/lanyard-admission-issuer");
    let there = server.send("GET", &path, &Value::Null).unwrap();
    let (secret, bundle) = rendered();
    assert_eq!(
        secret["data"], there["data"],
        "an upgrade made another authority"
    );
    assert_eq!(
        decoded(&bundle).trim(),
        decoded(&there["data"]["tls.crt"]).trim()
    );
    let age =
        |value: &str| json!({"metadata": {"annotations": {"lanyard.dev/renew-after": value}}});
    server.send("PATCH", &path, &age("1")).unwrap();
    let (secret, bundle) = rendered();
    let was = there["metadata"]["annotations"]["lanyard.dev/renew-after"]
        .as_str()
        .unwrap();
    server.send("PATCH", &path, &age(was)).unwrap();
    assert_ne!(
        secret["data"], there["data"],
        "five years later it is the same"
    );
    let bundle = decoded(&bundle);
    for authority in [&secret["data"]["tls.crt"], &there["data"]["tls.crt"]] {
        assert!(bundle.contains(decoded(authority).trim()), "{bundle}");
    }
    // A release from before: its replicas show what its chart's authority signed, until they are replaced.
    let before = json!({
        "metadata": {"name": "lanyard-admission"},
        "stringData": {"ca.crt": "the authority of before\n"},
    });
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    server.made(&secrets, &before);
    let (_, bundle) = rendered();
    let gone = format!("{secrets}/lanyard-admission");
    server.send("DELETE", &gone, &Value::Null).unwrap();
    let bundle = decoded(&bundle);
    for authority in [
        "the authority of before",
        decoded(&there["data"]["tls.crt"]).trim(),
    ] {
        assert!(bundle.contains(authority), "{bundle}");
    }
}

/// The authority's Secret and what the webhook trusts, as an upgrade would write them.
fn upgraded(server: &Server) -> (Value, Value) {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/lanyard");
    let kubeconfig = server.kubeconfig("helm.kubeconfig", crate::server::TOKEN);
    let done = Command::new(crate::cached::helm())
        .args([
            "template",
            "lanyard",
            chart,
            "-n",
            NAMESPACE,
            "--dry-run=server",
            "--is-upgrade",
            "--kubeconfig",
        ])
        .arg(kubeconfig)
        .args([
            "--show-only",
            "templates/admission.yaml",
            "--set",
            "agent.federated.namespaces={shop}",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&String::from_utf8(done.stdout).unwrap()).unwrap();
    let find = |kind: &str| {
        objects
            .iter()
            .find(|object| object["kind"] == kind)
            .unwrap()
            .clone()
    };
    let bundle =
        find("ValidatingWebhookConfiguration")["webhooks"][0]["clientConfig"]["caBundle"].clone();
    (find("Secret"), bundle)
}

fn decoded(text: &Value) -> String {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    String::from_utf8(engine.decode(text.as_str().unwrap()).unwrap()).unwrap()
}
