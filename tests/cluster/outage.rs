//! Invariant 7 on a real cluster: the API server may be away.
//!
//! In: a cluster with Lanyard, load on both nodes. Out: passed, or the requests that failed and when;
//! how long a killed agent's node was without answers. Blocks for the outage, a minute.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};

use crate::cast::{GRANTED, PAYMENTS};
use crate::clients::{Asker, Report, image};
use crate::cluster::Cluster;
use crate::loads::Crowd;
use crate::pods::Pod;

const NAMESPACE: &str = "outage";
/// The API server is away for this long …
const OUTAGE: Duration = Duration::from_mins(1);
/// … and the agents are killed after this part of it.
const BEFORE_KILL: Duration = Duration::from_secs(25);
/// Start, outage, and some time after.
const LOAD: Duration = Duration::from_secs(90);
/// kubelet looks once a second, and a start takes a moment.
const RECOVERY: SignedDuration = SignedDuration::from_secs(15);
const AGAIN: Duration = Duration::from_secs(90);

/// The API server away for a minute, agents killed in the middle of it: pods known before are served.
pub async fn known_pods_are_served_while_the_api_server_is_away(cluster: &Cluster) -> Result<()> {
    let crowd = Crowd::gather(cluster, NAMESPACE).await?;
    let loads = crowd.load(LOAD).await?;
    // Not stopped politely: it would take a minute over its watches.
    cluster.apiserver().kill().await?;
    let killed = during_the_outage(cluster).await;
    // Whatever happened: other trials need it.
    cluster.apiserver().start().await?;
    let killed = killed?;

    let ready = async || Ok(cluster.kubectl(&["get", "--raw", "/readyz"]).await.is_ok());
    cluster.wait_for("the API server", AGAIN, ready).await?;
    let reports = loads.reports().await?;
    let judged = reports
        .iter()
        .map(|report| served_but_for_the_restart(report, killed, loads.each()));
    // All of them first: what one node saw explains the other.
    let judged: Vec<_> = judged.collect();
    judged.into_iter().collect::<Result<()>>()?;
    cluster.nodes_ready().await?;
    cluster.agents_ready().await?;
    a_new_pod_is_served(cluster).await?;
    crowd.disperse().await
}

/// Kills both agents in the middle; gives when. The times are the scenario's own: nothing is waited for.
async fn during_the_outage(cluster: &Cluster) -> Result<Timestamp> {
    let outage = tokio::time::Instant::now();
    tokio::time::sleep_until(outage + BEFORE_KILL).await;
    let killed = Timestamp::now();
    for node in cluster.nodes() {
        node.shell("pkill -KILL -f '^/usr/local/bin/lanyard agent '")
            .await?;
    }
    tokio::time::sleep_until(outage + OUTAGE).await;
    ensure!(
        cluster.kubectl(&["get", "--raw", "/readyz"]).await.is_err(),
        "the API server answered all the time"
    );
    Ok(killed)
}

/// Failures only while there was no agent; nearly all of the load was sent after that.
fn served_but_for_the_restart(report: &Report, killed: Timestamp, each: u64) -> Result<()> {
    ensure!(
        report.sent >= each,
        "{}: only {} sent",
        report.name,
        report.sent
    );
    let failures = report.failures.clone().unwrap_or_default();
    ensure!(
        failures.len() as u64 == report.failed,
        "{}: {} failed ({:?}), too many to be shown",
        report.name,
        report.failed,
        report.failed_by_kind
    );
    let last = failures.iter().map(|failure| failure.at).max();
    let without = last.map_or(SignedDuration::ZERO, |last| last.duration_since(killed));
    println!(
        "{}: {} of {} served; {:.1} s without an answer after the agent was killed ({:?}), max {:.1} s",
        report.name,
        report.ok,
        report.sent,
        without.as_secs_f64(),
        report.failed_by_kind,
        report.max_seconds
    );
    // A request may have been under way when the agent was killed.
    let outside = failures.iter().find(|failure| {
        let sent = failure.at.duration_since(killed).as_secs_f64();
        sent + failure.seconds < 0.0 || sent > RECOVERY.as_secs_f64()
    });
    ensure!(
        outside.is_none(),
        "{}: {outside:?} (killed {killed})",
        report.name
    );
    Ok(())
}

/// The watches work again.
async fn a_new_pod_is_served(cluster: &Cluster) -> Result<()> {
    let image = image(cluster).await?;
    for (number, name) in [(1, "late-1"), (2, "late-2")] {
        let pod = Pod::new(NAMESPACE, name, number)
            .identity(PAYMENTS.name)
            .labels(GRANTED);
        cluster.run_pod(&pod.image(&image)).await?;
        let said = Asker::new(cluster, NAMESPACE, name)
            .client("curl", &["token"])
            .await?;
        ensure!(said["client_id"] == PAYMENTS.client_id, "{name}: {said}");
    }
    Ok(())
}
