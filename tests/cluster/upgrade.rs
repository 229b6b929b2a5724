//! Invariant 6 on a real cluster: a new version of the agents loses no request.
//!
//! In: a cluster with Lanyard, load on both nodes. Out: passed, or the requests that failed and when.
//! Blocks for the time of the loads. The new agents must all be there before the loads end.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::loads::Crowd;
use crate::release::{DAEMON_SET, NAMESPACE};

/// At least 30 s, and long enough for both nodes to change over one after the other.
const LOAD: Duration = Duration::from_secs(45);

/// `kubectl rollout restart`.
pub async fn a_restart_of_the_agents_fails_no_request(cluster: &Cluster) -> Result<()> {
    let restart = async || {
        let rollout = ["rollout", "restart", DAEMON_SET, "-n", NAMESPACE];
        cluster.kubectl(&rollout).await.map(drop)
    };
    under_load(cluster, "rollout", restart).await
}

/// `helm upgrade` with another value, and back.
pub async fn an_upgrade_of_the_release_fails_no_request(cluster: &Cluster) -> Result<()> {
    let upgrade = async || cluster.install(&["--set=agent.log.format=json"]).await;
    under_load(cluster, "upgrade", upgrade).await?;
    cluster.install(&["--reset-values"]).await?;
    cluster.agents_ready().await
}

/// A change while pods of both nodes ask.
pub async fn under_load(
    cluster: &Cluster,
    namespace: &str,
    change: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let crowd = Crowd::gather(cluster, namespace).await?;
    let before = names(cluster).await?;
    let start = Instant::now();
    let loads = crowd.load(LOAD).await?;
    change().await?;
    cluster.agents_ready().await?;
    let took = start.elapsed();
    println!("all agents are new after {took:.1?}");
    let after = names(cluster).await?;
    ensure!(
        after.iter().all(|name| !before.contains(name)),
        "no new agents: {before:?}, {after:?}"
    );
    let reports = loads.reports().await?;
    ensure!(took < LOAD, "the load ended before the change: {took:.1?}");
    for report in reports {
        report.flawless(loads.each())?;
    }
    crowd.disperse().await
}

async fn names(cluster: &Cluster) -> Result<Vec<String>> {
    let agents = cluster.agents().await?;
    let name = |pod: &serde_json::Value| Some(pod["metadata"]["name"].as_str()?.to_owned());
    Ok(agents.iter().filter_map(name).collect())
}
