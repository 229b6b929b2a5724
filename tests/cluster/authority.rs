//! Entra ID may be away: tokens last, then the answers say what is wrong, then everything is well again.
//!
//! In: a cluster with Lanyard. Out: passed, or the requests that failed and when. Blocks for the outage, five minutes: half
//! of it nothing answers, half of it 503. Tokens live four minutes, so that they end before it does.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use lanyard::sim::faults::Effect;

use crate::clients::{self, Asker, Report};
use crate::cluster::Cluster;
use crate::plan::NODES;
use crate::rolling::{fault, living};
use crate::sources::verified;
use crate::stage::{self, BY_PEM, FEDERATED};

const NAMESPACE: &str = "away";
const LIFE: Duration = Duration::from_mins(4);
const AWAY: Duration = Duration::from_mins(5);
/// The outage, and what comes after it.
const LOAD: Duration = Duration::from_secs(345);
const RATE: u64 = 25;
/// A token is handed out until 30 s before its end.
const LEFT: SignedDuration = SignedDuration::from_secs(32);
/// Whoever was asked in vain is not asked for this long, and a try takes its time.
const RECOVERY: SignedDuration = SignedDuration::from_secs(40);
const PODS: [&str; 2] = ["patient-1", "patient-2"];

/// Entra ID away for five minutes: no failure while tokens last, clear errors after, tokens again at its end.
pub async fn tokens_last_while_entra_is_away_and_errors_are_clear_after(
    cluster: &Cluster,
) -> Result<()> {
    stage::raise(cluster).await?;
    let image = clients::image(cluster).await?;
    stage::five(cluster, NAMESPACE).await?;
    let azure = cluster.azure();
    let played = async {
        for source in [BY_PEM, FEDERATED] {
            azure.add_fault(&living(LIFE, &source)).await?;
        }
        let (mut loads, mut ends) = (Vec::new(), Vec::new());
        for (plan, name) in NODES.iter().zip(PODS) {
            let pod = stage::pod(NAMESPACE, name, plan.number.into(), &image);
            cluster.run_pod(&pod).await?;
        }
        for name in PODS {
            for source in [BY_PEM, FEDERATED] {
                let claims = verified(cluster, NAMESPACE, name, &source, "").await?;
                ends.push(Timestamp::from_second(
                    claims["exp"].as_i64().unwrap_or_default(),
                )?);
            }
        }
        azure.clear_faults().await?;
        azure.add_fault(&fault(Effect::Silence)).await?;
        let start = tokio::time::Instant::now();
        for name in PODS {
            let asker = Asker::new(cluster, NAMESPACE, name);
            for source in [BY_PEM, FEDERATED] {
                let flags = format!("--rate {RATE} --client-id {}", source.client_id);
                loads.push(asker.load(source.name, LOAD, &flags).await?);
            }
        }
        tokio::time::sleep_until(start + AWAY / 2).await;
        azure.clear_faults().await?;
        let body = "<html>Service Unavailable</html>".to_owned();
        azure
            .add_fault(&fault(Effect::Status {
                code: 503,
                retry_after: None,
                body: Some(body),
            }))
            .await?;
        tokio::time::sleep_until(start + AWAY).await;
        azure.clear_faults().await?;
        let back = Timestamp::now();
        let mut judged = Vec::new();
        for (load, end) in loads.iter().zip(ends) {
            judged.push(lasted(&load.report().await?, end, back));
        }
        judged.into_iter().collect::<Result<()>>()
    };
    let played = played.await;
    azure.clear_faults().await?;
    played?;
    stage::leave(cluster, NAMESPACE).await
}

/// Failures only between the token's end and Entra's return, each a 503 in JSON.
fn lasted(report: &Report, end: Timestamp, back: Timestamp) -> Result<()> {
    let failures = report.failures.as_deref().unwrap_or_default();
    let [Some(first), Some(last)] = [failures.first(), failures.last()] else {
        anyhow::bail!("{}: no token ended during the outage", report.name);
    };
    println!(
        "{}: {} of {} failed, the first {:#} before its token's end, the last {:#} after Entra's return",
        report.name,
        report.failed,
        report.sent,
        end.duration_since(first.at),
        last.at.duration_since(back),
    );
    ensure!(
        failures.len() as u64 == report.failed,
        "{}: too many to be shown",
        report.name
    );
    ensure!(
        report.sent >= LOAD.as_secs() * RATE,
        "{}: only {} sent",
        report.name,
        report.sent
    );
    let early = failures
        .iter()
        .find(|one| end.duration_since(one.at) > LEFT);
    ensure!(
        early.is_none(),
        "{}: the token lasted until {end}: {early:#?}",
        report.name
    );
    let late = failures
        .iter()
        .rfind(|one| one.at.duration_since(back) > RECOVERY);
    ensure!(
        late.is_none(),
        "{}: Entra was back at {back}: {late:#?}",
        report.name
    );
    let unclear = failures.iter().find(|one| {
        one.kind != "status 503"
            || !one.detail.starts_with("{\"error\":")
            || one.detail.contains("html")
    });
    ensure!(unclear.is_none(), "{}: {unclear:#?}", report.name);
    let slow = failures.iter().find(|one| one.seconds > 9.0);
    ensure!(slow.is_none(), "{}: {slow:#?}", report.name);
    Ok(())
}
