//! Composition of the agent: what is started, in which order, and how it ends.
//!
//! The order matters twice. The listener listens before the rules point at it (no rule ever points
//! at a port where nobody listens). And at the end the rules stay: with nobody behind them pods are
//! refused, which is what fail-closed means.

mod feed;
mod ground;
mod host_token;
mod hosts;
mod inside;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::audit::Audit;
use crate::agent::config::{Config, Enforcement, NodeMode, Source};
use crate::agent::credentials::Credentials;
use crate::agent::directory::Published;
use crate::agent::events::Events;
use crate::agent::forward::Forwarder;
use crate::agent::gate::Gate;
use crate::agent::intercept::{self, InterceptConfig, InterceptMetrics, Ownership};
use crate::agent::locate::Locator;
use crate::agent::metrics::AgentMetrics;
use crate::agent::observe::{self, Local, Observer};
use crate::agent::obtain::{self, Broker, Sources};
use crate::agent::pipeline::Pipeline;
use crate::azure::relay::Relay;
use crate::kubernetes::{self, Cluster};
use crate::serve::admin::Admin;
use crate::serve::ready::{Latch, Readiness};
use crate::serve::telemetry::LogLevel;
use crate::serve::{self, ConnMetrics, Drain, clock, limits, signals};

/// How often repeated decisions are told.
const AUDIT_PERIOD: Duration = Duration::from_mins(1);
/// How long removing the rules may take at the end of an agent that only observes.
const OPEN_AGAIN: Duration = Duration::from_secs(5);
/// Connections at the health socket at once.
const HEALTH_CONNECTIONS: usize = 16;
/// Pause between attempts to take a listening address that another instance still has.
const BIND_PAUSE: Duration = Duration::from_millis(200);

/// Runs the agent until a signal, or until a part of it fails that it cannot do without.
pub async fn run(config: Config, levels: LogLevel) -> anyhow::Result<()> {
    let signals = signals().context("cannot take signals")?;
    limits::raise_open_files().context("cannot raise the limit of open files")?;
    let registry = Registry::new();
    let readiness = Readiness::default();
    // Before anybody can ask: readiness without a latch would say "ready".
    let rules = readiness.latch("rules");
    let cluster = connect(&config).await?;
    let gate = Gate::prepare(&config, cluster.as_ref(), &registry, &readiness).await?;
    // The admin pages are not waited for: an idle scraper must not hold a drain to its deadline.
    let (drain, admin) = (Drain::new(), Drain::new());
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    let keeping = stop.child_token();

    let (pipeline, credentials) = pipeline(&config, cluster.as_ref(), &registry)?;
    let pipeline = Arc::new(pipeline);
    let pages = Admin {
        registry: registry.clone(),
        readiness: readiness.clone(),
        log_level: levels,
    };
    let local = Local {
        pages: pages.clone(),
        observed: {
            let observer = pipeline.observer.clone();
            Arc::new(move || observer.report())
        },
    };
    serve_health(&config, local, &admin, &mut tasks)?;
    serve_admin(&config, pages, &admin, &mut tasks)?;
    let parts = feed::Parts {
        pipeline: pipeline.clone(),
        credentials,
        registry: &registry,
        readiness: &readiness,
    };
    feed::feed(&config, cluster.clone(), parts, &stop, &mut tasks).await?;
    let owned = serve_pods(
        &config,
        &pipeline,
        &registry,
        rules,
        !gate.is_to_leave(),
        &drain,
        &keeping,
        &mut tasks,
    )
    .await?;
    let leaving = inside::serve(&config, &pipeline, &registry, &drain, &owned, &mut tasks)?;
    host_token::serve(
        &config, cluster, &pipeline, &registry, &owned, &drain, &mut tasks,
    )?;
    gate.start(&config, &owned, &leaving, &mut tasks);
    tell_repeats(&pipeline, &mut tasks);

    let failed = tokio::select! {
        () = signals.first.cancelled() => None,
        Some(ended) = tasks.join_next() => Some(ended),
    };
    pipeline.broker.set_draining();
    admin.begin();
    if pipeline.observer.is_observing() {
        open_again(&keeping, owned.clone()).await;
    }
    let ended = drain
        .complete(config.drain, signals.second.cancelled())
        .await;
    tracing::info!(?ended, "drained");
    if !pipeline.observer.is_observing() {
        tracing::info!("the rules stay, so that pods never reach the node's identity");
    }
    admin.cut();
    stop.cancel();
    // With the tasks goes this instance's lock: only then is it known whether another one lives.
    tasks.shutdown().await;
    let left = *owned.borrow() == Ownership::Removed;
    intercept::forget_removed(&config.state_dir, left).await;
    match failed {
        None => Ok(()),
        Some(ended) => ended
            .context("a task ended badly")?
            .and(Err(anyhow::anyhow!("a task ended too early"))),
    }
}

/// The API server, where the agent's source is Kubernetes. Nothing is asked yet.
async fn connect(config: &Config) -> anyhow::Result<Option<Cluster>> {
    Ok(match &config.source {
        Source::Folder(_) => None,
        Source::Kubernetes(source) => {
            Some(kubernetes::connect(source.kubeconfig.as_deref()).await?)
        }
    })
}

/// The pipeline with everything it looks into.
fn pipeline(
    config: &Config,
    cluster: Option<&Cluster>,
    registry: &Registry,
) -> anyhow::Result<(Pipeline<Sources>, Credentials)> {
    let events = Events::register(registry)?;
    let credentials = Credentials::register(registry, events.clone(), clock::since_epoch)?;
    let ground = ground::ground(config, credentials.clone(), cluster)?;
    let imds = ground.imds.clone();
    let directory = Arc::new(Published::default());
    let pod_wait = match config.enforcement {
        Enforcement::Enforce => config.pod_wait,
        Enforcement::Observe => config.pod_wait.min(observe::POD_WAIT),
    };
    let pipeline = Pipeline {
        locator: Locator::new(directory.clone(), config.inside.mode, pod_wait),
        directory,
        broker: obtain::compose(
            config.obtain,
            ground,
            clock::since_epoch,
            registry,
            TaskTracker::new(),
        )?,
        forwarder: Forwarder::new(imds),
        audit: Arc::new(Audit::default()),
        observer: Arc::new(Observer::register(
            config.enforcement,
            Relay::marked(&config.imds_endpoint, config.own_sockets())
                .context("--imds-endpoint")?,
            registry,
        )?),
        events,
        metrics: Arc::new(AgentMetrics::register(registry)?),
    };
    ground::renew_with(&credentials, &pipeline.broker);
    Ok((pipeline, credentials))
}

/// The same pages for who is in this container.
fn serve_health(
    config: &Config,
    pages: Local<Admin>,
    drain: &Drain,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let Some(path) = &config.health_socket else {
        return Ok(());
    };
    let listener =
        serve::local::bind(path).with_context(|| format!("--health-socket {}", path.display()))?;
    let drain = drain.clone();
    spawn(tasks, async move {
        serve::local::serve(listener, HEALTH_CONNECTIONS, pages, drain.clone()).await;
        ended_in_drain(&drain, "the health socket")
    });
    Ok(())
}

/// Metrics and health. While another instance still has the address, it is asked for again: the
/// port is handed over when that one drains.
fn serve_admin(
    config: &Config,
    admin: Admin,
    drain: &Drain,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let conn = ConnMetrics::new(&admin.registry, "admin")?;
    let (address, drain) = (config.admin, drain.clone());
    spawn(tasks, async move {
        let listener = bind_patiently("--admin-listen", address).await?;
        serve::serve(listener, Admin::limits(), admin, drain.clone(), conn).await;
        ended_in_drain(&drain, "the admin listener")
    });
    Ok(())
}

async fn bind_patiently(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                if !told {
                    tracing::warn!(
                        %address,
                        "in use, probably by the instance that this one replaces; waiting for it"
                    );
                    told = true;
                }
                tokio::time::sleep(BIND_PAUSE).await;
            }
            Err(error) => return Err(error).with_context(|| format!("{flag} {address}")),
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "composition")]
/// The listener, then the rules that lead to it.
async fn serve_pods(
    config: &Config,
    pipeline: &Arc<Pipeline<Sources>>,
    registry: &Registry,
    rules: Latch,
    lay_rules: bool,
    drain: &Drain,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<watch::Receiver<Ownership>> {
    intercept::claim_address(config.agent_address)
        .await
        .context("cannot own the agent's address")?;
    let address = (config.agent_address, config.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address:?}"))?;
    let port = listener.local_addr()?.port();
    tracing::info!(address = %config.agent_address, port, "listening for pods");
    let conn = ConnMetrics::new(registry, "pods")?;
    let server = serve::serve(
        listener,
        config.limits,
        pipeline.clone(),
        drain.clone(),
        conn,
    );
    let drained = drain.clone();
    spawn(tasks, async move {
        server.await;
        ended_in_drain(&drained, "the listener for pods")
    });
    let hosts = hosts::serve(config, pipeline, registry, drain, tasks).await?;
    let (ownership, owned) = watch::channel(Ownership::Pending);
    spawn(
        tasks,
        share_upstream(pipeline.broker.clone(), owned.clone(), drain.clone()),
    );
    let intercept = InterceptConfig {
        backend: config.backend,
        agent_address: config.agent_address,
        guard_wire_server: config.guard_wire_server,
        state_dir: config.state_dir.clone(),
        hosts,
        open: config.enforcement == Enforcement::Observe,
        enters_pods: config.inside.mode != NodeMode::Redirect,
    };
    let metrics = InterceptMetrics::register(registry)?;
    if !lay_rules {
        rules.not_ready("Lanyard is being removed: no rules are laid");
        ownership.send_replace(Ownership::Removed);
        spawn(tasks, async move {
            ownership.closed().await;
            anyhow::bail!("nobody asks for the rules any more")
        });
        return Ok(owned);
    }
    let keeper = intercept::run_keeper(intercept, port, rules, metrics, stop.clone(), ownership);
    spawn(tasks, async move {
        keeper.await;
        anyhow::bail!("nobody keeps the rules any more")
    });
    Ok(owned)
}

/// Where the agent only observes, its end must not be an outage: the rules go before the listener does.
async fn open_again(keeping: &CancellationToken, mut owned: watch::Receiver<Ownership>) {
    keeping.cancel();
    let gone = async { while owned.changed().await.is_ok() {} };
    if tokio::time::timeout(OPEN_AGAIN, gone).await.is_err() {
        tracing::error!(
            "the rules were not removed in time: pods are refused until an agent starts"
        );
    }
}

/// IMDS's limits are the node's: an instance that stood down leaves them to the one that serves.
async fn share_upstream(
    broker: Arc<Broker<Sources>>,
    mut owned: watch::Receiver<Ownership>,
    drain: Drain,
) -> anyhow::Result<()> {
    while owned.changed().await.is_ok() {
        match *owned.borrow_and_update() {
            Ownership::StoodDown { .. } => broker.set_draining(),
            Ownership::Owner { .. } if !drain.is_draining() => broker.resume(),
            Ownership::Owner { .. } | Ownership::Pending | Ownership::Removed => {}
        }
    }
    anyhow::bail!("nobody keeps the rules any more")
}

fn tell_repeats(pipeline: &Pipeline<Sources>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let (audit, observer) = (pipeline.audit.clone(), pipeline.observer.clone());
    tokio::spawn(async move { observer.remind().await });
    spawn(tasks, async move {
        loop {
            tokio::time::sleep(AUDIT_PERIOD).await;
            audit.tell_repeats();
        }
    });
}

/// A part that the agent cannot do without: when one ends, the agent does.
fn spawn(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    tasks.spawn(part);
}

fn ended_in_drain(drain: &Drain, what: &str) -> anyhow::Result<()> {
    anyhow::ensure!(drain.is_draining(), "{what} ended");
    Ok(())
}
