//! The chart's life on a real cluster: its own test, an upgrade from an older chart, the uninstall.
//!
//! In: a cluster, the chart and the image of this tree. Out: passed, or what was left where. Blocks on
//! helm. These trials come last: they take the release away.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::app_service;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::release::{CHART, DAEMON_SET, NAMESPACE, RELEASE};

const LIMIT: Duration = Duration::from_mins(1);
/// Everything of Lanyard's that can be on a node. Its folder in /run stays, empty: a pod cannot take away
/// what is mounted into it.
const TRACES: &str = "iptables-nft-save 2>/dev/null; iptables-legacy-save 2>/dev/null; ip -o link; ip -o addr show lo; \
                      find /etc/lanyard /run/lanyard /etc/systemd -not -type d 2>/dev/null";

/// `helm test`.
pub async fn its_test_proves_interception_from_a_pod(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let args = ["test", RELEASE, "-n", NAMESPACE, "--timeout=60s"];
    let output = cluster.helm_with(&args).await?;
    ensure!(
        output.code == 0 && output.stderr.contains("intercepted by lanyard"),
        "{}{}",
        output.stdout,
        output.stderr
    );
    Ok(())
}

/// No version came before this one, so an older chart is made up: another version, a value that is
/// gone meanwhile, and one kind without a field. What is tested is that nothing of the chart stands in an upgrade's way.
pub async fn an_older_chart_is_upgraded_with_its_crds(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    uninstall(cluster).await?;
    let folder = tempfile::tempdir()?;
    let older = folder.path().join("lanyard");
    copy(Path::new(CHART), &older)?;
    edit(&older, "Chart.yaml", "version: 0.1.0", "version: 0.0.9")?;
    edit(
        &older,
        "values.yaml",
        "drainTimeout: 10s",
        "drainTimeout: 9s",
    )?;
    edit(
        &older,
        "files/crds/azureidentities.yaml",
        "    - azid\n",
        "    - azidold\n",
    )?;
    let older = older.display().to_string();
    let install = [
        "upgrade",
        "--install",
        RELEASE,
        "-n",
        NAMESPACE,
        "--wait",
        "--timeout=2m",
    ];
    cluster
        .helm(&[&install[..], &[older.as_str()]].concat())
        .await?;
    let crd = ["crd", "azureidentities.lanyard.dev"];
    let short = async || -> Result<String> {
        Ok(cluster.get(&crd).await?["spec"]["names"]["shortNames"].to_string())
    };
    ensure!(
        short().await?.contains("azidold"),
        "the older CRD is not there"
    );
    cluster.install(&[]).await?;
    cluster.agents_ready().await?;
    let names = short().await?;
    ensure!(names == "[\"azid\"]", "the CRD was not upgraded: {names}");
    let agents = cluster
        .get(&[DAEMON_SET, "-n", NAMESPACE])
        .await?
        .to_string();
    ensure!(agents.contains("--drain-timeout=10s"), "{agents}");
    ensure!(
        agents.contains("lanyard-0.1.0"),
        "the label helm.sh/chart is old: {agents}"
    );
    Ok(())
}

/// Nothing but the CRDs and the users' objects is left, on no node.
pub async fn uninstall_leaves_the_crds_and_the_users_objects(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    cluster
        .install(&["--set=agent.bootGuard.enabled=true", app_service::ON])
        .await?;
    cluster.agents_ready().await?;
    cluster
        .apply(
            "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {name: kept, namespace: default}\n\
             spec: {clientID: 11111111-1111-4111-8111-111111111111}\n",
        )
        .await?;
    let said = uninstall(cluster).await?;
    ensure!(
        said.contains("gone from all 2 nodes"),
        "helm did not tell: {said}"
    );
    nothing_in_the_cluster(cluster).await?;
    // Nobody waits for a webhook that is not there any more.
    cluster
        .apply(&app_service::labelled("default", "late"))
        .await?;
    cluster.pod_ready("default", "late").await?;
    cluster.kubectl(&["delete", "pod", "late"]).await?;
    for node in cluster.nodes() {
        let left = traces(&node).await?;
        ensure!(left.is_empty(), "left on {}: {left}", node.name());
    }
    let kept = cluster
        .kubectl(&["get", "azid", "kept", "-o", "name"])
        .await?;
    ensure!(kept.contains("kept"), "{kept}");
    cluster.kubectl(&["delete", "azid", "kept"]).await.map(drop)
}

/// A node whose agent cannot answer is named; it stays closed, and the printed command cleans it.
pub async fn uninstall_names_the_node_that_did_not_answer(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    cluster.install(&["--set=uninstall.timeout=5s"]).await?;
    cluster.agents_ready().await?;
    let node = cluster.node(2);
    // Nobody is left on the node who could answer, or start an agent anew.
    cluster.kubectl(&["cordon", "node-2"]).await?;
    node.kubelet()?.stop().await?;
    node.shell("kill -KILL $(pidof lanyard)").await?;
    let said = uninstall(cluster).await;
    node.kubelet()?.start().await?;
    cluster.kubectl(&["uncordon", "node-2"]).await?;
    let said = said?;
    ensure!(
        said.contains("gone from 1 of 2 nodes")
            && said.contains("kubectl debug node/node-2 ")
            && !said.contains("debug node/node-1"),
        "{said}"
    );
    nothing_in_the_cluster(cluster).await?;
    let left = traces(&cluster.node(1)).await?;
    ensure!(left.is_empty(), "left on node-1: {left}");
    let left = traces(&node).await?;
    ensure!(
        left.contains("REJECT"),
        "node-2 was opened by nobody's word: {left}"
    );
    run_the_printed_command(cluster, &said).await?;
    let left = traces(&node).await?;
    ensure!(left.is_empty(), "left on node-2: {left}");
    cluster
        .kubectl(&[
            "delete",
            "pods",
            "-n",
            "default",
            "-l",
            "app.kubernetes.io/managed-by=kubectl-debug",
        ])
        .await
        .map(drop)
}

async fn run_the_printed_command(cluster: &Cluster, said: &str) -> Result<()> {
    let command = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("kubectl "))
        .context("no command was printed")?;
    let words: Vec<&str> = command.split_whitespace().collect();
    cluster.kubectl(&words).await?;
    cluster
        .wait_for("the printed command to be done", LIMIT, async || {
            let pods = cluster.get(&["pods", "-n", "default"]).await?;
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            let debugger = |pod: &&serde_json::Value| {
                pod["metadata"]["name"]
                    .to_string()
                    .contains("node-debugger")
            };
            Ok(pods
                .iter()
                .find(debugger)
                .is_some_and(|pod| pod["status"]["phase"] == "Succeeded"))
        })
        .await
}

/// What helm and its hook said, a line for each line.
async fn uninstall(cluster: &Cluster) -> Result<String> {
    let output = cluster
        .helm_with(&["uninstall", RELEASE, "-n", NAMESPACE])
        .await?;
    let said = format!("{}\n{}", output.stdout, output.stderr.replace("\\n", "\n"));
    ensure!(output.code == 0, "helm uninstall failed: {said}");
    Ok(said)
}

async fn nothing_in_the_cluster(cluster: &Cluster) -> Result<()> {
    let own = "serviceaccounts,roles,rolebindings,configmaps,secrets,jobs,daemonsets,deployments,services,pods,events.events.k8s.io";
    let wide = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,\
                validatingwebhookconfigurations,mutatingwebhookconfigurations";
    cluster
        .wait_for("everything of the release to be gone", LIMIT, async || {
            let here = cluster
                .kubectl(&[
                    "get",
                    own.trim_end_matches(",events.events.k8s.io"),
                    "-n",
                    NAMESPACE,
                    "-o",
                    "name",
                ])
                .await?;
            let everywhere = cluster.kubectl(&["get", wide, "-o", "name"]).await?;
            let left: Vec<_> = here
                .lines()
                .chain(everywhere.lines())
                .filter(|name| name.contains("lanyard"))
                .collect();
            ensure!(left.is_empty(), "still there: {left:?}");
            Ok(true)
        })
        .await
}

async fn traces(node: &Node<'_>) -> Result<String> {
    let all = node.exec(TRACES).await?.stdout;
    let ours = |line: &&str| {
        ["LANYARD", "lanyard", "169.254.169.252", "epoch", ".lock"]
            .iter()
            .any(|word| line.contains(word))
    };
    Ok(all.lines().filter(ours).collect::<Vec<_>>().join("\n"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn edit(chart: &Path, file: &str, from: &str, to: &str) -> Result<()> {
    let path = chart.join(file);
    let text = std::fs::read_to_string(&path)?;
    ensure!(text.contains(from), "{file} has no `{from}`");
    Ok(std::fs::write(&path, text.replacen(from, to, 1))?)
}
