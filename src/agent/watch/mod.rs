//! The Kubernetes API as the source of pods, bindings and identities: one watch for each kind. The
//! same seam ([`Batch`]) that a folder of manifests fills; everything behind it is the same code.

mod follow;
mod kind;
mod mirror;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::config::KubernetesSource;
use super::world::Batch;
use crate::kubernetes::Cluster;
use follow::Follower;
pub use follow::Timing;
use kind::Kind;
use mirror::Mirror;

/// Follows all kinds. Ends when nobody takes batches any more.
pub async fn follow(
    cluster: Cluster,
    source: KubernetesSource,
    timing: Timing,
    batches: mpsc::Sender<Batch>,
) -> anyhow::Result<()> {
    let unlisted = Arc::new(AtomicUsize::new(Kind::ALL.len()));
    let mut followers = JoinSet::new();
    for kind in Kind::ALL {
        let follower = Follower {
            cluster: cluster.clone(),
            collection: kind.collection(&source.node),
            mirror: Mirror::new(kind),
            batches: batches.clone(),
            unlisted: unlisted.clone(),
            timing,
        };
        followers.spawn(follower.run());
    }
    drop(batches);
    if let Some(Err(error)) = followers.join_next().await {
        return Err(error.into());
    }
    Ok(())
}
