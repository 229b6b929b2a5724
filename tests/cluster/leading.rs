//! One controller works, the other follows: killed between a PATCH and its end, or gone with its node.
//!
//! In: a cluster with Lanyard. Out: passed, with the times without a leader. Blocks for a lease's length and a node's boot.
//! Invariant: whoever follows finds what was begun, and asks Azure for nothing twice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::sim::arm::Operations;
use serde_json::Value;

use crate::asking::now;
use crate::cluster::Cluster;
use crate::plan::{NODES, POOL};
use crate::release::NAMESPACE as RELEASED;
use crate::steering::{self, Auth, LIMIT};

/// From a leader's end to the next one's first word.
const FAILOVER: f64 = 20.0;
const CONTROLLERS: Duration = Duration::from_mins(2);
/// Ends the controllers of a node as the kernel would that runs out of memory.
const KILL: &str = "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" in \
                    '/usr/local/bin/lanyard controller '*) kill -KILL ${p#/proc/};; esac; done";

/// Killed when Azure is at work on its PATCH: the next one waits for that, and owns what came of it.
pub async fn a_leader_killed_after_its_patch_is_followed(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "relay";
    const NAME: &str = "baton";
    steering::raise(cluster, Auth::Federated).await?;
    steering::make(cluster, NAMESPACE, &[NAME]).await?;
    cluster
        .run_pod(&steering::pod(NAMESPACE, "runner", 1, NAME))
        .await?;
    let node = apart(cluster).await?;
    let azure = cluster.azure();
    azure.set_operations(POOL, Operations::Hold).await?;
    let mark = cluster.mark().await?;
    steering::bind(cluster, NAMESPACE, &[NAME]).await?;
    cluster
        .wait_for("the PATCH", LIMIT, async || {
            Ok(!steering::patches(cluster, mark).await?.is_empty())
        })
        .await?;
    let before = steering::holder(cluster).await?;
    let killed = now();
    cluster.node(node).shell(KILL).await?;
    azure.set_operations(POOL, Operations::World).await?;
    azure.release(POOL, None).await?;
    let after = steering::leader_beside(cluster, &[&before]).await?;
    led(&before, &after, killed)?;
    steering::reach(cluster, &[NAME], "Assigned").await?;
    let api = steering::kind(cluster, "AzureAssignment", None).await?;
    let seen = steering::seen(&api, &steering::resource_id(NAME)).await?;
    ensure!(
        seen.owned,
        "nobody owns what the killed one added: {seen:?}"
    );
    let patches = steering::patches(cluster, mark).await?;
    ensure!(patches.len() == 1, "{patches:#?}");
    both_run(cluster).await?;
    steering::leave(cluster, NAMESPACE, &[NAME]).await
}

/// The leader's node reboots: the other one leads, and does what is wanted meanwhile.
pub async fn the_leaders_node_reboots(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "rebooted";
    const NAME: &str = "survivor";
    steering::raise(cluster, Auth::Federated).await?;
    steering::make(cluster, NAMESPACE, &[NAME]).await?;
    let number = apart(cluster).await?;
    let other = if number == 1 { 2 } else { 1 };
    cluster
        .run_pod(&steering::pod(NAMESPACE, "runner", other, NAME))
        .await?;
    let before = steering::holder(cluster).await?;
    let node = cluster.node(number);
    let off = now();
    node.power_off().await?;
    let played = async {
        let after = steering::leader_beside(cluster, &[&before]).await?;
        led(&before, &after, off)?;
        steering::bind(cluster, NAMESPACE, &[NAME]).await?;
        steering::reach(cluster, &[NAME], "Assigned")
            .await
            .map(drop)
    };
    let played = played.await;
    node.power_on().await?;
    played?;
    cluster.nodes_ready().await?;
    cluster.agents_ready().await?;
    both_run(cluster).await?;
    steering::leave(cluster, NAMESPACE, &[NAME]).await
}

fn led(before: &str, after: &str, since: f64) -> Result<()> {
    let took = now() - since;
    println!("{before} → {after}: {took:.1} s");
    ensure!(took < FAILOVER, "{took:.1} s without a leader");
    Ok(())
}

/// Waits until both are ready, each on its own node; gives the number of the leader's.
pub async fn apart(cluster: &Cluster) -> Result<usize> {
    both_run(cluster).await?;
    let leader = steering::leader(cluster).await?;
    let pods = steering::controllers(cluster).await?;
    let node = |pod: &Value| pod["spec"]["nodeName"].as_str().map(str::to_owned);
    let own = pods
        .iter()
        .find(|pod| pod["metadata"]["name"] == leader.as_str());
    let own = own.and_then(node).context("the leader is on no node")?;
    let here = pods.iter().filter(|pod| node(pod).as_deref() == Some(&own));
    ensure!(here.count() == 1, "both are on {own}: {pods:#?}");
    let plan = NODES.iter().find(|plan| plan.name() == own);
    Ok(plan.context(own)?.number.into())
}

/// Waits until both are ready.
pub async fn both_run(cluster: &Cluster) -> Result<()> {
    let what = "both controllers to be ready";
    cluster
        .wait_for(what, CONTROLLERS, async || {
            let args = ["deployment", "lanyard-controller", "-n", RELEASED];
            let deployment = cluster.get(&args).await?;
            let status = &deployment["status"];
            ensure!(
                status["readyReplicas"] == 2 && status["replicas"] == 2,
                "{status:#}"
            );
            Ok(steering::controllers(cluster).await?.len() == 2)
        })
        .await
}
