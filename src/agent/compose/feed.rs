//! Pods, bindings and identities: a folder or the Kubernetes API, and local evidence → directory.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::spawn;
use crate::agent::config::{Config, Source};
use crate::agent::directory::Directory;
use crate::agent::events::Tellings;
use crate::agent::evidence::Evidence;
use crate::agent::index::{self, EvidenceFeed};
use crate::agent::obtain::{Broker, IdentityKey, Sources};
use crate::agent::pipeline::Pipeline;
use crate::agent::{events, manifests, watch};
use crate::kubernetes;
use crate::serve::ready::Latch;

/// Starts what fills the directory.
pub async fn feed(
    config: &Config,
    pipeline: &Arc<Pipeline<Sources>>,
    ready: Latch,
    tellings: Option<Tellings>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
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
            let cluster = kubernetes::connect(source.kubeconfig.as_deref()).await?;
            if let Some(tellings) = tellings {
                let dropped = pipeline.events.dropped();
                let (cluster, node) = (cluster.clone(), source.node.clone());
                // Not a part that the agent needs: it may end.
                tokio::spawn(events::publish::publish(cluster, node, tellings, dropped));
            }
            let timing = watch::Timing::default();
            spawn(
                tasks,
                watch::follow(cluster, source.clone(), timing, sender),
            );
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
