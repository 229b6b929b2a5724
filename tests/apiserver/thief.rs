//! Who is in the trials of `TokenRequest`: the chart's objects, two nodes, pods on them, and a thief
//! with the token of node-a's agent.
//!
//! In: the server. Out: requests and their outcomes. Blocks on the server and on helm. The thief's
//! token is a real one, bound to the agent's pod as kubelet gets it, so that the node's name in it is
//! the API server's own word.

use std::process::Command;

use serde_json::{Value, json};

use crate::server::{Refused, Server};
use crate::webhook;

/// The release's namespace.
pub const NAMESPACE: &str = "lanyard-system";
/// The only audience that agents ask for.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// What the chart gives with these values.
pub fn rendered(values: &[&str]) -> Vec<Value> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/lanyard");
    let args = ["template", "lanyard", chart, "--no-hooks", "-n", NAMESPACE];
    let rendered = Command::new(crate::cached::helm())
        .args(args)
        .args(["--set", "crds.install=false"])
        .args(values)
        .output()
        .expect("helm is built by `make programs`, and was not found");
    let said = String::from_utf8_lossy(&rendered.stderr);
    assert!(rendered.status.success(), "{said}");
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&String::from_utf8(rendered.stdout).unwrap()).expect("YAML");
    objects.into_iter().filter(|one| !one.is_null()).collect()
}

/// Puts everything on the server, once: the release's objects (nothing runs, there is no kubelet), two
/// nodes, service accounts in `shop`, which is listed, and in `other`, which is not.
pub fn stage(server: &Server) {
    if server
        .send("GET", "/api/v1/nodes/node-a", &Value::Null)
        .is_ok()
    {
        return;
    }
    for name in [NAMESPACE, "other"] {
        let namespace = json!({"metadata": {"name": name}});
        server.made("/api/v1/namespaces", &namespace);
    }
    for name in ["node-a", "node-b"] {
        server.made("/api/v1/nodes", &json!({"metadata": {"name": name}}));
    }
    for (namespace, name) in [("shop", "app"), ("shop", "till"), ("other", "app")] {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        server.made(&path, &json!({"metadata": {"name": name}}));
    }
    let objects = rendered(&[
        "--set",
        "agent.federated.namespaces={shop},appService.enabled=true",
        "--set",
        "agent.secrets[0].namespace=shop,agent.secrets[0].names={till-credential}",
    ]);
    let all = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    server.apply(&all.to_string());
    webhook::start(server, &objects);
    // The policy and the webhook come into force by a watch.
    let client = thief(server, Some("node-a"));
    let own = pod(server, "shop", "first", Some("node-a"), "app");
    let theirs = pod(server, "shop", "second", Some("node-b"), "app");
    let refused = |what: &str, request: &Value, words: &str| {
        server.patiently(what, || {
            match ask(server, &client, "shop", "app", request) {
                Ok(_) => Err("not yet in force".to_owned()),
                Err(refused) if refused.message.contains(words) => Ok(()),
                Err(refused) => Err(refused.message),
            }
        });
    };
    let mut long = request("first", &own);
    long["spec"]["expirationSeconds"] = json!(7200);
    refused("the policy", &long, "at most an hour");
    refused("the webhook", &request("second", &theirs), "on node node-b");
}

/// Creates a pod, bound to a node where one is named; its uid.
pub fn pod(
    server: &Server,
    namespace: &str,
    name: &str,
    node: Option<&str>,
    account: &str,
) -> String {
    let mut object = json!({
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "none"}],
        },
    });
    if let Some(node) = node {
        object["spec"]["nodeName"] = json!(node);
    }
    let made = server.made(&format!("/api/v1/namespaces/{namespace}/pods"), &object);
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// What an agent asks for its pod.
pub fn request(pod: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": [AUDIENCE],
            "expirationSeconds": 3600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid},
        },
    })
}

/// Asks for a token of a service account.
pub fn ask(
    server: &Server,
    client: &kube::Client,
    namespace: &str,
    account: &str,
    request: &Value,
) -> Result<String, Refused> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let made = server.send_as(client, "POST", &path, request)?;
    Ok(made["status"]["token"].as_str().unwrap().to_owned())
}

/// A client with a token of the agents' service account: of the agent on that node, or of none.
pub fn thief(server: &Server, node: Option<&str>) -> kube::Client {
    let mut object = json!({"spec": {"audiences": [], "expirationSeconds": 3600}});
    if let Some(node) = node {
        let name = format!("agent-{}", fastrand::u32(..));
        let uid = pod(server, NAMESPACE, &name, Some(node), "lanyard-agent");
        object["spec"]["boundObjectRef"] =
            json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    }
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/lanyard-agent/token");
    let made = server.made(&path, &object);
    server.client(made["status"]["token"].as_str().unwrap())
}
