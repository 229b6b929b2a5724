//! What the agents cost on a cluster: printed for BENCHMARKS.md, never asserted.
//!
//! In: a cluster with Lanyard. Out: memory, and the time from a container's start to its agent being
//! ready. Blocks on a restart of the agents. Invariant: a figure that cannot be read is a failure.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::faults::container_of;
use crate::release::{DAEMON_SET, NAMESPACE};

const LIMIT: Duration = Duration::from_mins(2);

/// Memory of an agent that serves, then of one that has just started, and how long that took.
pub async fn of_the_agents(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    memory(cluster, "as it is after the trials before this one").await?;
    let restart = ["rollout", "restart", DAEMON_SET, "-n", NAMESPACE];
    cluster.kubectl(&restart).await?;
    cluster.agents_ready().await?;
    memory(cluster, "just started").await?;
    for agent in cluster.agents().await? {
        let status = &agent["status"];
        let ready = condition(status, "Ready")?;
        let started = &container_of(&agent)["state"]["running"]["startedAt"];
        let took = seconds(ready)? - seconds(started)?;
        println!(
            "{}: container started → ready, whole seconds as Kubernetes writes them: {took} s",
            agent["spec"]["nodeName"]
        );
    }
    own_start(cluster).await
}

/// From the process's own log: its start, and the moment when it was ready.
async fn own_start(cluster: &Cluster) -> Result<()> {
    for agent in cluster.agents().await? {
        let name = agent["metadata"]["name"].as_str().context("a name")?;
        let log = cluster.kubectl(&["logs", name, "-n", NAMESPACE]).await?;
        let at = |line: Option<&str>| -> Option<jiff::Timestamp> {
            line?.split_whitespace().next()?.parse().ok()
        };
        let first = at(log.lines().next()).context("the log's first line has no time")?;
        let tested = log.lines().find(|line| line.contains("self-test passed"));
        let last = at(tested).with_context(|| format!("no self-test in {log}"))?;
        let took = Duration::try_from(last.duration_since(first))?;
        println!("{name}: first line → self-test passed: {took:.0?}");
    }
    Ok(())
}

async fn memory(cluster: &Cluster, when: &str) -> Result<()> {
    for node in cluster.nodes() {
        let script = "for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' < $p/cmdline | cut -d' ' -f1,2)\" = '/usr/local/bin/lanyard agent' ] && grep -E '^(VmRSS|RssAnon)' $p/status; done; true";
        let mut said = String::new();
        let what = format!("an agent on {}", node.name());
        cluster
            .wait_for(&what, LIMIT, async || {
                Ok(node.shell(script).await?.matches("VmRSS").count() == 1)
            })
            .await?;
        said += &node.shell(script).await?;
        let kib = |name: &str| {
            let line = said.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        };
        let (all, own) = (
            kib("VmRSS").context("VmRSS")?,
            kib("RssAnon").context("RssAnon")?,
        );
        ensure!(all > 0.0, "{said}");
        println!(
            "{}, agent {when}: resident {:.1} MiB, of that its own {:.1}",
            node.name(),
            all / 1024.0,
            own / 1024.0
        );
    }
    Ok(())
}

fn condition<'a>(status: &'a Value, kind: &str) -> Result<&'a Value> {
    let all = status["conditions"].as_array().context("conditions")?;
    let found = all.iter().find(|condition| condition["type"] == kind);
    Ok(&found.context("no such condition")?["lastTransitionTime"])
}

fn seconds(time: &Value) -> Result<i64> {
    let text = time.as_str().context("a time")?;
    Ok(text.parse::<jiff::Timestamp>()?.as_second())
}
