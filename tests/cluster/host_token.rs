//! `/host/token` on real nodes: a pod and a program of the node ask on behalf of pods, as docs/host-token.md tells them to.
//!
//! In: a cluster with Lanyard; the trial leaves it without the doors. Out: passed, or what was answered. Blocks on helm and the
//! agents. Bearer tokens go by standard input: no error has them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::cast::{self, GRANTED, PAYMENTS};
use crate::cluster::Cluster;
use crate::node::Node;
use crate::pods::Pod;
use crate::process::Output;
use crate::release::NAMESPACE as RELEASE_NAMESPACE;

const NAMESPACE: &str = "host-token";
const AUDIENCE: &str = "lanyard.dev";
const LIMIT: Duration = Duration::from_mins(1);
/// How curl is led to each door.
const SOCKET: [&str; 2] = [
    "--unix-socket /run/lanyard-host/token.sock",
    "http://localhost",
];
const PORT: [&str; 2] = ["", "http://127.0.0.1:2579"];
/// Who may ask, who may not.
const ACCOUNTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: provider, namespace: host-token}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: host-token}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: provider, namespace: host-token}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lanyard-host-token}
subjects: [{kind: ServiceAccount, name: provider, namespace: host-token}]
";
/// The caller's volumes, as docs/host-token.md has them.
const VOLUMES: &str = "  volumes:
  - name: lanyard-token
    projected:
      sources: [{serviceAccountToken: {audience: lanyard.dev, expirationSeconds: 3600, path: token}}]
  - name: lanyard-host
    hostPath: {path: /run/lanyard-host, type: Directory}
";
const MOUNTS: &str = "volumeMounts: [{name: lanyard-token, mountPath: /run/secrets/lanyard}, {name: lanyard-host, mountPath: /run/lanyard-host}]
    securityContext: {runAsUser: 0}";

/// From a pod with the socket mounted and from the node; only for who may, only with the right token, only for the node's pods.
pub async fn a_program_on_the_node_gets_tokens_of_its_pods(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    cast::raise(cluster, NAMESPACE).await?;
    let listen = "--set=hostToken.listen=127.0.0.1:2579";
    cluster
        .install(&["--set=hostToken.enabled=true", listen])
        .await?;
    cluster.agents_ready().await?;
    cluster.apply(ACCOUNTS).await?;
    let mark = cluster.mark().await?;
    let pods = [(1, "web-1"), (2, "web-2")].map(|(node, name)| {
        Pod::new(NAMESPACE, name, node)
            .identity(PAYMENTS.name)
            .labels(GRANTED)
    });
    cluster.apply(&caller()?).await?;
    try_join_all(pods.iter().map(|pod| cluster.run_pod(pod))).await?;
    cluster.pod_ready(NAMESPACE, "caller").await?;

    let own = callers_own(cluster).await?;
    doors(cluster, &own).await?;
    let one = cluster.node(1);
    // Nobody but root gets as far as a bearer token.
    let nobody = format!("setpriv --reuid 65534 {}", request(SOCKET, "web-1"));
    let said = one.exec_with(&nobody, own.as_bytes()).await?;
    ensure!(said.code == REFUSED, "as nobody: {said:?}");
    audited(cluster).await?;
    cluster.no_leaks(mark).await?;
    let leave = cast::leave(cluster, NAMESPACE);
    tokio::try_join!(leave, cluster.install(&["--reset-values"]))?;
    cluster.agents_ready().await?;
    for door in [SOCKET, PORT] {
        let said = one
            .exec_with(&request(door, "web-1"), own.as_bytes())
            .await?;
        ensure!(said.code == REFUSED, "still open: {door:?}: {said:?}");
    }
    Ok(())
}

/// The first token through the mounted socket; gives what the caller shows for it.
async fn callers_own(cluster: &Cluster) -> Result<String> {
    let what = "the caller's first token";
    cluster
        .wait_for(what, LIMIT, async || {
            let script = format!("{BEARER} | {}", request(SOCKET, "web-1"));
            let shell = ["sh", "-c", &script];
            let said = cluster.pod_exec(NAMESPACE, "caller", &shell).await?;
            granted(&answer(said)?)?;
            Ok(true)
        })
        .await?;
    let read = cluster.pod_exec(NAMESPACE, "caller", &["sh", "-c", BEARER]);
    read.await?.success("the caller's bearer token")
}

/// By what a caller on node 1 shows, and by others' bearer tokens: who is given tokens of whom on both nodes.
async fn doors(cluster: &Cluster, own: &str) -> Result<()> {
    let (one, two) = (&cluster.node(1), &cluster.node(2));
    let anywhere = bearer(cluster, "provider", &["--audience", AUDIENCE]).await?;
    for (node, door, bearer, pod) in [
        (one, SOCKET, own, "web-1"),
        (one, PORT, own, "web-1"),
        (two, SOCKET, &anywhere, "web-2"),
        (two, PORT, &anywhere, "web-2"),
    ] {
        let said = ask(node, door, bearer, pod).await?;
        granted(&said).with_context(|| format!("{}, {door:?}", node.name()))?;
    }
    // An agent waits for a pod before it says that there is none.
    let absent = [
        (one, own, "web-2"),
        (two, &anywhere, "web-1"),
        (one, own, "none"),
    ];
    let absent = absent.map(|(node, bearer, pod)| refused(node, bearer, pod, 404));
    try_join_all(absent).await?;
    let stranger = bearer(cluster, "stranger", &["--audience", AUDIENCE]).await?;
    let api_servers = bearer(cluster, "provider", &[]).await?;
    let other = bearer(cluster, "provider", &["--audience", "lanyard.example.com"]).await?;
    for (what, node, bearer, pod, status) in [
        ("its token on another node", two, own, "web-2", 403),
        ("without the right", one, &stranger, "web-1", 403),
        ("without the right, no pod", one, &stranger, "none", 403),
        ("the API server's audience", one, &api_servers, "web-1", 401),
        ("another audience", one, &other, "web-1", 401),
        ("no bearer token", one, "", "web-1", 401),
    ] {
        let refused = refused(node, bearer, pod, status).await;
        refused.with_context(|| what.to_owned())?;
    }
    Ok(())
}

/// What curl ends with where it could not connect.
const REFUSED: i32 = 7;
/// The caller's own header.
const BEARER: &str = "sed 's/^/Authorization: Bearer /' /run/secrets/lanyard/token";

/// A pod that mounts the socket's folder and a token for the audience.
fn caller() -> Result<String> {
    let yaml = Pod::new(NAMESPACE, "caller", 1).account("provider").yaml();
    let mounts = "volumeMounts: [{name: azure, mountPath: /azure}]";
    ensure!(
        yaml.contains(mounts) && yaml.contains("  volumes:\n"),
        "another pod than expected: {yaml}"
    );
    Ok(yaml
        .replace(mounts, MOUNTS)
        .replace("  volumes:\n", VOLUMES))
}

/// The header with a new token of an account.
async fn bearer(cluster: &Cluster, account: &str, more: &[&str]) -> Result<String> {
    let create = ["create", "token", account, "-n", NAMESPACE];
    let token = cluster.kubectl(&[&create[..], more].concat()).await?;
    Ok(format!("Authorization: Bearer {}", token.trim()))
}

/// A request whose further headers are the standard input.
fn request([flags, url]: [&str; 2], pod: &str) -> String {
    format!(
        "curl -sS -m 30 -w '\\n%{{http_code}}' {flags} -H @- -H 'podns: {NAMESPACE}' -H 'podname: {pod}' \
         '{url}/host/token/?resource=https://vault.azure.net'"
    )
}

async fn ask(node: &Node<'_>, door: [&str; 2], bearer: &str, pod: &str) -> Result<(u16, Value)> {
    let script = request(door, pod);
    answer(node.exec_with(&script, bearer.as_bytes()).await?)
}

/// At both doors.
async fn refused(node: &Node<'_>, bearer: &str, pod: &str, wanted: u16) -> Result<()> {
    for answer in try_join_all([SOCKET, PORT].map(|door| ask(node, door, bearer, pod))).await? {
        let (status, body) = answer;
        let refused = status == wanted && body["error"].is_string() && body["token"].is_null();
        ensure!(
            refused,
            "{pod} at {}: {status} {}",
            node.name(),
            body["error"]
        );
    }
    Ok(())
}

fn answer(said: Output) -> Result<(u16, Value)> {
    let said = said.success("curl")?;
    let (body, status) = said.rsplit_once('\n').context("no status")?;
    let body = serde_json::from_str(body).with_context(|| body.to_owned())?;
    Ok((status.parse()?, body))
}

/// A token of the pod's identity, in this dialect's shape.
fn granted((status, body): &(u16, Value)) -> Result<()> {
    ensure!(*status == 200, "{status} {body}");
    let token = body["token"]["access_token"].as_str().unwrap_or_default();
    let payload = token.split('.').nth(1).context("no token")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    ensure!(
        body["clientid"] == PAYMENTS.client_id && claims["appid"] == PAYMENTS.client_id,
        "{}: {claims}",
        body["clientid"]
    );
    Ok(())
}

/// Who asked on whose behalf is in the agent's log.
async fn audited(cluster: &Cluster) -> Result<()> {
    let logs = [
        "logs",
        "-n",
        RELEASE_NAMESPACE,
        "-l",
        "app.kubernetes.io/component=agent",
        "--tail=-1",
    ];
    let said = cluster.kubectl(&logs).await?;
    let told = said.lines().any(|line| {
        [
            "token decision",
            "host-token/web-1",
            "system:serviceaccount:host-token:provider",
            "host_token",
        ]
        .iter()
        .all(|word| line.contains(word))
    });
    ensure!(told, "no audit line: {said}");
    Ok(())
}
