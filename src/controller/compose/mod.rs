//! Composition of the controller: what is started, in which order, and how it ends.
//!
//! Every replica observes, so that the next leader knows everything already; only who holds the lease
//! asks Azure or writes objects. At the end the lease is given back when nothing that was sent under
//! it is under way any more.

mod azure;
mod core;
mod dry_run;
mod term;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::{Histogram, HistogramOpts, Registry};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::core::Core;
use self::term::{Means, Term};
use super::apply::{ApplyMetrics, Paces, Rates};
use super::board::Board;
use super::config::Config;
use super::lease;
use super::managed::{self, Mode};
use super::observe::{self, Observe};
use super::world::Batch;
use crate::kubernetes::watch::Timing;
use crate::kubernetes::{self, Cluster};
use crate::serve::admin::Admin;
use crate::serve::ready::Readiness;
use crate::serve::series::{gauge, registered};
use crate::serve::telemetry::LogLevel;
use crate::serve::{self, ConnMetrics, Drain, signals};
pub use dry_run::{Plans, dry_run};

/// Batches that wait to be taken in.
const BATCHES: usize = 64;
/// Between looks at what has become due without an event.
const TICK: Duration = Duration::from_secs(1);
/// From one working out of all statuses to the next, at least: it costs time by the number of objects.
const REPORT: Duration = Duration::from_millis(250);
/// From a tenth of a millisecond to the two seconds of everything at once.
const SECONDS: [f64; 11] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0,
];

/// Runs the controller until a signal, or until a part of it fails that it cannot do without.
pub async fn run(config: Config, levels: LogLevel) -> anyhow::Result<()> {
    let signals = signals().context("cannot take signals")?;
    let registry = Registry::new();
    let readiness = Readiness::default();
    let observed = readiness.latch("watches");
    let cluster = kubernetes::connect(config.kubeconfig.as_deref()).await?;
    let arm = azure::arm(&config.azure)?;
    let admin = Drain::new();
    let mut tasks = JoinSet::new();
    let pages = Admin {
        registry: registry.clone(),
        readiness,
        log_level: levels,
    };
    serve_admin(&config, pages, &admin, &mut tasks).await?;
    let (batches, incoming) = mpsc::channel(BATCHES);
    tasks.spawn(
        Observe {
            cluster: cluster.clone(),
            batches,
            latch: observed,
            metrics: observe::metrics(&registry)?,
            timing: Timing::default(),
        }
        .run(),
    );
    let mode = follow_marker(&config, &cluster, &mut tasks);
    let settings = lease::Settings::new(&config.namespace, &config.lease, &config.name);
    let (guard, keeper) = lease::lease(&cluster, settings);
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
    let keeping = tokio::spawn(keeper.run(
        stop.clone().cancelled_owned(),
        stopped.clone().cancelled_owned(),
    ));
    let means = Means {
        managed: managed_settings(&config, &cluster, &signals.first).await?,
        cluster,
        arm,
        guard,
        pace: config.pace,
        paces: Arc::new(Paces::new(Rates::default())),
        board: Arc::new(Board::default()),
        metrics: Arc::new(ApplyMetrics::register(&registry)?),
        mode,
        name: config.name.clone(),
    };
    let core = Core::new(reconcile_seconds(&registry)?);
    let failed = tokio::select! {
        ended = lead(&means, core, incoming, &registry, &signals.first) => ended.err(),
        Some(ended) = tasks.join_next() => Some(ended?.err().unwrap_or_else(|| anyhow::anyhow!("a task ended too early"))),
    };
    stop.cancel();
    stopped.cancel();
    let _ = keeping.await;
    let ended = admin
        .complete(config.drain, signals.second.cancelled())
        .await;
    tracing::info!(?ended, "ended");
    failed.map_or(Ok(()), Err)
}

/// Takes in what is observed, and works while this process leads. Ends with the signal.
async fn lead(
    means: &Means,
    mut core: Core,
    mut batches: mpsc::Receiver<Batch>,
    registry: &Registry,
    end: &CancellationToken,
) -> anyhow::Result<()> {
    let leads = gauge(
        registry,
        "lanyard_controller_leader",
        "1 while this one holds the lease and works, 0 while it stands by.",
    )?;
    let mut term: Option<Term> = None;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = means.board.subscribe();
    // What is told to people is worked out anew a short while after something changed, not each time.
    let (mut changed, mut report_at) = (true, tokio::time::Instant::now());
    loop {
        tokio::select! {
            () = end.cancelled() => break,
            () = means.guard.lost(), if term.is_some() => {
                tracing::warn!("the lease is lost: nothing is written any more until it is held again");
                leads.set(0);
                // Not waited for: the next leader may work already, and each write has its own end.
                term = None;
            }
            batch = batches.recv() => {
                let batch = batch.context("nobody observes any more")?;
                let taken = core.take(batch);
                changed |= !taken.changes.is_empty();
                if let Some(term) = &mut term {
                    term.pass_on(&core, &taken);
                }
            }
            Ok(()) = told.changed() => changed = true,
            () = tokio::time::sleep_until(report_at), if changed && term.is_some() => {
                if let Some(term) = &mut term {
                    term.report(&core);
                }
                (changed, report_at) = (false, tokio::time::Instant::now() + REPORT);
            }
            _ = tick.tick() => if let Some(term) = &mut term {
                term.tick(&core);
            },
        }
        if term.is_none() && core.complete && means.guard.until().is_some() {
            term = begin(means, &core).await;
            leads.set(i64::from(term.is_some()));
            changed = true;
        }
    }
    if let Some(term) = term {
        term.end().await;
    }
    Ok(())
}

async fn begin(means: &Means, core: &Core) -> Option<Term> {
    match Term::begin(means, core).await {
        Ok(term) => {
            tracing::info!("leading: the records are read");
            Some(term)
        }
        Err(error) => {
            tracing::warn!(%error, "the records cannot be read; trying again");
            None
        }
    }
}

/// Metrics and health.
async fn serve_admin(
    config: &Config,
    admin: Admin,
    drain: &Drain,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let conn = ConnMetrics::new(&admin.registry, "admin")?;
    let (address, drain) = (config.admin, drain.clone());
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("--metrics-address {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "metrics and health");
    tasks.spawn(async move {
        serve::serve(listener, Admin::limits(), admin, drain.clone(), conn).await;
        anyhow::ensure!(drain.is_draining(), "the admin listener ended");
        Ok(())
    });
    Ok(())
}

/// Whether Lanyard is being removed.
fn follow_marker(
    config: &Config,
    cluster: &Cluster,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> watch::Receiver<Mode> {
    let (mode, is) = watch::channel(Mode::Serve);
    if let Some(marker) = config.removal_marker.clone() {
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
            () = tokio::time::sleep(TICK) => {}
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

fn reconcile_seconds(registry: &Registry) -> prometheus::Result<Histogram> {
    let opts = HistogramOpts::new(
        "lanyard_controller_reconcile_seconds",
        "Time to take in what was observed together and to work out what is wanted because of it.",
    );
    registered(
        registry,
        Histogram::with_opts(opts.buckets(SECONDS.to_vec()))?,
    )
}
