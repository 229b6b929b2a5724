//! Pods, bindings and identities: a folder or the Kubernetes API, and local evidence → directory.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::spawn;
use crate::agent::checkpoint::{Content, Store};
use crate::agent::config::{Config, Source};
use crate::agent::credentials::{self, Credentials};
use crate::agent::directory::Directory;
use crate::agent::events::publish::publish;
use crate::agent::evidence::Evidence;
use crate::agent::index::Index;
use crate::agent::manifests;
use crate::agent::obtain::{Broker, IdentityKey, Sources};
use crate::agent::pipeline::Pipeline;
use crate::agent::watch::{Health, Timing, Watch, WatchMetrics};
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

/// Starts what fills the directory and the rings of credentials.
pub async fn feed(
    config: &Config,
    cluster: Option<Cluster>,
    parts: Parts<'_>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let Parts {
        pipeline,
        credentials,
        registry,
        readiness,
    } = parts;
    // Before anybody can ask: readiness without a latch would say "ready".
    let ready = readiness.latch("objects");
    let (sender, batches) = mpsc::channel(16);
    let (mut remembered, mut checkpoint) = (None, None);
    match &config.source {
        Source::Folder(folder) => {
            anyhow::ensure!(
                folder.is_dir(),
                "--manifests {}: no such folder",
                folder.display()
            );
            let accounts = config.workload_identity;
            spawn(tasks, manifests::follow(folder.clone(), accounts, sender));
            let secrets = credentials::folder::follow(folder.clone(), credentials.clone());
            spawn(tasks, secrets);
        }
        Source::Kubernetes(source) => {
            let cluster = cluster.context("no connection to Kubernetes")?;
            let health = Arc::<Health>::default();
            let store = Store::new(&config.state_dir, &source.node)
                .context("the node cannot be told from others")?;
            remembered = recall(&store, &health, config.workload_identity);
            let secrets = credentials::follow::follow(
                credentials.clone(),
                cluster.clone(),
                Timing::default(),
            );
            tokio::spawn(stop.clone().run_until_cancelled_owned(secrets));
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
    }
    let evidence = Evidence::start(stop.clone())
        .await
        .context("cannot watch routes and neighbours")?;
    let index = Index {
        batches,
        witness: evidence,
        published: pipeline.directory.clone(),
        metrics: pipeline.metrics.clone(),
        ready,
        remembered,
        checkpoint,
    };
    let reminders = credentials.clone().remind();
    tokio::spawn(stop.clone().run_until_cancelled_owned(reminders));
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

/// What an agent before this one knew, with service accounts only where they count. Nothing that is wrong
/// with it keeps this one from starting.
fn recall(store: &Store, health: &Health, accounts: bool) -> Option<Content> {
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
