//! Keeps the published directory current: batches of changes and of local evidence come in, a new
//! snapshot goes out, and a checkpoint where one is wanted. One task, no lock; changes that wait are
//! taken together, and what concerns no pod here costs next to nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::checkpoint::Content;
use super::config::NodeMode;
use super::directory::{Directory, Published};
use super::evidence::{Evidence, Sighting};
use super::knowledge::Knowledge;
use super::metrics::AgentMetrics;
use super::sightings::Sightings;
use super::touched::{GrantBook, Touched};
use super::world::Batch;
use crate::model::facts::{Mode, PodFacts};
use crate::serve::clock;
use crate::serve::ready::Latch;
use crate::serve::series::value;

/// How long the source may take before what is remembered counts.
const RECALL_AFTER: Duration = Duration::from_secs(1);

/// After how long the API server would have told of a pod that went while no agent looked: kubelet tells it within
/// seconds.
const SETTLE_AFTER: Duration = Duration::from_secs(30);

/// How often it is looked whether anything was heard since.
const HEARD_AGAIN: Duration = Duration::from_secs(2);

/// Where local evidence is looked up, and how its changes are heard of.
pub trait Witness {
    /// The kernel's evidence for an address.
    fn of(&self, ip: IpAddr) -> Sighting;
    /// The link of its own that the address was last behind.
    fn behind(&self, ip: IpAddr) -> Option<u32>;
    /// Whether a neighbour may claim the address.
    fn is_on_bridge(&self, ip: IpAddr) -> bool;
    /// A process before this one saw the address behind that link.
    fn recall(&self, ip: IpAddr, link: u32);
    /// Changes whenever some evidence did.
    fn generation(&self) -> watch::Receiver<u64>;
}

impl Witness for Evidence {
    fn of(&self, ip: IpAddr) -> Sighting {
        Self::of(self, ip)
    }

    fn behind(&self, ip: IpAddr) -> Option<u32> {
        Self::behind(self, ip)
    }

    fn is_on_bridge(&self, ip: IpAddr) -> bool {
        Self::is_on_bridge(self, ip)
    }

    fn recall(&self, ip: IpAddr, link: u32) {
        Self::recall(self, ip, link);
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.subscribe()
    }
}

/// What the index works with.
pub struct Index<W> {
    /// Changes of objects.
    pub batches: mpsc::Receiver<Batch>,
    /// Local evidence.
    pub witness: W,
    /// How pods are served.
    pub mode: NodeMode,
    /// How long ago the source told anything of pods.
    pub heard: Box<dyn Fn() -> Duration + Send>,
    /// Where snapshots go.
    pub published: Arc<Published>,
    /// The series.
    pub metrics: Arc<AgentMetrics>,
    /// Closed when there is something to answer from.
    pub ready: Latch,
    /// What a process before this one knew.
    pub remembered: Option<Content>,
    /// Who keeps what is known, for a process after this one.
    pub checkpoint: Option<watch::Sender<Arc<Content>>>,
}

impl<W: Witness> Index<W> {
    /// Follows both until the sender of batches is gone. `published` is told each new snapshot, then
    /// `on_change` is, to drop what no live pod may have any more.
    pub async fn run(mut self, on_change: impl Fn(&Directory)) {
        let (mut knowledge, mut sightings) = self.remember();
        let (mut book, mut touched) = (GrantBook::default(), Touched::default());
        let mut evidence = self.witness.generation();
        let recall = tokio::time::sleep(RECALL_AFTER);
        tokio::pin!(recall);
        let mut waits = true;
        // From the moment at which everything was told.
        let mut settle: Option<Instant> = None;
        let mut settled = false;
        let mut settle_at = Instant::now();
        loop {
            let mut moved = false;
            tokio::select! {
                batch = self.batches.recv() => {
                    let Some(batch) = batch else { return };
                    self.take(batch, &mut knowledge, &mut touched);
                    while let Ok(batch) = self.batches.try_recv() {
                        self.take(batch, &mut knowledge, &mut touched);
                    }
                }
                changed = evidence.changed() => {
                    if changed.is_err() {
                        // Without evidence no address is suspected any more; without the task that
                        // gathers it the agent ends, see `run` of the agent.
                        return;
                    }
                    moved = true;
                }
                () = tokio::time::sleep_until(settle_at), if settle.is_some() && !settled => {
                    // Of an API server that is away nothing is heard, and nothing is believed for it.
                    if settle.is_some_and(|due| Instant::now() - (self.heard)() >= due) {
                        settled = true;
                        moved = sightings.settle();
                    } else {
                        settle_at = Instant::now() + HEARD_AGAIN;
                    }
                }
                () = &mut recall, if waits => {
                    waits = false;
                    if !knowledge.recall(&mut touched) {
                        continue;
                    }
                    tracing::warn!("the API server has not told everything yet: going by what was known before the restart");
                }
            }
            let Some(world) = knowledge.world() else {
                // Whoever asks waits: what was not read yet would look like what is not there.
                continue;
            };
            if settle.is_none() && knowledge.is_complete() {
                settle_at = Instant::now() + SETTLE_AFTER;
                settle = Some(settle_at);
            }
            let changed = std::mem::take(&mut touched);
            let differs = book.update(world, &changed) || changed.beside_grants;
            if differs || moved {
                sightings.retain(world);
                let directory = Directory::with(
                    world,
                    |pod| book.of(pod, world),
                    |pod, ip| sightings.has_moved(pod, ip, self.witness.of(ip)),
                );
                self.metrics.known(&directory);
                self.spoofable(&directory);
                on_change(&directory);
                self.published.publish(directory);
                if let Some(checkpoint) =
                    self.checkpoint.as_ref().filter(|_| knowledge.is_complete())
                {
                    let addresses = sightings.keep(|ip| self.witness.behind(ip));
                    checkpoint.send_replace(Arc::new(Content::of(world, addresses)));
                }
            }
            self.metrics.bindings(world.binding_count());
            self.ready.ready();
        }
    }

    fn remember(&mut self) -> (Knowledge, Sightings) {
        let Some(content) = self.remembered.take() else {
            return (Knowledge::new(None), Sightings::default());
        };
        for kept in content.addresses() {
            if let Some(link) = kept.link {
                self.witness.recall(kept.ip, link);
            }
        }
        let (world, sightings) = content.restore(self.mode);
        (Knowledge::new(Some(world)), sightings)
    }

    /// Pods whose address a neighbour may claim, and nothing but their address tells them apart (CVE-2021-1677).
    fn spoofable(&self, directory: &Directory) {
        let redirected = |pod: &&PodFacts| self.mode.of(pod.mode) == Mode::Redirect;
        let pods = directory.pods().map(|grants| &*grants.pod);
        let may_be = pods
            .filter(redirected)
            .filter(|pod| pod.ips.iter().any(|ip| self.witness.is_on_bridge(*ip)));
        let (count, before) = (may_be.count(), self.metrics.spoofable.get());
        self.metrics.spoofable.set(value(count));
        if count > 0 && before == 0 {
            tracing::warn!(
                count,
                "pods share a bridge: one with NET_ADMIN or NET_RAW may claim another's address before that one first speaks, and get its tokens; --mode in-pod closes that (docs/in-pod.md)"
            );
        }
    }

    fn take(&self, batch: Batch, knowledge: &mut Knowledge, touched: &mut Touched) {
        if let Some(malformed) = batch.malformed {
            self.metrics.malformed(malformed);
        }
        knowledge.take(batch, clock::since_epoch(), touched);
    }
}
