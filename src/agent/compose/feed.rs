//! Pods, bindings and identities: a folder or the Kubernetes API, and local evidence → directory.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::spawn;
use crate::agent::checkpoint::{Content, Store};
use crate::agent::config::{Config, KubernetesSource, Source};
use crate::agent::credentials::{self, Credentials};
use crate::agent::directory::Directory;
use crate::agent::events::publish::publish;
use crate::agent::evidence::Evidence;
use crate::agent::index::Index;
use crate::agent::manifests;
use crate::agent::obtain::{Broker, IdentityKey, Sources};
use crate::agent::pipeline::Pipeline;
use crate::agent::watch::{Health, Timing, Watch, WatchMetrics};
use crate::agent::world::Batch;
use crate::kubernetes::Cluster;
use crate::model::grant::{Asker, Grant};
use crate::serve::ready::Readiness;

/// What is fed, and who is told of it.
pub struct Parts<'a> {
    /// The request's way.
    pub pipeline: Arc<Pipeline<Sources>>,
    /// Credentials of identities that have their own.
    pub credentials: Credentials,
    /// Of series.
    pub registry: &'a Registry,
    /// Of latches.
    pub readiness: &'a Readiness,
}

/// What an agent before this one knew, and where this one keeps what it knows.
#[derive(Default)]
struct Memory {
    remembered: Option<Content>,
    checkpoint: Option<watch::Sender<Arc<Content>>>,
}

/// Starts what fills the directory and the rings of credentials.
pub async fn feed(
    config: &Config,
    cluster: Option<Cluster>,
    parts: Parts<'_>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let (pipeline, credentials) = (parts.pipeline, parts.credentials);
    let (registry, readiness) = (parts.registry, parts.readiness);
    // Before anybody can ask: readiness without a latch would say "ready".
    let ready = parts.readiness.latch("objects");
    let (sender, batches) = mpsc::channel(16);
    let (mut remembered, mut checkpoint) = (None, None);
    follow_secrets(&config.source, cluster.as_ref(), &credentials, stop, tasks);
    match &config.source {
        Source::Folder(folder) => {
            anyhow::ensure!(
                folder.is_dir(),
                "--manifests {}: no such folder",
                folder.display()
            );
            spawn(
                tasks,
                manifests::follow(folder.clone(), config.workload_identity, sender),
            );
        }
        Source::Kubernetes(source) => {
            let cluster = cluster.context("no connection to Kubernetes")?;
            let health = Arc::<Health>::default();
            let store = Store::new(&config.state_dir, &source.node)
                .context("the node cannot be told from others")?;
            remembered = recall(&store, &health);
            if let Some(content) = remembered.as_mut().filter(|_| !config.workload_identity) {
                content.forget_accounts();
            }
            // Not a part that the agent needs: it may end.
            let (tellings, dropped) = pipeline.events.start();
            let (teller, node) = (cluster.clone(), source.node.clone());
            tokio::spawn(publish(teller, node, tellings, dropped));
            let watch = Watch {
                cluster,
                source: source.clone(),
                workload_identity: config.workload_identity,
                batches: sender,
                latch: readiness.latch("watches"),
                metrics: WatchMetrics::register(registry)?,
                health: health.clone(),
                published: pipeline.directory.clone(),
                timing: Timing::default(),
            };
            let (lookups, follow) = watch.start();
            pipeline.locator.ask_with(lookups);
            spawn(tasks, follow);
            let (keep, kept) = tokio::sync::watch::channel(Arc::default());
            checkpoint = Some(keep);
            tokio::spawn(
                stop.clone()
                    .run_until_cancelled_owned(store.keep(kept, health)),
            );
        }
    };
    let evidence = Evidence::start(stop.clone())
        .await
        .context("cannot watch routes and neighbours")?;
    let Parts {
        pipeline,
        credentials,
        ..
    } = parts;
    let index = Index {
        batches,
        witness: evidence,
        published: pipeline.directory.clone(),
        metrics: pipeline.metrics.clone(),
        ready,
        remembered: memory.remembered,
        checkpoint: memory.checkpoint,
    };
    let broker = pipeline.broker.clone();
    spawn(tasks, async move {
        index
            .run(|directory| {
                retain_granted(&broker, directory);
                credentials.retain_granted(directory);
            })
            .await;
        anyhow::bail!("nothing tells of pods any more")
    });
    Ok(())
}

/// Starts what reads the Secrets that identities of pods here need, and what reminds of their ends.
fn follow_secrets(
    source: &Source,
    cluster: Option<&Cluster>,
    credentials: &Credentials,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) {
    if let Source::Folder(folder) = source {
        let secrets = credentials::folder::follow(folder.clone(), credentials.clone());
        spawn(tasks, secrets);
    } else if let Some(cluster) = cluster {
        let (credentials, cluster) = (credentials.clone(), cluster.clone());
        let secrets = credentials::follow::follow(credentials, cluster, Timing::default());
        tokio::spawn(stop.clone().run_until_cancelled_owned(secrets));
    }
    let reminders = credentials.clone().remind();
    tokio::spawn(stop.clone().run_until_cancelled_owned(reminders));
}

/// What an agent before this one knew. Nothing that is wrong with it keeps this one from starting.
fn recall(store: &Store, health: &Health) -> Option<Content> {
    match store.load() {
        Ok(None) => None,
        Ok(Some((mut content, age))) => {
            if !accounts {
                content.forget_accounts();
            }
            let (pods, age_seconds) = (content.pods(), age.as_secs());
            tracing::info!(
                pods,
                age_seconds,
                "there is a checkpoint, should the API server be away"
            );
            health.remembers(age);
            Some(content)
        }
        Err(error) => {
            tracing::warn!(%error, "the checkpoint is ignored");
            None
        }
    }
}

/// Drops cached tokens of identities that no live pod is granted.
fn retain_granted(broker: &Broker<Sources>, directory: &Directory) {
    let granted: HashSet<IdentityKey> = directory
        .pods()
        .flat_map(|pod| {
            let asker = Asker::from(&*pod.pod);
            let sources = |grant: &Grant| grant.identity.sources.clone();
            pod.granted.iter().flat_map(move |grant| {
                let key = |source| IdentityKey::of(&source, &grant.identity, &asker);
                sources(grant).into_iter().map(key).collect::<Vec<_>>()
            })
        })
        .collect();
    broker.retain(|key| granted.contains(key));
}
