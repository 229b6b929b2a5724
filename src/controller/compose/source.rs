//! Where pods, nodes and our kinds come from, and where records are kept: a cluster, or a folder of
//! manifests. One seam; everything behind it is the same code.
//!
//! In: the configuration. Out: what observes, and the records. Without a cluster there is no Lease, and
//! nobody to take Events and statuses: only `AzureAssignment`s are written.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::controller::board::Told;
use crate::controller::config::Config;
use crate::controller::observe::{self, Observe};
use crate::controller::records::{FolderRecords, Kept, KubernetesRecords, RecordError, Records};
use crate::controller::world::Batch;
use crate::kubernetes::watch::Timing;
use crate::kubernetes::{self, Cluster};
use crate::model::compute::Compute;
use crate::serve::ready::Latch;

/// Where everything comes from.
#[derive(Clone)]
pub enum Source {
    /// The API server.
    Cluster(Cluster),
    /// A folder of manifests.
    Folder(PathBuf),
}

impl Source {
    /// As configured. Nothing is asked yet.
    pub async fn of(config: &Config) -> anyhow::Result<Self> {
        Ok(match &config.manifests {
            Some(folder) => {
                let shown = || format!("--manifests {}", folder.display());
                anyhow::ensure!(folder.is_dir(), "{}: no such folder", shown());
                Self::Folder(folder.canonicalize().with_context(shown)?)
            }
            None => Self::Cluster(kubernetes::connect(config.kubeconfig.as_deref()).await?),
        })
    }

    /// The API server, where there is one.
    pub const fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Cluster(cluster) => Some(cluster),
            Self::Folder(_) => None,
        }
    }

    /// Starts what observes; host-network pods, too, where `counts_hosts`.
    pub fn observe(
        &self,
        counts_hosts: bool,
        batches: mpsc::Sender<Batch>,
        latch: Latch,
        registry: &Registry,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Cluster(cluster) => {
                let observe = Observe {
                    cluster: cluster.clone(),
                    counts_hosts,
                    batches,
                    latch,
                    metrics: observe::metrics(registry)?,
                    timing: Timing::default(),
                };
                tasks.spawn(observe.run());
            }
            Self::Folder(folder) => {
                tasks.spawn(observe::folder::follow(
                    folder.clone(),
                    counts_hosts,
                    batches,
                    latch,
                ));
            }
        }
        Ok(())
    }

    /// The records; nothing is read yet.
    pub fn records(&self) -> KeptThere {
        match self {
            Self::Cluster(cluster) => {
                KeptThere::Cluster(Box::new(KubernetesRecords::new(cluster.clone())))
            }
            Self::Folder(folder) => KeptThere::Folder(FolderRecords::new(folder.clone())),
        }
    }
}

/// Records of either.
pub enum KeptThere {
    /// In a cluster.
    Cluster(Box<KubernetesRecords>),
    /// In a folder.
    Folder(FolderRecords),
}

impl Records for KeptThere {
    async fn all(&self) -> Result<Vec<Kept>, RecordError> {
        match self {
            Self::Cluster(records) => records.all().await,
            Self::Folder(records) => records.all().await,
        }
    }

    async fn write(&self, told: &Told, now: Duration) -> Result<(), RecordError> {
        match self {
            Self::Cluster(records) => records.write(told, now).await,
            Self::Folder(records) => records.write(told, now).await,
        }
    }

    fn holds(&self, compute: &Compute) -> bool {
        match self {
            Self::Cluster(records) => records.holds(compute),
            Self::Folder(records) => records.holds(compute),
        }
    }

    fn lost(&self, name: &str) -> bool {
        match self {
            Self::Cluster(records) => records.lost(name),
            Self::Folder(records) => records.lost(name),
        }
    }

    async fn forget(&self, compute: &Compute) -> Result<(), RecordError> {
        match self {
            Self::Cluster(records) => records.forget(compute).await,
            Self::Folder(records) => records.forget(compute).await,
        }
    }
}
