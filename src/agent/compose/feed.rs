//! Pods, bindings and identities: a folder or the Kubernetes API, and local evidence → directory.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::spawn;
use crate::agent::checkpoint::{Content, Store};
use crate::agent::config::{Config, FolderSource, KubernetesSource, Source};
use crate::agent::credentials::{self, Credentials};
use crate::agent::directory::Directory;
use crate::agent::events::publish::publish;
use crate::agent::evidence::Evidence;
use crate::agent::host_network::Bypass;
use crate::agent::index::Index;
use crate::agent::inside::Unheard;
use crate::agent::manifests;
use crate::agent::obtain::{Broker, IdentityKey, Sources};
use crate::agent::pipeline::Pipeline;
use crate::agent::watch::{ALWAYS, Health, Timing, Watch, WatchMetrics};
use crate::agent::world::{Batch, Change};
use crate::api::kind::Kind;
use crate::kubernetes::Cluster;
use crate::model::compute::Compute;
use crate::model::grant::Grant;
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
    health: Option<Arc<Health>>,
}

/// Starts what fills the directory and the rings of credentials.
pub async fn feed(
    config: &Config,
    cluster: Option<Cluster>,
    parts: Parts<'_>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    // Before anybody can ask: readiness without a latch would say "ready".
    let ready = parts.readiness.latch("objects");
    let (sender, batches) = mpsc::channel(16);
    let memory = match &config.source {
        Source::Folder(folder) => {
            from_folder(config, folder, &parts, sender, tasks)?;
            Memory::default()
        }
        Source::Kubernetes(source) => {
            let cluster = cluster.context("no connection to Kubernetes")?;
            from_kubernetes(config, source, cluster, &parts, sender, stop, tasks)?
        }
    };
    let own = match &config.source {
        Source::Folder(_) => None,
        Source::Kubernetes(source) => Some(source.namespace.as_str().into()),
    };
    // Who is told apart passes nobody by.
    let passes = config.hosts.is_none();
    let bypass = Bypass::register(parts.registry, own, parts.pipeline.events.clone())?;
    let events = parts.pipeline.events.clone();
    let unheard = Unheard::register(parts.registry, config.inside.mode, events)?;
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
        mode: config.inside.mode,
        heard: {
            let health = memory.health;
            let ago = move |health: &Arc<Health>| health.age(Kind::Pods);
            Box::new(move || health.as_ref().map_or(Duration::ZERO, ago))
        },
        published: pipeline.directory.clone(),
        metrics: pipeline.metrics.clone(),
        ready,
        remembered: memory.remembered,
        checkpoint: memory.checkpoint,
    };
    let reminders = credentials.clone().remind();
    tokio::spawn(stop.clone().run_until_cancelled_owned(reminders));
    let broker = pipeline.broker.clone();
    spawn(tasks, async move {
        index
            .run(|directory| {
                retain_granted(&broker, directory);
                credentials.retain_granted(directory);
                unheard.tell(directory);
                if passes {
                    bypass.tell(directory);
                }
            })
            .await;
        anyhow::bail!("nothing tells of pods any more")
    });
    Ok(())
}

fn from_folder(
    config: &Config,
    source: &FolderSource,
    parts: &Parts<'_>,
    sender: mpsc::Sender<Batch>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let folder = &source.path;
    anyhow::ensure!(
        folder.is_dir(),
        "--manifests {}: no such folder",
        folder.display()
    );
    let accounts = config.workload_identity;
    let compute = source.compute.as_ref().map(Compute::assignment_name);
    let followed = folder.clone();
    spawn(tasks, async move {
        // Before anything else is told: nobody is answered until it is known whether assignments count.
        if let Some(name) = compute {
            let batch = Batch {
                changes: vec![Change::Compute(name.into())],
                ..Batch::default()
            };
            if sender.send(batch).await.is_err() {
                return Ok(());
            }
        }
        manifests::follow(followed, accounts, sender).await
    });
    let secrets = credentials::folder::follow(folder.clone(), parts.credentials.clone());
    spawn(tasks, secrets);
    Ok(())
}

fn from_kubernetes(
    config: &Config,
    source: &KubernetesSource,
    cluster: Cluster,
    parts: &Parts<'_>,
    sender: mpsc::Sender<Batch>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Memory> {
    let pipeline = &parts.pipeline;
    let health = Arc::new(Health::new(&ALWAYS));
    let store = Store::new(&config.state_dir, &source.node)
        .context("the node cannot be told from others")?;
    let remembered = recall(&store, &health, config.workload_identity);
    // Not parts that the agent needs: they may end.
    let (credentials, timing) = (parts.credentials.clone(), Timing::default());
    let secrets = credentials::follow::follow(credentials, cluster.clone(), timing);
    tokio::spawn(stop.clone().run_until_cancelled_owned(secrets));
    let (tellings, dropped) = pipeline.events.start();
    let (teller, node) = (cluster.clone(), source.node.clone());
    tokio::spawn(publish(teller, node, tellings, dropped));
    let objects = Watch {
        cluster,
        source: source.clone(),
        workload_identity: config.workload_identity,
        batches: sender,
        latch: parts.readiness.latch("watches"),
        metrics: WatchMetrics::register(parts.registry)?,
        health: health.clone(),
        published: pipeline.directory.clone(),
        timing: Timing::default(),
    };
    let (lookups, follow) = objects.start();
    pipeline.locator.ask_with(lookups);
    spawn(tasks, follow);
    let (keep, kept) = watch::channel(Arc::default());
    let keeping = store.keep(kept, health.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(keeping));
    Ok(Memory {
        remembered,
        checkpoint: Some(keep),
        health: Some(health),
    })
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
            let asker = &pod.asker;
            let sources = |grant: &Grant| grant.identity.sources.clone();
            pod.granted.iter().flat_map(move |grant| {
                let key = |source| IdentityKey::of(&source, &grant.identity, asker);
                sources(grant).into_iter().map(key).collect::<Vec<_>>()
            })
        })
        .collect();
    broker.retain(|key| granted.contains(key));
}
