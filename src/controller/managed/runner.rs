//! All managed identities: a worker for each, fed with its claim.
//!
//! In: the observed world and its changes; whether Lanyard stays. Out: workers that come and go. Nothing
//! here blocks. What depends on which pods there are is worked out once a second at most: it costs a pass
//! over all pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::claim::{Claim, Mode};
use super::outside::{Azure, Leading, Objects};
use super::step::Settings;
use super::worker::{Shared, Worker};
use super::{accounts, claims};
use crate::controller::board::Board;
use crate::controller::world::{Change, World};
use crate::model::ids::ObjectName;

/// Calls of Azure at once, of all identities: its limit counts creations, too (40 in 20 s).
const PLACES: usize = 4;
/// From one pass over all pods to the next.
const PASS: Duration = Duration::from_secs(1);

/// All managed identities.
pub struct Managed<A, O, L> {
    shared: Arc<Shared<A, O, L>>,
    workers: BTreeMap<ObjectName, watch::Sender<Arc<Claim>>>,
    running: TaskTracker,
    mode: watch::Receiver<Mode>,
    /// Whether pods changed since the last pass.
    pods: bool,
    passed: Option<Instant>,
}

impl<A: Azure, O: Objects, L: Leading> Managed<A, O, L> {
    /// Nobody works yet. `now`: the time since the epoch.
    pub fn new(
        (azure, objects, lease): (A, O, L),
        settings: Settings,
        board: Arc<Board>,
        mode: watch::Receiver<Mode>,
        now: fn() -> Duration,
    ) -> Self {
        let shared = Shared {
            azure,
            objects,
            lease,
            board,
            settings,
            mode: mode.clone(),
            places: Semaphore::new(PLACES),
            now,
        };
        Self {
            shared: Arc::new(shared),
            workers: BTreeMap::new(),
            running: TaskTracker::new(),
            mode,
            pods: false,
            passed: None,
        }
    }

    /// Takes everything in: at the start, when all was observed once. Not before: a binding that was not
    /// read yet would look like one that is gone.
    pub fn start(&mut self, world: &World) {
        self.work_out(world, &self.all(world));
    }

    /// Takes changes in that `world` has already. To be called once a second also without changes. Needs a
    /// runtime.
    pub fn update(&mut self, world: &World, changes: &[Change]) {
        let mut names = BTreeSet::new();
        if self.mode.has_changed().unwrap_or_default() {
            self.mode.mark_unchanged();
            names.extend(self.all(world));
        }
        for change in changes {
            match change {
                Change::Identity(name, _) => drop(names.insert(name.clone())),
                Change::Binding(name, _) => {
                    let workers = self.workers.keys();
                    names.extend(workers.filter(|of| of.namespace == name.namespace).cloned());
                }
                Change::Policy(..) | Change::Namespace(..) => names.extend(self.all(world)),
                Change::Assignment(..) => names.extend(self.leaving()),
                Change::Pod(..) => self.pods = true,
                Change::Node(..) | Change::Exception(..) => {}
            }
        }
        let now = Instant::now();
        if self.pods && self.passed.is_none_or(|passed| passed + PASS <= now) {
            (self.pods, self.passed) = (false, Some(now));
            let workers = self.workers.keys();
            names.extend(
                workers
                    .filter(|of| accounts::follows_pods(world, of))
                    .cloned(),
            );
        }
        self.work_out(world, &names);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// Ends all workers: no new calls; waits for those that were sent, that long at most.
    pub async fn end(self, limit: Duration) {
        drop(self.workers);
        self.running.close();
        if timeout(limit, self.running.wait()).await.is_err() {
            tracing::warn!("calls for managed identities did not end in time");
        }
    }

    fn all(&self, world: &World) -> BTreeSet<ObjectName> {
        let observed = world.identities.iter();
        let observed = observed.filter(|(_, seen)| claims::concerns(seen));
        let known = self.workers.keys().cloned();
        known
            .chain(observed.map(|(name, _)| name.clone()))
            .collect()
    }

    fn leaving(&self) -> BTreeSet<ObjectName> {
        let all = *self.mode.borrow() != Mode::Serve;
        let workers = self.workers.iter();
        workers
            .filter(|(_, claim)| all || claim.borrow().deleting)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn work_out(&mut self, world: &World, names: &BTreeSet<ObjectName>) {
        if names.is_empty() {
            return;
        }
        let leaving = *self.mode.borrow() != Mode::Serve;
        for (name, claim) in claims::claims(world, names, leaving) {
            let Some(claim) = claim else {
                self.workers.remove(&name);
                continue;
            };
            let running = self.workers.get(&name);
            if let Some(worker) = running.filter(|of| of.borrow().uid == claim.uid) {
                worker.send_if_modified(|before| {
                    let changed = **before != claim;
                    if changed {
                        *before = Arc::new(claim);
                    }
                    changed
                });
            } else {
                // Another object of the same name is another identity.
                let (sender, claims) = watch::channel(Arc::new(claim));
                let worker = Worker::new(&self.shared, claims);
                self.running.spawn(worker.run());
                self.workers.insert(name, sender);
            }
        }
    }
}
