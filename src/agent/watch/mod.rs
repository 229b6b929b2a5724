//! The Kubernetes API as the source of pods, bindings and identities: one watch for each kind. The
//! same seam ([`Batch`]) that a folder of manifests fills; everything behind it is the same code.
//!
//! Holds invariant 7: each call has a deadline, a watch that has died is noticed and begun again, and
//! who looks at the latch and the metrics can tell a stalled watch from an API server that is away.

mod compute;
mod kind;
mod lookup;
mod metrics;
mod slim;
mod staleness;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::config::{Assignments, KubernetesSource};
use super::directory::Published;
use super::world::Batch;
use crate::api::kind::Kind;
use crate::kubernetes::Cluster;
#[cfg(test)]
pub use crate::kubernetes::watch::fake;
use crate::kubernetes::watch::{Follower, Mirror, Watchdog};
pub use crate::kubernetes::watch::{Health, Timing};
use crate::serve::ready::Latch;
pub use kind::ALWAYS;
use kind::Facts;
pub use lookup::Lookups;
pub use metrics::WatchMetrics;

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
        let plain = ALWAYS.into_iter().chain(accounts);
        let unlisted = plain.clone().count() + usize::from(required);
        let unlisted = Arc::new(AtomicUsize::new(unlisted));
        let (back, returned) = watch::channel(0);
        let mut parts = JoinSet::new();
        let mut answers = Some(answers);
        let mut follower = |kind: Kind| Follower {
            who: "the agent",
            cluster: self.cluster.clone(),
            collection: kind::collection(kind, &self.source.node),
            mirror: Mirror::new(Facts(kind)),
            batches: self.batches.clone(),
            unlisted: unlisted.clone(),
            answers: answers.take_if(|_| kind == Kind::Pods),
            back: returned.clone(),
            health: self.health.clone(),
            metrics: self.metrics.shared.clone(),
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
            metrics: self.metrics.shared,
            meanwhile: "pods that are known keep getting tokens",
            look: staleness::told_to(self.published, self.source.max_staleness),
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
