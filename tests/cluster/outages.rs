//! What the cluster can be made to suffer, seen to happen: other trials rely on it.
//!
//! In: a cluster. Out: passed, or what was different. Invariant: each trial leaves the cluster whole.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::pods::Pod;

const LIMIT: Duration = Duration::from_mins(2);
const UNIT: &str = "/etc/systemd/system/lanyard-boot-guard.service";

/// While the API server is away pods run on; when it is back, so is everything.
pub async fn the_api_server_goes_and_comes(cluster: &Cluster) -> Result<()> {
    cluster.namespace("outage").await?;
    cluster.run_pod(&Pod::new("outage", "bystander", 1)).await?;
    let runs = "pgrep -x sleep || grep -l '^sleep' /proc/[0-9]*/cmdline";
    ensure!(!cluster.node(1).shell(runs).await?.is_empty());
    cluster.apiserver().kill().await?;
    let away = cluster.kubectl(&["version", "--request-timeout=3s"]).await;
    ensure!(away.is_err(), "it answers: {away:?}");
    ensure!(
        !cluster.node(1).shell(runs).await?.is_empty(),
        "the pod ended"
    );
    cluster.apiserver().start().await?;
    let ready = async || Ok(cluster.kubectl(&["get", "--raw", "/readyz"]).await.is_ok());
    cluster.wait_for("the API server", LIMIT, ready).await?;
    let runs = async || {
        Ok(cluster
            .pod_exec("outage", "bystander", &["true"])
            .await?
            .code
            == 0)
    };
    cluster
        .wait_for("the pod to be reached", LIMIT, runs)
        .await?;
    cluster.apiserver().freeze().await?;
    let silent = cluster.kubectl(&["version", "--request-timeout=2s"]).await;
    cluster.apiserver().thaw().await?;
    ensure!(silent.is_err(), "it answers while it is frozen: {silent:?}");
    cluster.wait_for("the API server", LIMIT, ready).await?;
    cluster.drop_namespace("outage").await
}

/// An enabled boot guard runs before kubelet; where kubelet requires it and it fails, nothing starts.
pub async fn the_boot_guards_unit_runs_at_boot(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(2);
    let enable = async |folder: &str, command: &str| {
        let unit = format!("[Service]\\nType=oneshot\\nExecStart={command}\\n");
        node.shell(&format!(
            "printf '{unit}' >{UNIT}; mkdir -p /etc/systemd/system/{folder}; \
             ln -sf ../lanyard-boot-guard.service /etc/systemd/system/{folder}/"
        ))
        .await
    };
    // It fails where containerd has been before it.
    enable("kubelet.service.wants", "/bin/mkdir /run/containerd").await?;
    node.reboot().await?;
    let log = std::fs::read_to_string(cluster.logs().join("node-2.log"))?;
    ensure!(
        log.contains("boot: /bin/mkdir /run/containerd: exit status 0"),
        "{log}"
    );
    enable("kubelet.service.requires", "/bin/false").await?;
    node.reboot().await?;
    let kubelet = node.kubelet()?.start().await;
    ensure!(
        kubelet.is_err(),
        "kubelet was started in spite of the guard"
    );
    node.shell(&format!(
        "rm -r {UNIT} /etc/systemd/system/kubelet.service.*"
    ))
    .await?;
    node.reboot().await?;
    cluster.nodes_ready().await
}

/// A new node of the pool carries the startup taint from its first moment.
pub async fn a_new_node_carries_the_startup_taint(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(2);
    let taints = async || {
        let taints = [
            "get",
            "node",
            "node-2",
            "-o",
            "jsonpath={.spec.taints[*].key}",
        ];
        cluster.kubectl(&taints).await
    };
    node.register_anew(true).await?;
    let taints_now = taints().await?;
    ensure!(
        taints_now.contains("lanyard.dev/agent-not-ready"),
        "{taints_now}"
    );
    node.register_anew(false).await?;
    let taints_now = taints().await?;
    ensure!(!taints_now.contains("lanyard.dev"), "{taints_now}");
    Ok(())
}
