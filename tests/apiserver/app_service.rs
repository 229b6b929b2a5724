//! App Service's variables, added by the webhook on a real API server: who gets them, who is never asked
//! about, what happens without the webhook, with a great many pods, and while its certificate rolls.
//!
//! In: the server with the release on it, `lanyard admission` beside it. Out: a trial for each question.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::Server;
use crate::thief::stage;
use crate::webhook;
use crate::writes::Trial;

const PODS: &str = "/api/v1/namespaces/shop/pods";
const ENDPOINT: &str = "http://169.254.169.254/msi/token";
/// Pods of one template, and how many of them at once: as many as one API server works on.
const CROWD: usize = 2000;
const WARM: usize = 400;
const AT_ONCE: usize = 200;
/// What the allocator may keep for another time, in kilobytes.
const KEPT: u64 = 4 * 1024;
/// Idle connections that the API server keeps to one webhook.
const IDLE: usize = 25;
const LIFETIME: &str = "--tls-lifetime=6s";

/// The trials of this file.
pub const TRIALS: &[Trial] = &[
    (
        "a_labelled_pod_gets_the_variables",
        a_labelled_pod_gets_the_variables,
    ),
    (
        "pods_of_one_template_get_secrets_of_their_own",
        pods_of_one_template_get_secrets_of_their_own,
    ),
    (
        "without_the_webhook_only_labelled_pods_wait",
        without_the_webhook_only_labelled_pods_wait,
    ),
    (
        "what_the_webhook_does_not_know_stays_as_it_is",
        what_the_webhook_does_not_know_stays_as_it_is,
    ),
    (
        "what_comes_past_the_api_server_breaks_nothing",
        what_comes_past_the_api_server_breaks_nothing,
    ),
    (
        "a_crowd_of_pods_leaves_nothing_behind",
        a_crowd_of_pods_leaves_nothing_behind,
    ),
    (
        "the_certificate_rolls_while_pods_are_created",
        the_certificate_rolls_while_pods_are_created,
    ),
];

/// A pod with that label.
fn pod(label: &str) -> Value {
    json!({
        "metadata": {"generateName": "till-", "labels": {"lanyard.dev/app-service": label, "app": "till"}},
        "spec": {
            "serviceAccountName": "app",
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "none"}],
        },
    })
}

/// The release, in force.
fn ready(server: &Server) {
    stage(server);
    server.patiently("the webhook", || {
        let made = server.send("POST", &format!("{PODS}?dryRun=All"), &pod("true"));
        let made = made.map_err(|refused| refused.message)?;
        secret(&made).map(drop).ok_or("no variables yet".to_owned())
    });
}

fn variable<'a>(pod: &'a Value, container: &str, name: &str) -> Option<&'a str> {
    let env = pod.pointer(&format!("/spec/{container}/env"))?.as_array()?;
    let found = env.iter().find(|variable| variable["name"] == name)?;
    found["value"].as_str()
}

fn secret(pod: &Value) -> Option<&str> {
    variable(pod, "containers/0", "IDENTITY_HEADER")
}

fn a_labelled_pod_gets_the_variables(server: &Server) {
    ready(server);
    let mut asked = pod("true");
    // A large one, too.
    let notes = "x".repeat(200 * 1024);
    asked["metadata"]["annotations"] =
        json!({"lanyard.dev/app-service-2017": "true", "notes": notes});
    asked["spec"]["initContainers"] = json!([{"name": "first", "image": "none"}]);
    asked["spec"]["containers"] = json!([
        {"name": "main", "image": "none", "env": [{"name": "A", "value": "1"}]},
        {"name": "by-hand", "image": "none", "env": [{"name": "IDENTITY_HEADER", "value": "mine"}]},
    ]);
    let changed = || {
        webhook::metric(
            r#"lanyard_admission_reviews_total{outcome="changed",webhook="app-service"}"#,
        )
    };
    let before = changed();
    let made = server.made(PODS, &asked);
    assert!(changed() > before);
    let header = secret(&made).expect("the secret");
    assert_eq!(header.len(), 43, "{header}");
    for container in ["initContainers/0", "containers/0"] {
        for name in ["IDENTITY_ENDPOINT", "MSI_ENDPOINT"] {
            assert_eq!(variable(&made, container, name), Some(ENDPOINT));
        }
        for name in ["IDENTITY_HEADER", "MSI_SECRET"] {
            assert_eq!(variable(&made, container, name), Some(header));
        }
    }
    assert_eq!(variable(&made, "containers/0", "A"), Some("1"));
    assert_eq!(
        variable(&made, "containers/1", "IDENTITY_HEADER"),
        Some("mine")
    );
    assert_eq!(variable(&made, "containers/1", "IDENTITY_ENDPOINT"), None);
    // A dry run shows the same, and a change of the pod asks nobody.
    let dry = server.send("POST", &format!("{PODS}?dryRun=All"), &pod("true"));
    assert!(secret(&dry.unwrap()).is_some());
    let path = format!("{PODS}/{}", made["metadata"]["name"].as_str().unwrap());
    let noted = json!({"metadata": {"annotations": {"note": "1"}}});
    let changed = server.send("PATCH", &path, &noted).unwrap();
    assert_eq!(changed["spec"], made["spec"]);
    let log = webhook::log(server);
    assert!(log.contains("asks for App Service's variables"), "{log}");
    assert!(!log.contains(header), "the secret is in the log");
}

fn pods_of_one_template_get_secrets_of_their_own(server: &Server) {
    ready(server);
    let secrets: BTreeSet<String> = (0..10)
        .map(|_| secret(&server.made(PODS, &pod("true"))).unwrap().to_owned())
        .collect();
    assert_eq!(secrets.len(), 10, "{secrets:?}");
}

fn without_the_webhook_only_labelled_pods_wait(server: &Server) {
    ready(server);
    webhook::end();
    let refused = server.send("POST", PODS, &pod("true"));
    let mut unlabelled = pod("false");
    unlabelled["metadata"]["labels"] = json!({"app": "till"});
    let others = [pod("false"), pod("True"), unlabelled].map(|pod| server.send("POST", PODS, &pod));
    webhook::again(server);
    let told = refused.unwrap_err().message;
    assert!(
        told.contains(r#"failed calling webhook "app-service.admission.lanyard.dev""#),
        "{told}"
    );
    for other in others {
        let other = other.expect("nobody is asked about it");
        assert!(secret(&other).is_none(), "{other}");
    }
    server.patiently("the webhook's return", || {
        let made = server.send("POST", PODS, &pod("true"));
        made.map(drop).map_err(|refused| refused.message)
    });
}

/// Whoever writes a configuration of his own may send anything.
fn what_the_webhook_does_not_know_stays_as_it_is(server: &Server) {
    ready(server);
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let ours = server.send("GET", &format!("{path}/lanyard-app-service"), &Value::Null);
    let mut other = ours.unwrap()["webhooks"][0].clone();
    other["name"] = json!("other.admission.lanyard.dev");
    other["objectSelector"] = json!({"matchLabels": {"send": "everything"}});
    other["rules"] = json!([{
        "apiGroups": ["*"],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": ["pods", "pods/ephemeralcontainers", "pods/status", "configmaps"],
    }]);
    let other = json!({"metadata": {"name": "other"}, "webhooks": [other]});
    server.made(path, &other);
    let maps = "/api/v1/namespaces/shop/configmaps";
    let labels = |name: &str| json!({"metadata": {"name": name, "labels": {"send": "everything"}}});
    // The log has one line a second of it.
    let sent = || {
        webhook::metric(
            r#"lanyard_admission_reviews_total{outcome="allowed",webhook="app-service"}"#,
        )
    };
    let first = sent();
    server.patiently("the other configuration", || {
        let name = format!("map-{}", fastrand::u32(..));
        server.made(maps, &labels(&name));
        (sent() > first).then_some(()).ok_or("not yet".to_owned())
    });
    let mut asked = pod("yes");
    asked["metadata"]["labels"]["send"] = json!("everything");
    let made = server.made(PODS, &asked);
    assert!(secret(&made).is_none());
    let path = format!("{PODS}/{}", made["metadata"]["name"].as_str().unwrap());
    let before = sent();
    let ended = json!({"status": {"phase": "Failed"}});
    server
        .send("PATCH", &format!("{path}/status"), &ended)
        .unwrap();
    let mut debugged = server.send("GET", &path, &Value::Null).unwrap();
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "none"}]);
    let ephemeral = format!("{path}/ephemeralcontainers");
    let debugged = server.send("PUT", &ephemeral, &debugged).unwrap();
    assert!(variable(&debugged, "ephemeralContainers/0", "IDENTITY_HEADER").is_none());
    let now = json!({"gracePeriodSeconds": 0});
    server.send("DELETE", &path, &now).unwrap();
    let configurations =
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/other";
    server.send("DELETE", configurations, &Value::Null).unwrap();
    assert!(sent() >= before + 3.0, "{}", webhook::log(server));
}

/// Whoever reaches its port may send anything, too.
fn what_comes_past_the_api_server_breaks_nothing(server: &Server) {
    ready(server);
    let (_, before) = webhook::holds();
    let post = |length: &str, body: &str| {
        let head = "POST /app-service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let request = format!("{head}{length}\r\n\r\n{body}");
        webhook::sent(server, request.as_bytes()).unwrap_or_else(|closed| closed)
    };
    let whole = |body: &str| post(&format!("Content-Length: {}", body.len()), body);
    let review = |object: &str| {
        let resource = r#""resource":{"group":"","version":"v1","resource":"pods"}"#;
        let request = format!(
            r#"{{"uid":"1","operation":"CREATE",{resource},"userInfo":{{}},"object":{object}}}"#
        );
        format!(r#"{{"apiVersion":"admission.k8s.io/v1","request":{request}}}"#)
    };
    for body in [
        "",
        "{}",
        "null",
        "<html>",
        &"[".repeat(60_000),
        &"{\"a\":".repeat(10_000),
    ] {
        assert!(
            whole(body).contains(" 400 "),
            "{}",
            &body[..body.len().min(10)]
        );
    }
    let unreadable = webhook::metric(
        r#"lanyard_admission_reviews_total{outcome="unreadable",webhook="app-service"}"#,
    );
    assert!(unreadable >= 6.0, "{unreadable}");
    // Each of them would be a line, if anybody's were.
    let lines = webhook::log(server).matches("none of ours").count();
    assert!((1..6).contains(&lines), "{lines}");
    for object in [
        "null",
        "[]",
        &"[".repeat(1000),
        r#"{"kind":"Pod","spec":{"containers":7}}"#,
    ] {
        let told = whole(&review(object));
        assert!(told.contains(" 200 ") || told.contains(" 400 "), "{told}");
    }
    // Millions of variables, a body that never ends or never comes.
    let variables = vec!["{}"; 1_300_000].join(",");
    let labels = r#""metadata":{"labels":{"lanyard.dev/app-service":"true"}}"#;
    let many = format!(
        r#"{{"kind":"Pod",{labels},"spec":{{"containers":[{{"name":"a","env":[{variables}]}}]}}}}"#
    );
    assert!(whole(&review(&many)).contains(" 200 "));
    assert!(post("Content-Length: 1000000000", "{").contains(" 408 "));
    // Told so, or closed to: nobody reads all of it.
    let told = post("Content-Length: 10000000", &"x".repeat(10_000_000));
    assert!(!told.contains(" 200 "), "{told}");
    assert!(post("Transfer-Encoding: chunked", "1\r\n{\r\n").contains(" 408 "));
    for (line, status) in [
        ("GET /app-service", " 404 "),
        ("POST /other", " 404 "),
        ("PUT /livez", " 404 "),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let told = webhook::sent(server, request.as_bytes()).unwrap();
        assert!(told.contains(status), "{line}: {told}");
    }
    assert!(secret(&server.made(PODS, &pod("true"))).is_some());
    let (_, after) = webhook::holds();
    assert!(after < before + 6 * KEPT, "{before} kB became {after} kB");
}

/// Creates so many pods of one template; their secrets.
fn crowd(server: &Server, path: &str, count: usize) -> BTreeSet<String> {
    let outcomes = server.many(path, vec![pod("true"); count], AT_ONCE);
    let made = outcomes.into_iter().map(|one| match one {
        Ok(made) => secret(&made).expect("the variables").to_owned(),
        Err(refused) => panic!("{}", refused.message),
    });
    made.collect()
}

fn a_crowd_of_pods_leaves_nothing_behind(server: &Server) {
    ready(server);
    server.made(
        "/api/v1/namespaces",
        &json!({"metadata": {"name": "crowd"}}),
    );
    let account = json!({"metadata": {"name": "app"}});
    server.made("/api/v1/namespaces/crowd/serviceaccounts", &account);
    let path = "/api/v1/namespaces/crowd/pods";
    let (descriptors, _) = webhook::holds();
    let mut secrets = crowd(server, path, WARM);
    let (_, warm) = webhook::holds();
    secrets.append(&mut crowd(server, path, CROWD));
    assert_eq!(secrets.len(), WARM + CROWD, "a secret was given twice");
    let (_, memory) = webhook::holds();
    assert!(
        memory < warm + KEPT,
        "{warm} kB became {memory} kB over {CROWD} pods"
    );
    server.patiently("descriptors that are given back", || {
        let (now, _) = webhook::holds();
        let told = format!("{now}, and before there were {descriptors}");
        (now <= descriptors + IDLE).then_some(()).ok_or(told)
    });
    println!("{WARM} pods: {warm} kB; {CROWD} more: {memory} kB");
    let log = webhook::log(server);
    assert!(!secrets.iter().any(|secret| log.contains(secret)));
    let now = json!({"gracePeriodSeconds": 0});
    server.send("DELETE", path, &now).unwrap();
}

fn the_certificate_rolls_while_pods_are_created(server: &Server) {
    ready(server);
    webhook::end();
    webhook::again_halved(server, &[LIFETIME]);
    let asked = |request: &str| {
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        webhook::sent(server, request.as_bytes()).unwrap()
    };
    assert!(asked("GET /readyz").contains(" 200 "));
    assert!(asked("POST /token-requests").contains(" 404 "));
    let first = webhook::shown(server).unwrap();
    let mut seen = BTreeSet::from([first]);
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut created = 0;
    while seen.len() < 4 {
        assert!(Instant::now() < deadline, "{}", webhook::log(server));
        // More than the API server keeps connections: some shake hands anew.
        let outcomes = server.many(
            &format!("{PODS}?dryRun=All"),
            vec![pod("true"); 2 * IDLE],
            AT_ONCE,
        );
        created += outcomes.len();
        for outcome in outcomes {
            let made = outcome.unwrap_or_else(|refused| panic!("{}", refused.message));
            assert!(secret(&made).is_some());
        }
        // It is valid, too: whoever is shown it would not take another one.
        seen.insert(webhook::shown(server).unwrap());
    }
    println!("{created} pods over {} certificates", seen.len());
    webhook::end();
    webhook::again(server);
    ready(server);
}
