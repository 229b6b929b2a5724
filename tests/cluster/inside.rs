//! Mode in-pod on a real cluster: the same pods, SDKs and loads, served from inside their networks.
//!
//! In: a cluster with Lanyard by redirection; each trial leaves it so. Out: passed, or what a pod saw. Blocks on helm
//! and the pods. Invariant: whatever is served how, nothing of a pod that is not granted reaches Azure.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::asking::{Answer, Asking, now, once};
use crate::cast::{self, AUDIT, GRANTED, Identity, PAYMENTS};
use crate::clients::{self, Asker, CLIENTS};
use crate::cluster::Cluster;
use crate::node::Node;
use crate::plan::NODES;
use crate::pods::Pod;
use crate::release::{DAEMON_SET, NAMESPACE as RELEASE_NAMESPACE};
use crate::{faults, sdks, upgrade};

const LIMIT: Duration = Duration::from_mins(2);
/// A web server on port 80 of all the pod's addresses, asked by its own address.
const WEB_SERVER: &str = "import http.server, threading, urllib.request, socket
server = http.server.HTTPServer(('0.0.0.0', 80), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
own = socket.gethostbyname(socket.gethostname())
print([urllib.request.urlopen(f'http://{host}/', timeout=5).status for host in ('127.0.0.1', own)])
server.shutdown()";

/// From redirection to listeners inside and back; pods of before and new ones, each way.
pub async fn the_mode_changes_and_pods_get_their_tokens(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "inside";
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    cast::raise(cluster, NAMESPACE).await?;
    let mark = cluster.mark().await?;
    let pods = NODES.map(|plan| {
        let node: usize = plan.number.into();
        let names = [("older-1", "newer-1"), ("older-2", "newer-2")][node - 1];
        let pod = |name| {
            Pod::new(NAMESPACE, name, node)
                .identity(PAYMENTS.name)
                .labels(GRANTED)
        };
        (pod(names.0), pod(names.1))
    });
    for (older, _) in &pods {
        cluster.run_pod(&older.clone().image(&image)).await?;
    }
    // Node 1 has a bridge.
    for (node, wanted) in cluster.nodes().zip([true, false]) {
        let many = node.sample("lanyard_pods_spoofable").await?;
        ensure!(
            (many > 0.0) == wanted,
            "{}: {many} pods may be spoofed",
            node.name()
        );
    }
    enter(cluster, &["--set=agent.inPod.vmExtensionEndpoint=true"]).await?;
    for (older, newer) in &pods {
        cluster.run_pod(&newer.clone().image(&image)).await?;
        for pod in [older, newer] {
            everything_inside(cluster, pod).await?;
        }
        stranger(cluster, older.node, NAMESPACE).await?;
    }
    for client in CLIENTS {
        for (_, newer) in &pods {
            sdks::has(
                Asker::new(cluster, NAMESPACE, newer.name),
                client,
                &["token"],
                &PAYMENTS,
            )
            .await?;
        }
    }
    for node in cluster.nodes() {
        ensure!(node.sample("lanyard_pods_spoofable").await? < 1.0);
        ensure!(node.sample("lanyard_inside_pods").await? >= 3.0);
    }
    leave(cluster).await?;
    for (older, newer) in &pods {
        for pod in [older, newer] {
            served(cluster, pod.name, NAMESPACE, &PAYMENTS).await?;
            ensure!(
                !is_inside(cluster, NAMESPACE, pod.name).await?,
                "{} still inside",
                pod.name
            );
        }
    }
    cluster.no_leaks(mark).await?;
    cast::leave(cluster, NAMESPACE).await
}

/// A token by IMDS's address and by the virtual machine extension's, and port 80 is the pod's own.
async fn everything_inside(cluster: &Cluster, pod: &Pod<'_>) -> Result<()> {
    let (name, namespace) = (pod.name, pod.namespace);
    served(cluster, name, namespace, &PAYMENTS).await?;
    ensure!(
        is_inside(cluster, namespace, name).await?,
        "{name} by redirection"
    );
    let server = ["python3", "-c", WEB_SERVER];
    let said = cluster.pod_exec(namespace, name, &server).await?;
    let said = said.success("a web server of the pod's own")?;
    ensure!(said.trim() == "[200, 200]", "{said}");
    for host in ["127.0.0.1", "[::1]"] {
        let identity = vm_extension(cluster, namespace, name, host).await?;
        ensure!(identity.contains(PAYMENTS.client_id), "{host}: {identity}");
    }
    Ok(())
}

/// A pod that nothing is granted to is refused inside, too.
async fn stranger(cluster: &Cluster, node: usize, namespace: &str) -> Result<()> {
    let name = ["stranger-1", "stranger-2"][node - 1];
    let stranger = Pod::new(namespace, name, node).identity(AUDIT.name);
    cluster.run_pod(&stranger).await?;
    let (status, body) = once(cluster, (namespace, name), "").await?;
    ensure!(
        status == "400" && body.contains("Identity not found"),
        "{status} {body}"
    );
    Ok(())
}

/// Agents change over under load, crash, and pods' sandboxes are killed.
pub async fn agents_and_sandboxes_restart(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "sandboxes";
    cluster.lanyard().await?;
    enter(cluster, &[]).await?;
    let restart = async || {
        let rollout = ["rollout", "restart", DAEMON_SET, "-n", RELEASE_NAMESPACE];
        cluster.kubectl(&rollout).await.map(drop)
    };
    upgrade::under_load(cluster, "inside-rollout", restart).await?;
    let image = clients::image(cluster).await?;
    cast::raise(cluster, NAMESPACE).await?;
    let mut askings = Vec::new();
    for (node, name) in [(1, "asks-1"), (2, "asks-2")] {
        let pod = Pod::new(NAMESPACE, name, node)
            .identity(PAYMENTS.name)
            .labels(GRANTED);
        let asking = Asking::start(cluster, pod, &image, 50).await?;
        let first = asking.first(0.0, "a first token", LIMIT, granted).await?;
        let (start, _) = asking.told().await?;
        println!(
            "{name}: first request → first token {:.3} s",
            first.at - start
        );
        askings.push(asking);
    }
    agents_crash(cluster, &askings).await?;
    for asking in &askings {
        let name = asking.name();
        let killed = now();
        let manifest = cluster.get(&["pod", name, "-n", NAMESPACE]).await?;
        let uid = manifest["metadata"]["uid"].as_str().context("a UID")?;
        kill_sandbox(&cluster.node(asking.node()), uid).await?;
        let again = asking.first(killed, "a token in the new sandbox", LIMIT, granted);
        again.await?;
        let after = cluster.get(&["pod", name, "-n", NAMESPACE]).await?;
        ensure!(after["metadata"]["uid"] == uid, "another pod");
        ensure!(is_inside(cluster, NAMESPACE, name).await?);
    }
    leave(cluster).await?;
    cast::leave(cluster, NAMESPACE).await
}

fn granted(answer: &Answer) -> bool {
    answer.status == 200 && answer.word == PAYMENTS.client_id
}

/// One agent is killed, the other one asked to end, as kubelet does where it is not well: pods' requests wait until it has started
/// it again. What was in hand is lost; what waits for longer than the pod's own two seconds gives up. Nothing is refused.
async fn agents_crash(cluster: &Cluster, askings: &[Asking<'_>]) -> Result<()> {
    let agents = cluster.agents().await?;
    for node in cluster.nodes() {
        let held = async || Ok(node.sample("lanyard_inside_held").await? >= 1.0);
        let what = format!("listeners of {} to be held", node.name());
        cluster.wait_for(&what, LIMIT, held).await?;
    }
    for agent in &agents {
        holds_no_token(agent)?;
    }
    let crashed = now();
    for (agent, signal) in agents.iter().zip(["KILL", "TERM"]) {
        let node = faults::node_of(cluster, agent)?;
        let pid = faults::pid_of(&node, agent).await?;
        node.shell(&format!("kill -{signal} {pid}")).await?;
    }
    faults::restarted(cluster, &agents).await?;
    for asking in askings {
        let recovery = asking.recovery(crashed, PAYMENTS.client_id, LIMIT).await?;
        println!("{}: agent ended: {recovery}", asking.name());
        let failures = &recovery.failures;
        let refused = failures.iter().any(|one| one.word.contains("Refused"));
        ensure!(!refused && failures.len() <= 3, "{failures:?}");
    }
    Ok(())
}

/// Who holds listeners has not the token that the agent has.
fn holds_no_token(agent: &Value) -> Result<()> {
    let containers = agent["spec"]["containers"].as_array();
    let has_token = |container: &Value| {
        container["volumeMounts"]
            .to_string()
            .contains("kube-api-access")
    };
    let with: Vec<_> = containers
        .context("containers")?
        .iter()
        .filter(|one| has_token(one))
        .map(|one| &one["name"])
        .collect();
    ensure!(with == ["agent"], "{with:?}");
    Ok(())
}

async fn enter(cluster: &Cluster, more: &[&str]) -> Result<()> {
    cluster
        .install(&[&["--set=agent.mode=in-pod"], more].concat())
        .await?;
    cluster.agents_ready().await
}

/// Back to redirection, which takes a step between.
async fn leave(cluster: &Cluster) -> Result<()> {
    let skipped = cluster.install(&["--reset-values"]).await;
    let told = skipped.err().map(|error| format!("{error:#}"));
    ensure!(
        told.as_ref()
            .is_some_and(|told| told.contains("go to mixed first")),
        "the step between was skipped: {told:?}"
    );
    cluster.install(&["--set=agent.mode=mixed"]).await?;
    cluster.agents_ready().await?;
    cluster.install(&["--reset-values"]).await?;
    cluster.agents_ready().await
}

async fn served(cluster: &Cluster, pod: &str, namespace: &str, identity: &Identity) -> Result<()> {
    let what = format!("{pod} to be served");
    cluster
        .wait_for(&what, LIMIT, async || {
            let (status, body) = once(cluster, (namespace, pod), "").await?;
            ensure!(
                status == "200" && body.contains(identity.client_id),
                "{status} {body}"
            );
            Ok(true)
        })
        .await
}

async fn is_inside(cluster: &Cluster, namespace: &str, pod: &str) -> Result<bool> {
    let addresses = ["cat", "/proc/net/fib_trie"];
    let said = cluster.pod_exec(namespace, pod, &addresses).await?;
    Ok(said.success("addresses")?.contains("169.254.169.254"))
}

async fn vm_extension(cluster: &Cluster, namespace: &str, pod: &str, host: &str) -> Result<String> {
    let url = format!("http://{host}:50342/oauth2/token");
    let curl = [
        "curl",
        "-gsS",
        "-m",
        "10",
        "-H",
        "Metadata: true",
        "-d",
        "resource=https://vault.azure.net",
        &url,
    ];
    cluster.pod_exec(namespace, pod, &curl).await?.success(&url)
}

/// Kills the first process of a pod's sandbox: kubelet makes another one, for the same pod.
async fn kill_sandbox(node: &Node<'_>, uid: &str) -> Result<()> {
    let script = format!(
        "cd /run/containerd/io.containerd.runtime.v2.task/k8s.io
         for bundle in $(grep -l '\"io.kubernetes.cri.container-type\": *\"sandbox\"' */config.json | cut -d/ -f1); do
           grep -q '{uid}' $bundle/config.json && kill -KILL $(cat $bundle/init.pid) && echo $bundle
         done; true"
    );
    let killed = node.shell(&script).await?;
    ensure!(
        killed.lines().count() == 1,
        "sandboxes that were killed: {killed:?}"
    );
    Ok(())
}
