//! Starts and ends the webhooks.
//!
//! In: a [`Config`]. Out: an answering server, until SIGTERM. Where it guards tokens it blocks on the API
//! server before it calls itself ready: a guard that may not read pods would deny everything. At the end it
//! first says "not ready" and keeps answering, until no API server is sent here any more.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use prometheus::Registry;
use tokio::net::TcpListener;

use super::certificate::{Current, Source};
use super::guard::Guard;
use super::https;
use super::metrics::Metrics;
use super::webhook::Webhook;
use crate::kubernetes::{self, Cluster, Kind};
use crate::serve::ready::{Latch, Readiness};
use crate::serve::{Admin, Drain, LogLevel, signals};

/// How long the cluster may go on sending requests to a pod that is ending.
const STILL_ASKED: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What the webhook needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen at.
    pub address: IpAddr,
    /// Port at it; 0 takes any free one.
    pub port: u16,
    /// Address of metrics, health and the log level.
    pub admin: SocketAddr,
    /// Where its certificate comes from.
    pub certificate: Source,
    /// User name of the agents' service account, whose requests for tokens are judged; `None`: of none.
    pub agents: Option<String>,
    /// Whether pods that ask for them get App Service's variables.
    pub app_service: bool,
    /// Kubeconfig; `None`: the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// How long open connections may take to end.
    pub drain: Duration,
}

/// Runs until a signal.
pub async fn run(config: Config, levels: LogLevel) -> anyhow::Result<()> {
    let signals = signals()?;
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let guard = match config.agents {
        Some(agents) => {
            let cluster = kubernetes::connect(config.kubeconfig.as_deref()).await?;
            Some(Guard { cluster, agents })
        }
        None => None,
    };
    let certificate = Current::open(config.certificate)?;
    let at = SocketAddr::new(config.address, config.port);
    let listener = TcpListener::bind(at).await;
    let listener = listener.with_context(|| format!("cannot listen at {at}"))?;
    let agents = guard.as_ref().map(|guard| &*guard.agents);
    let app_service = config.app_service;
    tracing::info!(address = %listener.local_addr()?, agents, app_service, "answering");
    let (readiness, drain) = (Readiness::default(), Drain::new());
    let stays = readiness.latch("end");
    stays.ready();
    let reads = guard.as_ref();
    let reads = reads.map(|guard| (guard.cluster.clone(), readiness.latch("pods")));
    let pages = Admin {
        registry,
        readiness: readiness.clone(),
        log_level: levels,
    };
    let pages = pages.listen(config.admin, drain.clone()).await;
    let pages = pages.with_context(|| format!("--metrics-address {}", config.admin))?;
    let without_tls = metrics.without_tls.clone();
    let webhook = Webhook::new(guard, app_service, readiness, metrics.clone());
    let tls = certificate.tls()?;
    let serving = https::serve(listener, tls, webhook, drain.clone(), without_tls);
    let ending = async {
        tokio::select! {
            () = signals.first.cancelled() => {}
            () = async { tokio::join!(certificate.follow(metrics), prove(reads)); } => {}
        }
        stays.not_ready("ending");
        tokio::select! {
            () = tokio::time::sleep(STILL_ASKED) => {}
            () = signals.second.cancelled() => {}
        }
        drain
            .complete(config.drain, signals.second.cancelled())
            .await
    };
    tokio::join!(serving, pages, ending);
    Ok(())
}

/// Reads a pod that need not be there, until that works: then questions can be answered.
async fn prove(reads: Option<(Cluster, Latch)>) {
    let Some((cluster, reads)) = reads else {
        return;
    };
    loop {
        match cluster.get(Kind::POD, Some("default"), "none").await {
            Ok(_) => return reads.ready(),
            Err(error) if error.status() == Some(403) => {
                reads.not_ready("may not read pods: the ClusterRole of the chart lets it");
            }
            Err(error) => reads.not_ready(format!("cannot read pods: {error}")),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}
