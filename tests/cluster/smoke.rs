//! The cluster itself, without Lanyard: what every other trial takes for granted.
//!
//! In: a cluster. Out: passed, or what was different. Invariant: a leak is seen in the journal, from
//! both kinds of wiring; so its absence says something.

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::plan::NODES;
use crate::pods::Pod;

const TOKEN: &str = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net";

/// Two pods on two nodes; both get their node's identity, and the journal tells on them.
pub async fn pods_on_both_nodes_leak_and_are_seen(cluster: &Cluster) -> Result<()> {
    cluster.namespace("smoke").await?;
    for plan in NODES {
        let name = format!("leaky-{}", plan.number);
        let pod = Pod::new("smoke", &name, plan.number.into());
        cluster.run_pod(&pod).await?;
        let mark = cluster.mark().await?;
        let curl = ["curl", "-sS", "-m", "10", "-H", "Metadata: true", TOKEN];
        let answer = cluster.pod_exec("smoke", &name, &curl).await?;
        ensure!(answer.stdout.contains("access_token"), "{answer:?}");
        let leaks = cluster.leaks(mark).await?;
        ensure!(leaks.len() == 1, "{name}: {leaks:#?}");
        ensure!(leaks[0].vm == Some(plan.name()), "{leaks:#?}");
        // The node's own request is none.
        let mark = cluster.mark().await?;
        let node = cluster.node(plan.number.into());
        let answer = node
            .shell(&format!("curl -sS -m 10 -H Metadata:true '{TOKEN}'"))
            .await?;
        ensure!(answer.contains("access_token"), "{answer}");
        ensure!(cluster.journal(mark).await?.len() == 1 && cluster.leaks(mark).await?.is_empty());
    }
    cluster.drop_namespace("smoke").await
}

/// A pod reaches the vault by its host name, the API server by its service, and nothing outside.
pub async fn pods_reach_what_they_need_and_nothing_else(cluster: &Cluster) -> Result<()> {
    cluster.namespace("smoke").await?;
    for plan in NODES {
        let name = format!("curious-{}", plan.number);
        cluster
            .run_pod(&Pod::new("smoke", &name, plan.number.into()))
            .await?;
        let curl = async |rest: &[&str]| {
            let status = [
                "curl",
                "-sS",
                "-m",
                "5",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
            ];
            cluster
                .pod_exec("smoke", &name, &[&status[..], rest].concat())
                .await
        };
        let vault = "https://demo.vault.azure.net/secrets/db-password?api-version=7.4";
        let answer = curl(&["--cacert", crate::pods::CA_PATH, vault]).await?;
        ensure!(
            answer.stdout == "401",
            "the vault without a token: {answer:?}"
        );
        let answer = curl(&["-k", "https://10.96.0.1/version"]).await?;
        ensure!(
            answer.stdout == "200",
            "the API server as a service: {answer:?}"
        );
        let answer = curl(&["http://192.0.2.1/"]).await?;
        ensure!(answer.code != 0, "something answers outside: {answer:?}");
    }
    cluster.drop_namespace("smoke").await
}

/// A reboot ends everything on a node but its disk; kubelet brings the pods back.
pub async fn a_node_reboots(cluster: &Cluster) -> Result<()> {
    cluster.namespace("smoke").await?;
    let node = cluster.node(1);
    let marks = "touch /run/mark /etc/mark /var/mark; iptables -w -t nat -N MARK-1";
    node.shell(marks).await?;
    cluster.run_pod(&Pod::new("smoke", "survivor", 1)).await?;
    let boot = node.shell("cat /proc/sys/kernel/random/boot_id").await?;
    node.reboot().await?;
    ensure!(
        boot != node.shell("cat /proc/sys/kernel/random/boot_id").await?,
        "the same boot id"
    );
    let left = node
        .shell("ls -d /run/mark /etc/mark /var/mark 2>/dev/null || :")
        .await?;
    ensure!(
        left.split_whitespace().eq(["/etc/mark", "/var/mark"]),
        "left over: {left:?}"
    );
    let chain = node.exec("iptables -w -t nat -S MARK-1").await?;
    ensure!(chain.code != 0, "a rule survived: {chain:?}");
    let limit = std::time::Duration::from_mins(3);
    let runs = async || Ok(cluster.pod_exec("smoke", "survivor", &["true"]).await?.code == 0);
    cluster
        .wait_for("the pod to run again", limit, runs)
        .await?;
    cluster.nodes_ready().await?;
    node.shell("rm /etc/mark /var/mark").await?;
    cluster.drop_namespace("smoke").await
}
