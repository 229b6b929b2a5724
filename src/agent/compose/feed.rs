//! Pods, bindings and identities: a folder or the Kubernetes API, and local evidence → directory.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::spawn;
use crate::agent::config::{Config, Source};
use crate::agent::directory::Directory;
use crate::agent::evidence::Evidence;
use crate::agent::index::{self, EvidenceFeed};
use crate::agent::manifests;
use crate::agent::obtain::{Broker, IdentityKey, Sources};
use crate::agent::pipeline::Pipeline;
use crate::agent::watch::{Timing, Watch, WatchMetrics};
use crate::kubernetes::Cluster;
use crate::serve::ready::Readiness;

/// Starts what fills the directory.
pub async fn feed(
    config: &Config,
    cluster: Option<Cluster>,
    pipeline: &Arc<Pipeline<Sources>>,
    registry: &Registry,
    readiness: &Readiness,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    // Before anybody can ask: readiness without a latch would say "ready".
    let ready = readiness.latch("objects");
    let (sender, batches) = mpsc::channel(16);
    match &config.source {
        Source::Folder(folder) => {
            anyhow::ensure!(
                folder.is_dir(),
                "--manifests {}: no such folder",
                folder.display()
            );
            spawn(tasks, manifests::follow(folder.clone(), sender));
        }
        Source::Kubernetes(source) => {
            let cluster = cluster.context("no connection to Kubernetes")?;
            let watch = Watch {
                cluster,
                source: source.clone(),
                batches: sender,
                latch: readiness.latch("watches"),
                metrics: WatchMetrics::register(registry)?,
                health: Arc::default(),
                published: pipeline.directory.clone(),
                timing: Timing::default(),
            };
            let (lookups, follow) = watch.start();
            pipeline.locator.ask_with(lookups);
            spawn(tasks, follow);
        }
    }
    let evidence = Arc::new(
        Evidence::start(stop.clone())
            .await
            .context("cannot watch routes and neighbours")?,
    );
    let feed = EvidenceFeed {
        generation: evidence.subscribe(),
        of: move |ip| evidence.of(ip),
    };
    let broker = pipeline.broker.clone();
    let (published, metrics) = (pipeline.directory.clone(), pipeline.metrics.clone());
    spawn(tasks, async move {
        let keep = |directory: &Directory| retain_granted(&broker, directory);
        index::run(batches, feed, published, metrics, ready, keep).await;
        anyhow::bail!("nothing tells of pods any more")
    });
    Ok(())
}

/// Drops cached tokens of identities that no live pod is granted.
fn retain_granted(broker: &Broker<Sources>, directory: &Directory) {
    let granted: HashSet<IdentityKey> = directory
        .pods()
        .flat_map(|pod| &pod.granted)
        .flat_map(|grant| {
            grant
                .identity
                .sources
                .iter()
                .map(|source| IdentityKey::of(source, &grant.identity))
        })
        .collect();
    broker.retain(|key| granted.contains(key));
}
