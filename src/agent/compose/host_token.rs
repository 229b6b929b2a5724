//! Where tokens are given on behalf of pods: a unix socket, a loopback address, or (the default) nowhere.
//!
//! In: the configuration, who owns the node's rules. Out: tasks that listen. The socket's path is taken by the instance
//! that owns the rules, in one step, so that an upgrade loses no request there; a port is handed over when the instance
//! before this one drains.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{bind_patiently, ended_in_drain, spawn};
use crate::agent::config::{Config, Source};
use crate::agent::host_token::{Door, HostToken, ReviewMetrics, Reviews};
use crate::agent::intercept::Ownership;
use crate::agent::obtain::Sources;
use crate::agent::pipeline::Pipeline;
use crate::kubernetes::Cluster;
use crate::serve::{self, ConnMetrics, Drain, Limits, local};

/// Connections at the socket at once.
const CONNECTIONS: usize = 64;
/// Pause before the socket is tried again.
const PAUSE: Duration = Duration::from_secs(5);

type Answerer = Arc<HostToken<Sources, Cluster>>;

/// Starts what is configured.
pub fn serve(
    config: &Config,
    cluster: Option<Cluster>,
    pipeline: &Arc<Pipeline<Sources>>,
    registry: &Registry,
    owned: &watch::Receiver<Ownership>,
    drain: &Drain,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let (Source::Kubernetes(source), Some(cluster)) = (&config.source, cluster) else {
        return Ok(());
    };
    if config.host_token.socket.is_none() && config.host_token.listen.is_none() {
        return Ok(());
    }
    let metrics = ReviewMetrics::register(registry)?;
    let answerer = |door| -> Answerer {
        let reviews = Reviews::new(cluster.clone(), metrics.clone());
        let node = source.node.clone();
        Arc::new(HostToken::new(door, pipeline.clone(), reviews, node))
    };
    if let Some(path) = &config.host_token.socket {
        let shown = || format!("--host-token-socket {}", path.display());
        own_folder(path).with_context(shown)?;
        let listening = at_socket(
            path.clone(),
            answerer(Door::Socket),
            owned.clone(),
            drain.clone(),
        );
        spawn(tasks, listening);
    }
    if let Some(address) = config.host_token.listen {
        let conn = ConnMetrics::new(registry, "host_token")?;
        // All who ask have one address.
        let limits = Limits {
            connections: Limits::default().connections_per_peer,
            ..Limits::default()
        };
        let (answerer, drain) = (answerer(Door::Loopback), drain.clone());
        spawn(tasks, async move {
            let listener = bind_patiently("--host-token-listen", address).await?;
            let address = listener.local_addr()?;
            tracing::info!(%address, "listening for who asks on behalf of pods");
            serve::serve(listener, limits, answerer, drain.clone(), conn).await;
            ended_in_drain(&drain, "the listener for who asks on behalf of pods")
        });
    }
    Ok(())
}

fn own_folder(path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().filter(|parent| parent.is_absolute());
    let name = path.file_name().and_then(|name| name.to_str());
    let (Some(parent), Some(name)) = (parent, name) else {
        anyhow::bail!("it must be an absolute path of a file");
    };
    Ok(local::own_folder(parent, name)?)
}

/// Takes the path whenever this instance comes to own the rules. What it took before is left to nobody: there the path
/// leads to the instance that came after.
async fn at_socket(
    path: PathBuf,
    answerer: Answerer,
    mut owned: watch::Receiver<Ownership>,
    drain: Drain,
) -> anyhow::Result<()> {
    let is_owner = |now: &Ownership| matches!(now, Ownership::Owner { .. });
    let mut listening = JoinSet::new();
    let ended = "nobody keeps the rules any more";
    loop {
        owned.wait_for(is_owner).await.context(ended)?;
        match own_folder(&path).and_then(|()| Ok(local::bind(&path)?)) {
            Ok(listener) => {
                tracing::info!(path = %path.display(), "listening for who asks on behalf of pods");
                listening.abort_all();
                let (answerer, drain) = (answerer.clone(), drain.clone());
                listening.spawn(local::serve(listener, CONNECTIONS, answerer, drain));
                owned.wait_for(|now| !is_owner(now)).await.context(ended)?;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot listen for who asks on behalf of pods");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
