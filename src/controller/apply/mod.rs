//! Makes true in Azure what is wanted: a worker for each compute resource, which plans, writes down what it
//! is about to do, asks for it, follows it, and writes down what became of it.
//!
//! ```text
//! wanted ─▶ wait (debounce) ─▶ read ─▶ plan ─▶ record ─▶ PATCH ─▶ follow ─▶ record ─▶ board
//! ```
//!
//! In: what is wanted of each compute resource, records of before. Out: changes of Azure, records, what the board
//! tells. One worker waits for its own resource only: one that hangs delays no other. Holds invariant 8.

mod change;
mod metrics;
mod outside;
mod pace;
mod round;
mod search;
mod setbacks;
#[cfg(test)]
mod tests;
mod words;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use metrics::ApplyMetrics;
pub use outside::{Arm, Lease, Sent};
pub use pace::{Access, NotBefore, Paces, Rates, Refill, subscription_of};

use super::board::Board;
use super::config::Pace;
use super::desired::ComputeDesire;
use super::record::Record;
use super::records::{Kept, Records};
use crate::model::compute::Compute;
use crate::model::ids::ArmId;
use worker::Worker;

/// What is wanted of one compute resource, with what plan needs to know of the identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The identities.
    pub desire: ComputeDesire,
    /// Those that an `AzureIdentity` says are immutable.
    pub immutable: BTreeSet<ArmId>,
    /// Those that an `AzureIdentity` says are not.
    pub mutable: BTreeSet<ArmId>,
    /// The generations of the `AzureIdentity`s that name an identity, added up: a change is a reason to
    /// try again what Azure refused. May be left out.
    pub revisions: BTreeMap<ArmId, i64>,
}

impl Wanted {
    /// Nothing, of a compute resource that is no node any more.
    #[must_use]
    pub const fn nothing(compute: Arc<Compute>) -> Self {
        Self {
            desire: ComputeDesire {
                compute,
                nodes: 0,
                wanted: BTreeMap::new(),
            },
            immutable: BTreeSet::new(),
            mutable: BTreeSet::new(),
            revisions: BTreeMap::new(),
        }
    }
}

/// What all workers share.
pub struct Surroundings<A, R, L> {
    /// Azure Resource Manager.
    pub arm: A,
    /// Where records are kept.
    pub records: R,
    /// Whether this process leads.
    pub lease: L,
    /// Rates and waits; one for the process, not for a term of leadership.
    pub paces: Arc<Paces>,
    /// Where is told how far all are.
    pub board: Arc<Board>,
    /// Where identities go that Azure minds: somebody looks whether they are still there.
    pub doubts: mpsc::Sender<ArmId>,
    /// The series.
    pub metrics: Arc<ApplyMetrics>,
    /// Time since the epoch.
    pub now: fn() -> Duration,
    /// Times.
    pub pace: Pace,
}

/// The workers of one term of leadership: a new term begins with a new one, and with records that were
/// read anew.
pub struct Applier<A, R, L> {
    shared: Arc<Shared<A, R, L>>,
    tasks: TaskTracker,
}

struct Shared<A, R, L> {
    around: Surroundings<A, R, L>,
    workers: Mutex<BTreeMap<ArmId, watch::Sender<Arc<Wanted>>>>,
    closing: CancellationToken,
}

impl<A: Arm, R: Records, L: Lease> Applier<A, R, L> {
    /// No workers yet.
    #[must_use]
    pub fn new(around: Surroundings<A, R, L>) -> Self {
        Self {
            shared: Arc::new(Shared {
                around,
                workers: Mutex::default(),
                closing: CancellationToken::new(),
            }),
            tasks: TaskTracker::new(),
        }
    }

    /// Begins with the records that were kept, once everything was observed: what has a record and is
    /// wanted nowhere is a compute resource without nodes.
    pub fn begin(&self, kept: Vec<Kept>, wanted: Vec<Wanted>) {
        let mut records: BTreeMap<ArmId, Kept> = BTreeMap::new();
        for one in kept {
            records.insert(one.compute.id.clone(), one);
        }
        for one in wanted {
            let kept = records.remove(&one.desire.compute.id);
            self.put(one, kept.map(|kept| kept.record));
        }
        for one in records.into_values() {
            self.put(Wanted::nothing(one.compute), Some(one.record));
        }
    }

    /// What is wanted of a compute resource, from now on. Blocks on nothing.
    pub fn want(&self, wanted: Wanted) {
        self.put(wanted, None);
    }

    fn put(&self, wanted: Wanted, record: Option<Record>) {
        let id = wanted.desire.compute.id.clone();
        let wanted = Arc::new(wanted);
        let mut workers = self.shared.workers.lock();
        if let Some(worker) = workers.get(&id) {
            worker.send_if_modified(|before| {
                let differs = *before != wanted;
                if differs {
                    *before = wanted;
                }
                differs
            });
            return;
        }
        // Nothing to do, and nothing to remember.
        if wanted.desire.wanted.is_empty() && record.is_none() {
            return;
        }
        let (sender, receiver) = watch::channel(wanted);
        workers.insert(id, sender);
        let worker = Worker::new(self.shared.clone(), receiver, record);
        // Before the first report: what was Assigned when the last term ended is not news.
        worker.tell_kept();
        self.tasks.spawn(worker.run());
    }

    /// Somebody deleted an `AzureAssignment` (or we did): where it is still needed, it is written again.
    pub fn lost(&self, name: &str) {
        if !self.shared.around.records.lost(name) {
            return;
        }
        let workers = self.shared.workers.lock();
        let is_it = |wanted: &Wanted| wanted.desire.compute.assignment_name() == name;
        let worker = workers.values().find(|worker| is_it(&worker.borrow()));
        if let Some(worker) = worker {
            worker.send_modify(|_| {});
        }
    }

    /// Ends the term: no new writes. Waits, at most for `limit`, for writes that were sent already, so
    /// that what became of them is written down.
    pub async fn stop(&self, limit: Duration) {
        self.shared.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("changes of compute resources were still being sent at the end");
        }
    }
}

impl<A, R, L> Drop for Applier<A, R, L> {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}
