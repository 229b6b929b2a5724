//! Composition of the controller: what is started, in which order, and how it ends.
//!
//! Every replica observes, so that the next leader knows everything already; only who holds the lease
//! asks Azure or writes objects. At the end the lease is given back when nothing that was sent under
//! it is under way any more.

mod azure;
mod core;
mod dry_run;
mod lead;
mod metrics;
mod source;
mod term;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::core::Core;
use self::lead::Leader;
use self::source::Source;
use self::term::Means;
use super::apply::{ApplyMetrics, Paces, Rates};
use super::board::Board;
use super::config::Config;
use super::lease::{self, Guard};
use super::managed::{self, Mode};
use crate::kubernetes::Cluster;
use crate::serve::admin::Admin;
use crate::serve::ready::Readiness;
use crate::serve::telemetry::LogLevel;
use crate::serve::{Drain, signals};
pub use dry_run::{Plans, dry_run};

/// Batches that wait to be taken in.
const BATCHES: usize = 64;
/// Between attempts to ask the API server which cluster this is.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs the controller until a signal, or until a part of it fails that it cannot do without.
pub async fn run(config: Config, levels: LogLevel) -> anyhow::Result<()> {
    let signals = signals().context("cannot take signals")?;
    let registry = Registry::new();
    let readiness = Readiness::default();
    let observed = readiness.latch("watches");
    let source = Source::of(&config).await?;
    let arm = azure::arm(&config.azure)?.telling(azure::counting(&registry)?);
    let admin = Drain::new();
    let mut tasks = JoinSet::new();
    let pages = Admin {
        registry: registry.clone(),
        readiness,
        log_level: levels,
    };
    serve_admin(&config, pages, &admin, &mut tasks).await?;
    let (batches, incoming) = mpsc::channel(BATCHES);
    source.observe(
        config.host_network_pods,
        batches,
        observed,
        &registry,
        &mut tasks,
    )?;
    let mode = follow_marker(&config, source.cluster(), &mut tasks);
    let stop = CancellationToken::new();
    let (guard, keeping) = lease(&config, source.cluster(), &stop);
    let managed = match source.cluster() {
        Some(cluster) => Some(managed_settings(&config, cluster, &signals.first).await?),
        None => None,
    };
    let means = Means {
        managed,
        source,
        arm,
        guard,
        pace: config.pace,
        paces: Arc::new(Paces::new(Rates::default())),
        board: Arc::new(Board::default()),
        metrics: Arc::new(ApplyMetrics::register(&registry)?),
        mode,
        name: config.name.clone(),
    };
    let core = Core::new(metrics::reconcile_seconds(&registry)?);
    let leader = Leader::new(means, core, &registry)?;
    let failed = tokio::select! {
        ended = leader.run(incoming, &signals.first) => ended.err(),
        Some(ended) = tasks.join_next() => Some(ended?.err().unwrap_or_else(|| anyhow::anyhow!("a task ended too early"))),
    };
    stop.cancel();
    if let Some(keeping) = keeping {
        let _ = keeping.await;
    }
    let ended = admin
        .complete(config.drain, signals.second.cancelled())
        .await;
    tracing::info!(?ended, "ended");
    failed.map_or(Ok(()), Err)
}

/// Keeps the lease until `stop`; without a cluster nobody else works, and there is none to keep.
fn lease(
    config: &Config,
    cluster: Option<&Cluster>,
    stop: &CancellationToken,
) -> (Guard, Option<JoinHandle<()>>) {
    let Some(cluster) = cluster else {
        return (Guard::forever(), None);
    };
    let settings = lease::Settings::new(&config.namespace, &config.lease, &config.name);
    let (guard, keeper) = lease::lease(cluster, settings);
    let keeping = tokio::spawn(keeper.run(
        stop.clone().cancelled_owned(),
        stop.clone().cancelled_owned(),
    ));
    (guard, Some(keeping))
}

/// Metrics and health.
async fn serve_admin(
    config: &Config,
    admin: Admin,
    drain: &Drain,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let (address, drain) = (config.admin, drain.clone());
    let pages = admin.listen(address, drain.clone()).await;
    let pages = pages.with_context(|| format!("--metrics-address {address}"))?;
    tasks.spawn(async move {
        pages.await;
        anyhow::ensure!(drain.is_draining(), "the admin listener ended");
        Ok(())
    });
    Ok(())
}

/// Whether Lanyard is being removed.
fn follow_marker(
    config: &Config,
    cluster: Option<&Cluster>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> watch::Receiver<Mode> {
    let (mode, is) = watch::channel(Mode::Serve);
    if let Some((marker, cluster)) = config.removal_marker.clone().zip(cluster) {
        let (cluster, namespace) = (cluster.clone(), config.namespace.clone());
        tasks.spawn(async move {
            managed::marker::follow(cluster, namespace, marker, mode).await;
            Ok(())
        });
    }
    is
}

/// Which cluster this is. Asked for until it is known: names in Azure are made of it.
async fn managed_settings(
    config: &Config,
    cluster: &Cluster,
    end: &CancellationToken,
) -> anyhow::Result<managed::Settings> {
    let uid = loop {
        match managed::cluster::uid(cluster).await {
            Ok(uid) => break uid,
            Err(error) => {
                tracing::warn!(%error, "the namespace kube-system cannot be read; trying again");
            }
        }
        tokio::select! {
            () = end.cancelled() => anyhow::bail!("ended before the API server could be asked"),
            () = tokio::time::sleep(AGAIN) => {}
        }
    };
    let issuer = match &config.issuer {
        Some(issuer) => Some(issuer.clone()),
        None => asked_issuer(cluster).await,
    };
    Ok(managed::Settings {
        cluster: uid,
        issuer: issuer.map(Into::into),
        grace: config.pace.removal_grace,
        refresh: config.pace.drift_interval,
    })
}

/// Who issues the cluster's service account tokens, as the API server says.
async fn asked_issuer(cluster: &Cluster) -> Option<String> {
    let found = cluster.issuer().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the API server was asked in vain who issues service account tokens");
        None
    });
    if found.is_none() {
        tracing::warn!(
            "the issuer of service account tokens is not known: name it with --service-account-issuer, or managed identities get no federated credentials"
        );
    }
    found
}
