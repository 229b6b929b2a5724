//! The worker of one compute resource: waits for something to do, then does it.
//!
//! In: what is wanted, what is known of identities, time. Out: rounds (see `round`), one after the
//! other. A change opens a window in which others join it, while ARM is read if need be. After a
//! failure nothing is done before its pause has passed, whatever changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::metrics::Queued;
use super::round::Halt;
use super::search::Search;
use super::setbacks::Setbacks;
use super::{Arm, Lease, Shared, Surroundings, Wanted};
use crate::api::assignment::AssignmentState;
use crate::azure::arm::{ArmError, ComputeShown};
use crate::controller::board::{Told, Trouble};
use crate::controller::known::{Existence, Shown};
use crate::controller::record::{Entry, Record};
use crate::controller::records::Records;
use crate::model::compute::Compute;
use crate::model::ids::ArmId;

/// A worker.
pub(super) struct Worker<A, R, L> {
    pub(super) shared: Arc<Shared<A, R, L>>,
    pub(super) compute: Arc<Compute>,
    pub(super) wanted: watch::Receiver<Arc<Wanted>>,
    pub(super) state: State,
}

/// What a worker knows of its compute resource.
#[derive(Default)]
pub(super) struct State {
    /// What is, or is about to be, written down.
    pub record: Arc<Record>,
    /// What was written down last.
    pub written: Option<Told>,
    /// What ARM showed last; `None`: read again.
    pub seen: Option<Seen>,
    /// How often the board was told of identities until the last look at them.
    pub heard: u64,
    /// What was known of the identities in the last round.
    pub existence: BTreeMap<ArmId, Existence>,
    /// Where the culprits of a refusal are looked for.
    pub search: Search,
    /// The last refusal.
    pub minded: Option<ArmError>,
    /// Identities that are set aside.
    pub setbacks: Setbacks,
    /// What keeps all of it from being in order.
    pub trouble: Option<Trouble>,
    /// Failures in a row.
    pub failures: u32,
    /// Since when a change of before may still be on its way.
    pub in_flight: Option<Instant>,
    /// What a change of ours may have added whose end nobody knows.
    pub unsure: BTreeSet<ArmId>,
    /// How long the change before took, where it was in the same round.
    pub took: Option<Duration>,
    /// What a change of ours was to add that Azure refused: who adds it now is somebody else.
    pub refused: BTreeSet<ArmId>,
    /// Since when an identity is wanted that is not Assigned.
    pub asked: BTreeMap<ArmId, Instant>,
}

/// Whether an assigned identity is the one that was assigned, so that nothing follows from its being there.
fn is_as_recorded(entry: &Entry, now: &Existence) -> bool {
    let Existence::Exists {
        client_id,
        principal_id,
        ..
    } = now
    else {
        return false;
    };
    entry.state == AssignmentState::Assigned
        && principal_id.is_some()
        && entry.principal_id == *principal_id
        && entry.client_id == *client_id
}

/// From hearing of an identity to looking whether it is one of ours: what comes meanwhile is looked at
/// together.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What ARM showed.
pub(super) struct Seen {
    /// As plan takes it.
    pub shown: Shown,
    /// As it was.
    pub raw: ComputeShown,
    /// When.
    pub at: Instant,
    /// From when on it is too old.
    pub stale: Instant,
}

/// When a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Then, or when something changes.
    Look(Instant),
    /// Then, and not before.
    Barred(Instant),
    /// Never: there is nothing left.
    Ended,
}

/// Why a worker wakes up.
#[derive(PartialEq)]
enum Wake {
    Change,
    Time,
    Closing,
}

impl<A: Arm, R: Records, L: Lease> Worker<A, R, L> {
    pub(super) fn new(
        shared: Arc<Shared<A, R, L>>,
        wanted: watch::Receiver<Arc<Wanted>>,
        record: Option<Record>,
    ) -> Self {
        let compute = wanted.borrow().desire.compute.clone();
        let mut state = State::default();
        if let Some(record) = record {
            // Whoever wrote it may have died with a change on its way.
            let moves =
                |state| matches!(state, AssignmentState::Pending | AssignmentState::Removing);
            let mut entries = record.entries.values();
            let is_moving = entries.any(|entry| entry.owned && moves(entry.state));
            state.in_flight = is_moving.then(Instant::now);
            let owned = record.entries.iter().filter(|(_, entry)| entry.owned);
            state.unsure = owned.map(|(id, _)| id.clone()).collect();
            state.record = Arc::new(record);
            state.written = Some(Told {
                compute: compute.clone(),
                record: state.record.clone(),
                trouble: None,
            });
        }
        Self {
            shared,
            compute,
            wanted,
            state,
        }
    }

    pub(super) fn around(&self) -> &Surroundings<A, R, L> {
        &self.shared.around
    }

    pub(super) fn is_closing(&self) -> bool {
        self.shared.closing.is_cancelled()
    }

    /// Sleeps, unless the term ends. Whether it goes on.
    pub(super) async fn sleep_until(&self, at: Instant) -> bool {
        let sleep = sleep_until(at);
        self.shared
            .closing
            .run_until_cancelled(sleep)
            .await
            .is_some()
    }

    /// Tells the board what was kept of the last term.
    pub(super) fn tell_kept(&self) {
        if let Some(told) = self.state.written.clone() {
            self.around().board.tell(told);
        }
    }

    /// Works until nothing is left to do for ever, or the term ends.
    pub(super) async fn run(mut self) {
        let mut known = self.around().board.subscribe_existences();
        // What was there at the start counts as a change.
        let mut wake = Wake::Change;
        loop {
            let queued = self.around().metrics.queued();
            self.note_wanted();
            let read = match wake {
                Wake::Change => self.window().await,
                _ => Ok(()),
            };
            let next = self.round(read).await;
            drop::<Queued>(queued);
            wake = match next {
                Next::Ended if self.leave() => return,
                Next::Ended => Wake::Change,
                // Whatever changes meanwhile joins the next round.
                Next::Barred(at) if self.sleep_until(at).await => Wake::Time,
                Next::Barred(_) => Wake::Closing,
                Next::Look(at) => self.wait(&mut known, at).await,
            };
            if wake == Wake::Closing || self.is_closing() {
                return;
            }
        }
    }

    /// Until something changes, or the time has come.
    async fn wait(&mut self, known: &mut watch::Receiver<u64>, at: Instant) -> Wake {
        let mut look = None;
        loop {
            tokio::select! {
                () = self.shared.closing.cancelled() => return Wake::Closing,
                changed = self.wanted.changed() => {
                    return if changed.is_ok() { Wake::Change } else { Wake::Closing };
                }
                // Of hundreds of identities that Azure is asked about in turn most are none of ours.
                Ok(()) = known.changed(), if look.is_none() => look = Some(Instant::now() + LOOK_AGAIN),
                () = sleep_until(look.unwrap_or(at)), if look.is_some() => {
                    look = None;
                    known.mark_unchanged();
                    if self.has_news() || self.is_left() {
                        return Wake::Change;
                    }
                }
                () = sleep_until(at) => return Wake::Time,
            }
        }
    }

    /// The time in which changes join the first. What ARM shows is read meanwhile where it is not known.
    async fn window(&mut self) -> Result<(), Halt> {
        let end = Instant::now() + self.around().pace.debounce;
        let read = match &self.state.seen {
            None => self.read().await,
            Some(_) => Ok(()),
        };
        self.sleep_until(end).await;
        read
    }

    /// Whether something was heard that a round should know of. At a start Azure is asked about hundreds of
    /// identities, and almost all are as the record says.
    fn has_news(&mut self) -> bool {
        let (heard, news) = self.around().board.news_since(self.state.heard);
        self.state.heard = heard;
        let Some(news) = news else {
            return true;
        };
        let wanted = self.wanted.borrow().clone();
        news.iter().any(|id| {
            let entry = self.state.record.entries.get(id);
            let concerns = entry.is_some() || wanted.desire.wanted.contains_key(id);
            concerns && {
                let now = self.around().board.existence(id);
                let before = self.state.existence.get(id);
                before != Some(&now) && !entry.is_some_and(|entry| is_as_recorded(entry, &now))
            }
        })
    }

    /// What is known of the identities that matter here.
    pub(super) fn existences(&mut self) -> BTreeMap<ArmId, Existence> {
        self.state.heard = self.around().board.news_since(u64::MAX).0;
        let wanted = self.wanted.borrow().clone();
        let ids = wanted
            .desire
            .wanted
            .keys()
            .chain(self.state.record.entries.keys());
        let board = &self.around().board;
        ids.map(|id| (id.clone(), board.existence(id))).collect()
    }

    /// Whether an identity of the record is about to be deleted in Azure, which no plan knew yet.
    fn is_left(&self) -> bool {
        let now = (self.around().now)();
        let entries = &self.state.record.entries;
        let mut leaving = self.around().board.leaving(entries.keys()).into_iter();
        leaving.any(|id| {
            let entry = entries.get(&id).filter(|entry| entry.owned);
            entry.is_some_and(|entry| entry.remove_after.is_none_or(|at| at > now))
        })
    }

    /// Since when each identity is waited for.
    pub(super) fn note_wanted(&mut self) {
        let wanted = self.wanted.borrow().clone();
        let now = Instant::now();
        let entries = &self.state.record.entries;
        let asked = &mut self.state.asked;
        asked.retain(|id, _| wanted.desire.wanted.contains_key(id));
        for id in wanted.desire.wanted.keys() {
            let is_there = |state| state == AssignmentState::Assigned;
            if !entries.get(id).is_some_and(|entry| is_there(entry.state)) {
                asked.entry(id.clone()).or_insert(now);
            }
        }
    }

    /// Takes the worker out, unless something is wanted again. Whether it is out.
    fn leave(&self) -> bool {
        let mut workers = self.shared.workers.lock();
        let is_wanted = self.wanted.has_changed().unwrap_or(false);
        if !is_wanted {
            workers.remove(&self.compute.id);
            self.around().paces.forget(&self.compute.id);
        }
        !is_wanted
    }

    /// How long until the next look at what ARM shows; not all at once.
    pub(super) fn drift(&self) -> Duration {
        self.around()
            .pace
            .drift_interval
            .mul_f64(0.9 + 0.2 * fastrand::f64())
    }
}
