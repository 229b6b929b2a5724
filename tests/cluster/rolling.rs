//! Credentials roll by themselves: replaced and revoked under load, and nobody notices.
//!
//! In: a cluster with Lanyard. Out: how soon a new credential was used; an error with the requests that failed. Blocks for
//! the load, a minute. Tokens live shortly here, so that they are renewed all the time. The times are the scenario's own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use lanyard::sim::Entry;
use lanyard::sim::faults::{Effect, Fault, Matching, Target};
use lanyard::sim::world::Secret;

use crate::clients::{self, Asker};
use crate::cluster::Cluster;
use crate::papers::{self, Paper};
use crate::plan::NODES;
use crate::sources::asked;
use crate::stage::{self, BY_PEM, BY_SECRET, Sourced};

const NAMESPACE: &str = "rolling";
const LOAD: Duration = Duration::from_mins(1);
const RATE: u64 = 50;
/// When, from the load's start, the secret and the certificate are replaced.
const SECRET_AT: Duration = Duration::from_secs(10);
const CERTIFICATE_AT: Duration = Duration::from_secs(32);
/// What a new token lives meanwhile.
const LIFE: Duration = Duration::from_secs(90);
/// From the Secret's change to a token by what is in it.
const SOON: SignedDuration = SignedDuration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(20);

/// First the secret, then the certificate: replaced in the Secret, the old one revoked; no request fails.
pub async fn a_secret_and_a_certificate_roll_under_load(cluster: &Cluster) -> Result<()> {
    stage::raise(cluster).await?;
    let image = clients::image(cluster).await?;
    let old = stage::five(cluster, NAMESPACE).await?;
    let mark = cluster.mark().await?;
    for source in [BY_SECRET, BY_PEM] {
        cluster.azure().add_fault(&living(LIFE, &source)).await?;
    }
    let mut loads = Vec::new();
    for (plan, name) in NODES.iter().zip(["busy-1", "busy-2"]) {
        let pod = stage::pod(NAMESPACE, name, plan.number.into(), &image);
        cluster.run_pod(&pod).await?;
    }
    let start = tokio::time::Instant::now();
    for name in ["busy-1", "busy-2"] {
        let asker = Asker::new(cluster, NAMESPACE, name);
        for (source, connections) in [(BY_SECRET, "keepalive"), (BY_PEM, "new")] {
            let flags = format!(
                "--rate {RATE} --connections {connections} --client-id {}",
                source.client_id
            );
            loads.push(asker.load(source.name, LOAD, &flags).await?);
        }
    }
    let rolled = async {
        tokio::time::sleep_until(start + SECRET_AT).await;
        roll_secret(cluster, &old.secret).await?;
        tokio::time::sleep_until(start + CERTIFICATE_AT).await;
        roll_certificate(cluster, &old.certificate).await
    };
    let rolled = rolled.await;
    let mut reports = Vec::new();
    for load in &loads {
        reports.push(load.report().await?);
    }
    cluster.azure().clear_faults().await?;
    let judged: Vec<_> = reports
        .iter()
        .map(|report| report.flawless(LOAD.as_secs() * RATE))
        .collect();
    judged.into_iter().collect::<Result<()>>()?;
    rolled?;
    for source in [BY_SECRET, BY_PEM] {
        let entries = asked(cluster, mark, &source).await?;
        let refused = entries.iter().find(|entry| entry.status != Some(200));
        ensure!(
            refused.is_none(),
            "{}: Entra refused: {refused:#?}",
            source.name
        );
        println!(
            "{}: {} tokens were asked for meanwhile",
            source.name,
            entries.len()
        );
    }
    cluster.no_leaks(mark).await?;
    stage::leave(cluster, NAMESPACE).await
}

async fn roll_secret(cluster: &Cluster, old: &str) -> Result<()> {
    let value = papers::secret();
    let secret = Secret {
        value: value.clone(),
        expires: None,
    };
    let id = cluster
        .azure()
        .add_secret(BY_SECRET.principal, &secret)
        .await?;
    let texts = [("clientSecret", value.as_str())];
    let manifest = papers::manifest(NAMESPACE, "till-secret", "Opaque", &texts);
    replaced(cluster, &BY_SECRET, &manifest, &format!("secret:{id}")).await?;
    Ok(cluster
        .azure()
        .revoke_secret(BY_SECRET.principal, old)
        .await?)
}

async fn roll_certificate(cluster: &Cluster, old: &str) -> Result<()> {
    let paper = Paper::rsa("ledger, renewed")?;
    let id = cluster
        .azure()
        .add_certificate(BY_PEM.principal, &paper.certificate)
        .await?;
    let manifest = paper.manifest(NAMESPACE, "ledger-tls");
    replaced(cluster, &BY_PEM, &manifest, &format!("certificate:{id}")).await?;
    Ok(cluster
        .azure()
        .revoke_certificate(BY_PEM.principal, old)
        .await?)
}

/// Changes the Secret and waits for the first token by the new credential, on each node.
async fn replaced(
    cluster: &Cluster,
    source: &Sourced,
    manifest: &str,
    credential: &str,
) -> Result<()> {
    let mark = cluster.mark().await?;
    cluster.apply(manifest).await?;
    let changed = Timestamp::now();
    for plan in NODES {
        let mut first = None;
        let what = format!(
            "{}: a token by the new credential on {}",
            source.name,
            plan.name()
        );
        let came = async || {
            let entries = asked(cluster, mark, source).await?;
            let new = |entry: &&Entry| {
                let exchange = entry.exchange.as_ref();
                let by = exchange.and_then(|exchange| exchange.credential.as_deref());
                entry.status == Some(200)
                    && by.is_some_and(|by| by.eq_ignore_ascii_case(credential))
                    && entry.source_ip() == Some(plan.address().into())
            };
            first = entries.iter().find(new).map(|entry| entry.time);
            ensure!(first.is_some(), "last asked: {:#?}", entries.last());
            Ok(true)
        };
        cluster.wait_for(&what, LIMIT, came).await?;
        let took = first.context("a time")?.duration_since(changed);
        println!("{what}: {} ms after the Secret's change", took.as_millis());
        ensure!(took <= SOON, "{what}: only after {took:#}");
    }
    Ok(())
}

/// Tokens of that identity live so long.
pub fn living(life: Duration, source: &Sourced) -> Fault {
    let matching = Matching {
        client_id: Some(source.client_id.to_owned()),
        ..Matching::default()
    };
    Fault {
        matching,
        ..fault(Effect::Lifetime(life))
    }
}

/// Something that Entra ID does to every request until it is told otherwise.
pub fn fault(effect: Effect) -> Fault {
    Fault {
        target: Target::Entra,
        matching: Matching::default(),
        after: 0,
        count: None,
        latency: None,
        effect: Some(effect),
        applied: false,
    }
}
