//! Keeps the published directory current: batches of changes and of local evidence come in, a new
//! snapshot goes out. One task, no lock; changes that wait are taken together.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::directory::{Directory, Published};
use super::evidence::Sighting;
use super::metrics::AgentMetrics;
use super::sightings::Sightings;
use super::world::{Batch, World};
use crate::serve::clock;
use crate::serve::ready::Latch;

/// Where local evidence is looked up, and how its changes are heard of.
pub struct EvidenceFeed<F> {
    /// The kernel's evidence for an address.
    pub of: F,
    /// Changes whenever some evidence did.
    pub generation: watch::Receiver<u64>,
}

/// Follows both until the sender of batches is gone. `published` is told each new snapshot, then
/// `on_change` is, to drop what no live pod may have any more.
pub async fn run<F: Fn(IpAddr) -> Sighting>(
    mut batches: mpsc::Receiver<Batch>,
    mut evidence: EvidenceFeed<F>,
    published: Arc<Published>,
    metrics: Arc<AgentMetrics>,
    ready: Latch,
    on_change: impl Fn(&Directory),
) {
    let mut world = World::default();
    let mut sightings = Sightings::default();
    let mut complete = false;
    loop {
        tokio::select! {
            batch = batches.recv() => {
                let Some(batch) = batch else { return };
                complete |= take(batch, &mut world, &metrics);
                while let Ok(batch) = batches.try_recv() {
                    complete |= take(batch, &mut world, &metrics);
                }
            }
            changed = evidence.generation.changed() => {
                if changed.is_err() {
                    // Without evidence no address is suspected any more; without the task that
                    // gathers it the agent ends, see `run` of the agent.
                    return;
                }
            }
        }
        if !complete {
            // Whoever asks waits: what was not read yet would look like what is not there.
            continue;
        }
        sightings.retain(&world);
        let directory = Directory::of(&world, |pod, ip| {
            sightings.has_moved(pod, ip, (evidence.of)(ip))
        });
        metrics.known(&directory);
        on_change(&directory);
        published.publish(directory);
        ready.ready();
    }
}

/// Takes a batch in; whether everything was told at least once with it.
fn take(batch: Batch, world: &mut World, metrics: &AgentMetrics) -> bool {
    let now = clock::since_epoch();
    if let Some(malformed) = batch.malformed {
        metrics.malformed(malformed);
    }
    for change in batch.changes {
        world.change(change, now);
    }
    batch.complete
}
