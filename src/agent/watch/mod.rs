//! The Kubernetes API as the source of pods, bindings and identities: one watch for each kind. The
//! same seam ([`Batch`]) that a folder of manifests fills; everything behind it is the same code.
//!
//! Holds invariant 7: each call has a deadline, a watch that has died is noticed and begun again, and
//! who looks at the latch and the metrics can tell a stalled watch from an API server that is away.

mod compute;
#[cfg(test)]
#[allow(
    clippy::unwrap_in_result,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "a test says so by panicking"
)]
pub mod fake;
mod follow;
mod health;
mod kind;
mod lookup;
mod metrics;
mod mirror;
mod pause;
mod slim;
mod verdict;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::config::{Assignments, KubernetesSource};
use super::directory::Published;
use super::world::Batch;
use crate::kubernetes::Cluster;
use crate::serve::ready::Latch;
use follow::Follower;
pub use health::Health;
use kind::Kind;
pub use lookup::Lookups;
pub use metrics::WatchMetrics;
use mirror::Mirror;
use watchdog::Watchdog;

/// How long what may take, and how often it is done.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// One page of a list, or the beginning of a watch.
    pub call: Duration,
    /// How long a watch may be silent. The server sends a bookmark about every minute.
    pub silence: Duration,
    /// After which the server ends a watch.
    pub lifetime: Duration,
    /// The first pause after a failure; the next are longer.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How often the watches' health is looked at.
    pub tick: Duration,
    /// How long the API server may take to answer that it is there.
    pub ask: Duration,
    /// How often it is asked while all is well.
    pub routine_ask: Duration,
    /// How often it is asked while something is not.
    pub urgent_ask: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(15),
            silence: Duration::from_secs(150),
            lifetime: Duration::from_mins(5),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(8),
            tick: Duration::from_secs(1),
            ask: Duration::from_secs(5),
            routine_ask: Duration::from_secs(30),
            urgent_ask: Duration::from_secs(5),
        }
    }
}

/// What following all kinds needs.
pub struct Watch {
    /// The API server.
    pub cluster: Cluster,
    /// Of which node, and how old what is known may get.
    pub source: KubernetesSource,
    /// Whether service accounts are followed, too.
    pub workload_identity: bool,
    /// Where changes go.
    pub batches: mpsc::Sender<Batch>,
    /// Closed while the watches work or cannot work.
    pub latch: Latch,
    /// The series.
    pub metrics: WatchMetrics,
    /// The watches' health.
    pub health: Arc<Health>,
    /// Who is told when all that is known is too old.
    pub published: Arc<Published>,
    /// Deadlines and pauses.
    pub timing: Timing,
}

impl Watch {
    /// Who asks for pods that the watch has not shown yet, and the work that follows all kinds until
    /// nobody takes batches any more.
    pub fn start(
        self,
    ) -> (
        Arc<Lookups>,
        impl Future<Output = anyhow::Result<()>> + Send,
    ) {
        let (answer, answers) = mpsc::channel(16);
        let node = self.source.node.clone();
        let lookups = Lookups::new(self.cluster.clone(), node, answer, self.metrics.clone());
        (Arc::new(lookups), self.follow(answers))
    }

    async fn follow(self, answers: mpsc::Receiver<lookup::Answer>) -> anyhow::Result<()> {
        let required = self.source.assignments == Assignments::Required;
        let accounts = self.workload_identity.then_some(Kind::ServiceAccounts);
        let plain = Kind::ALL.into_iter().chain(accounts);
        let unlisted = plain.clone().count() + usize::from(required);
        let unlisted = Arc::new(AtomicUsize::new(unlisted));
        let (back, returned) = watch::channel(0);
        let mut parts = JoinSet::new();
        let mut answers = Some(answers);
        let mut follower = |kind: Kind| Follower {
            cluster: self.cluster.clone(),
            collection: kind.collection(&self.source.node),
            mirror: Mirror::new(kind),
            batches: self.batches.clone(),
            unlisted: unlisted.clone(),
            answers: answers.take_if(|_| kind == Kind::Pods),
            back: returned.clone(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            timing: self.timing,
        };
        for kind in plain {
            let follower = follower(kind);
            parts.spawn(async move {
                follower.run().await;
                Ok(())
            });
        }
        if required {
            let (follower, node) = (follower(Kind::Assignments), self.source.node.clone());
            parts.spawn(async move {
                compute::follow(follower, &node).await;
                Ok(())
            });
        }
        let watchdog = Watchdog {
            cluster: self.cluster,
            health: self.health,
            latch: self.latch,
            metrics: self.metrics,
            published: self.published,
            max_staleness: self.source.max_staleness,
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
