//! What the controller sees of Kubernetes: pods, nodes, namespaces and our kinds, one watch for each.
//!
//! In: the API server, or a folder of manifests. Out: batches of changes of the [world](super::world), the last first one marked
//! `complete`; a latch and series. Blocks on the network and on a full channel only. Holds that an edit
//! that changes nothing that counts is no change, and that a malformed object harms no other.

pub mod folder;
mod intern;
mod nodes;
mod ours;
mod pods;
mod reader;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::world::Batch;
use crate::kubernetes::Cluster;
use crate::kubernetes::watch::{Follower, Health, Mirror, Names, Timing, WatchMetrics, Watchdog};
use crate::serve::ready::Latch;
use reader::{FOLLOWED, Observed, collection};

const NAMES: Names = Names {
    age: "lanyard_controller_watch_age_seconds",
    malformed: "lanyard_controller_objects_malformed",
    restarts: "lanyard_controller_watch_restarts_total",
    degraded: "lanyard_controller_degraded",
    state_age: "lanyard_controller_state_age_seconds",
};

/// Registers the series of the controller's watches.
pub fn metrics(registry: &Registry) -> prometheus::Result<WatchMetrics> {
    WatchMetrics::register(registry, NAMES)
}

/// What observing needs.
pub struct Observe {
    /// The API server.
    pub cluster: Cluster,
    /// Whether host-network pods count.
    pub counts_hosts: bool,
    /// Where changes go.
    pub batches: mpsc::Sender<Batch>,
    /// Closed while the watches work or cannot work.
    pub latch: Latch,
    /// The series.
    pub metrics: WatchMetrics,
    /// Deadlines and pauses.
    pub timing: Timing,
}

impl Observe {
    /// Follows all kinds until nobody takes batches any more.
    pub async fn run(self) -> anyhow::Result<()> {
        let health = Arc::new(Health::new(&FOLLOWED));
        let unlisted = Arc::new(AtomicUsize::new(FOLLOWED.len()));
        let (back, returned) = watch::channel(0);
        let mut parts = JoinSet::new();
        for kind in FOLLOWED {
            let follower = Follower {
                who: "the controller",
                cluster: self.cluster.clone(),
                collection: collection(kind),
                mirror: Mirror::new(Observed::new(kind, self.counts_hosts)),
                batches: self.batches.clone(),
                unlisted: unlisted.clone(),
                answers: None,
                back: returned.clone(),
                health: health.clone(),
                metrics: self.metrics.clone(),
                timing: self.timing,
            };
            parts.spawn(async move {
                follower.run().await;
                Ok(())
            });
        }
        let watchdog = Watchdog {
            cluster: self.cluster,
            health,
            latch: self.latch,
            metrics: self.metrics,
            meanwhile: "nothing that changes is noticed until it is back",
            look: Box::new(|_, _| {}),
            back,
            timing: self.timing,
        };
        parts.spawn(watchdog.run());
        match parts.join_next().await {
            Some(ended) => ended?,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
