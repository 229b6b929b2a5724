//! One round of a worker: read, plan, write down, change, and again until nothing is left to change.
//!
//! In: what is wanted, what is known. Out: when to look again. Blocks on ARM, the records and the lease.
//! Holds that the record is written before the change is sent, and that what ended a round is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::pace::{Access, NotBefore, subscription_of};
use super::setbacks::Look;
use super::words::{plainly, trouble};
use super::worker::{Next, Seen, Worker};
use super::{Arm, Lease, Wanted};
use crate::api::assignment::AssignmentState;
use crate::azure::arm::{ArmError, ArmErrorKind, ComputeShown, ProvisioningState};
use crate::controller::board::{Told, Trouble};
use crate::controller::desired::ComputeDesire;
use crate::controller::known::Shown;
use crate::controller::plan::{Patch, Plan, Situation, TOO_MANY, plan};
use crate::controller::record::Record;
use crate::controller::records::{RecordError, Records};
use crate::kubernetes::CallError;
use crate::model::backoff;

/// A read takes at most this long.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(10);
/// Steps of one round: no plan needs as many, and none goes on for ever.
const STEPS: usize = 48;
/// What was shown without a version may have changed after this time.
const UNVERSIONED: Duration = Duration::from_secs(5);
/// Waits for our own rate are slept through up to this one.
const SHORT: Duration = Duration::from_secs(2);
/// The first pause after a failure, and the longest.
const PAUSES: backoff::Bounds = (Duration::from_secs(5), Duration::from_mins(10));
/// The same where the record could not be written.
const RECORD_PAUSES: backoff::Bounds = (Duration::from_secs(1), Duration::from_secs(30));
/// How long 429 without `Retry-After` lasts.
const THROTTLED: Duration = Duration::from_secs(30);

/// Why a round ends early.
#[derive(Debug)]
pub(super) enum Halt {
    /// Our own rate, or an operation that is waited for.
    Paced(Instant),
    /// Azure asks to wait until then.
    Throttled(Instant),
    /// Something keeps it from being in order; not before this time it is tried again.
    Failed(Trouble, Option<Duration>),
    /// The record cannot be written.
    Unwritten(RecordError),
    /// Nothing is left of it.
    Gone,
    /// The term ends.
    Closing,
}

/// What a step came to.
enum Step {
    Again,
    Rest(Next),
}

impl<A: Arm, R: Records, L: Lease> Worker<A, R, L> {
    /// `before`: what reading in the window came to.
    pub(super) async fn round(&mut self, before: Result<(), Halt>) -> Next {
        if let Err(halt) = before {
            return self.halted(halt).await;
        }
        self.state.took = None;
        for at in 0..STEPS {
            if self.is_closing() {
                return self.last_words(at > 0).await;
            }
            match self.step().await {
                Ok(Step::Again) => {}
                Ok(Step::Rest(next)) => return next,
                Err(halt) => return self.halted(halt).await,
            }
        }
        let words = "what Azure shows differs from what it was asked for again and again: is something else changing it?";
        let halt = Halt::Failed(plainly("Unsettled", words), None);
        self.halted(halt).await
    }

    /// The term ends: what became of the last change is written down, nothing more is asked.
    async fn last_words(&mut self, changed: bool) -> Next {
        if changed && self.is_fresh() {
            let wanted = self.wanted.borrow().clone();
            let plan = self.planned(&wanted, (self.around().now)());
            self.state.record = Arc::new(self.with_client_ids(plan.record));
            if let Err(Halt::Unwritten(error)) = self.tell().await {
                tracing::warn!(%error, "the next leader finds out what became of a change");
            }
        }
        Next::Barred(Instant::now())
    }

    async fn step(&mut self) -> Result<Step, Halt> {
        let wanted = self.wanted.borrow_and_update().clone();
        self.note_wanted();
        if !self.is_fresh() {
            self.read().await?;
        }
        let now = (self.around().now)();
        let plan = self.planned(&wanted, now);
        if plan.read {
            self.state.seen = None;
            return Ok(Step::Again);
        }
        let patch = plan.patch.and_then(|patch| self.not_set_aside(patch, now));
        if patch.is_none() && self.state.in_flight.is_some() {
            // A removal of before may be on its way: what is there still is not yet what stays.
            self.wait_for_others()?;
        }
        self.state.record = Arc::new(self.with_client_ids(plan.record));
        let Some(patch) = patch else {
            let left_out = plan.left_out.len();
            self.state.trouble = (left_out > 0).then(|| too_many(left_out));
            return self.rest(plan.again, now).await;
        };
        self.tell().await?;
        self.wait_for_others()?;
        self.change(&wanted, &patch).await?;
        Ok(Step::Again)
    }

    fn planned(&mut self, wanted: &Wanted, now: Duration) -> Plan {
        self.disown();
        let existence = self.existences();
        let desire = self.without_leaving(wanted, now);
        let state = &mut self.state;
        let keep =
            |id: &_| wanted.desire.wanted.contains_key(id) || state.record.entries.contains_key(id);
        state.setbacks.refresh(keep, |id| Look {
            existence: existence.get(id).cloned().unwrap_or_default(),
            revision: wanted.revisions.get(id).copied().unwrap_or_default(),
        });
        state.existence = existence;
        plan(&Situation {
            desire: desire.as_ref().unwrap_or(&wanted.desire),
            immutable: &wanted.immutable,
            mutable: &wanted.mutable,
            record: &state.record,
            shown: state.seen.as_ref().map(|seen| &seen.shown),
            existence: &state.existence,
            setbacks: state.setbacks.all(),
            grace: self.shared.around.pace.removal_grace,
            now,
        })
    }

    /// Identities that are about to be deleted in Azure are wanted by nobody, and have no grace time: left
    /// here they would be dead, and Azure minds dead ones. `None`: there are none.
    fn without_leaving(&mut self, wanted: &Wanted, now: Duration) -> Option<ComputeDesire> {
        let board = &self.shared.around.board;
        for id in board.leaving(self.state.record.entries.keys()) {
            let record = Arc::make_mut(&mut self.state.record);
            if let Some(entry) = record.entries.get_mut(&id) {
                entry.remove_after = Some(entry.remove_after.map_or(now, |at| at.min(now)));
            }
        }
        let leaving = board.leaving(wanted.desire.wanted.keys());
        let mut desire = (!leaving.is_empty()).then(|| wanted.desire.clone());
        for id in leaving {
            desire.as_mut()?.wanted.remove(&id);
        }
        desire
    }

    /// The change without what Azure minded lately.
    fn not_set_aside(&self, mut patch: Patch, now: Duration) -> Option<Patch> {
        let setbacks = &self.state.setbacks;
        patch.add.retain(|id| !setbacks.holds(id, now));
        patch.remove.retain(|id| !setbacks.holds(id, now));
        (!patch.add.is_empty() || !patch.remove.is_empty()).then_some(patch)
    }

    /// Nothing is to be changed.
    async fn rest(&mut self, again: Option<Duration>, now: Duration) -> Result<Step, Halt> {
        self.state.in_flight = None;
        self.tell().await?;
        self.state.failures = 0;
        self.note_assigned();
        let is_wanted = !self.wanted.borrow().desire.wanted.is_empty();
        if self.state.record.entries.is_empty() && !is_wanted {
            return Err(Halt::Gone);
        }
        let setbacks = self.state.setbacks.all().values();
        let set_aside = setbacks
            .map(|setback| setback.until)
            .filter(|until| *until > now);
        let again = again.into_iter().chain(set_aside).min();
        let again = again.map(|at| Instant::now() + at.saturating_sub(now));
        let stale = self.state.seen.as_ref().map(|seen| seen.stale);
        let at = again.into_iter().chain(stale).min();
        Ok(Step::Rest(Next::Look(
            at.unwrap_or_else(|| Instant::now() + self.drift()),
        )))
    }

    fn is_fresh(&self) -> bool {
        self.state.seen.as_ref().is_some_and(|seen| {
            let is_versioned = seen.raw.etag.is_some() || seen.at.elapsed() < UNVERSIONED;
            is_versioned && Instant::now() < seen.stale
        })
    }

    /// Reads what ARM shows.
    pub(super) async fn read(&mut self) -> Result<(), Halt> {
        self.admit(Access::Read).await?;
        match self.asked().await {
            Ok(shown) => {
                self.see(shown);
                Ok(())
            }
            Err(error) => Err(self.unreadable(&error)),
        }
    }

    /// Asks ARM, with a limit.
    pub(super) async fn asked(&self) -> Result<ComputeShown, ArmError> {
        let asked = self.around().arm.compute(&self.compute, READ_LIMIT);
        let late = || ArmError::new(ArmErrorKind::Unavailable, "no answer in time");
        timeout(READ_LIMIT, asked).await.map_err(|_| late())?
    }

    pub(super) fn see(&mut self, raw: ComputeShown) {
        let at = Instant::now();
        self.state.seen = Some(Seen {
            shown: Shown::of(&raw, (self.around().now)()),
            at,
            stale: at + self.drift(),
            raw,
        });
    }

    /// What a read that failed means.
    pub(super) fn unreadable(&mut self, error: &ArmError) -> Halt {
        self.state.seen = None;
        let is_gone = match error.kind {
            ArmErrorKind::Throttled => return self.throttled(error),
            ArmErrorKind::NotFound => true,
            // Of a subscription that is not seen nobody knows whether it is gone.
            ArmErrorKind::GroupOrSubscriptionGone => {
                !error.code.to_ascii_lowercase().contains("subscription")
            }
            _ => false,
        };
        if is_gone && self.wanted.borrow().desire.nodes == 0 {
            return Halt::Gone;
        }
        Halt::Failed(trouble(error), error.retry_after)
    }

    /// 429: remembered for the compute resource, or for its subscription.
    pub(super) fn throttled(&self, error: &ArmError) -> Halt {
        let wait = error.retry_after.unwrap_or(THROTTLED);
        // Not all at the same moment.
        let wait = wait + Duration::from_millis(fastrand::u64(100..1000));
        let at = Instant::now() + wait;
        let all = error.code.to_ascii_lowercase().starts_with("subscription");
        self.around().paces.wait(&self.compute, at, all);
        let until = (self.around().now)() + wait;
        let subscription = subscription_of(&self.compute.id);
        self.around().metrics.throttled(&subscription, until);
        Halt::Throttled(at)
    }

    /// Waits for the rate, where that is short.
    pub(super) async fn admit(&self, access: Access) -> Result<(), Halt> {
        loop {
            match self.around().paces.take(&self.compute, access) {
                Ok(()) => return Ok(()),
                Err(NotBefore { at, asked: true }) => return Err(Halt::Throttled(at)),
                Err(NotBefore { at, .. }) if at > Instant::now() + SHORT => {
                    return Err(Halt::Paced(at));
                }
                Err(NotBefore { at, .. }) => {
                    if !self.sleep_until(at).await {
                        return Err(Halt::Closing);
                    }
                }
            }
        }
    }

    /// A change of ours from before, or somebody's operation, may still be going on: what ARM shows is
    /// not yet what will be.
    fn wait_for_others(&mut self) -> Result<(), Halt> {
        let state = self.state.seen.as_ref().map(|seen| seen.raw.state);
        if state == Some(ProvisioningState::Deleting) {
            self.state.seen = None;
            let words = "Azure is deleting it; nothing is changed any more";
            return Err(Halt::Failed(plainly("ComputeGone", words), None));
        }
        let Some(since) = self.state.in_flight else {
            return Ok(());
        };
        let waited = since.elapsed();
        if state != Some(ProvisioningState::Updating)
            || waited > self.around().pace.operation_timeout
        {
            self.state.in_flight = None;
            return Ok(());
        }
        self.state.seen = None;
        let pause = waited.clamp(PAUSES.0, Duration::from_mins(1));
        Err(Halt::Paced(Instant::now() + pause))
    }

    /// Client ids that only the compute resource tells.
    fn with_client_ids(&self, mut record: Record) -> Record {
        let shown = self.state.seen.as_ref().map(|seen| &seen.raw.identities);
        for (id, entry) in &mut record.entries {
            let principal = shown.and_then(|shown| shown.get(id));
            entry.client_id = entry.client_id.or(principal.and_then(|one| one.client_id));
        }
        record
    }

    fn note_assigned(&mut self) {
        let entries = &self.state.record.entries;
        let metrics = &self.shared.around.metrics;
        self.state.asked.retain(|id, since| {
            let state = entries.get(id).map(|entry| entry.state);
            let is_there = state == Some(AssignmentState::Assigned);
            if is_there {
                metrics.assigned(since.elapsed());
            }
            !is_there
        });
    }

    /// Writes down how far it is where that differs, and tells the board.
    async fn tell(&mut self) -> Result<(), Halt> {
        let told = Told {
            compute: self.compute.clone(),
            record: self.state.record.clone(),
            trouble: self.state.trouble.clone(),
        };
        let is_known = match &self.state.written {
            Some(written) => {
                says_the_same(written, &told) && self.around().records.holds(&self.compute)
            }
            None => told.record.entries.is_empty() && told.trouble.is_none(),
        };
        if !is_known {
            self.lead(Duration::ZERO).await?;
            let now = (self.around().now)();
            let written = self.around().records.write(&told, now);
            self.while_leading(written).await.map_err(Halt::Unwritten)?;
            self.state.written = Some(told.clone());
        }
        self.around().board.tell(told);
        Ok(())
    }

    /// A write of the record, cut off where the lease ends: the next leader's must not be overwritten.
    async fn while_leading(
        &self,
        write: impl Future<Output = Result<(), RecordError>>,
    ) -> Result<(), RecordError> {
        let until = self.around().lease.until();
        let written = timeout_at(until.unwrap_or_else(Instant::now), write).await;
        written.unwrap_or_else(|_| {
            Err(RecordError::Call {
                name: self.compute.assignment_name(),
                source: CallError::Late,
            })
        })
    }

    /// What ends a round early is told, and paused for.
    async fn halted(&mut self, halt: Halt) -> Next {
        let now = Instant::now();
        let at = match halt {
            Halt::Closing => return Next::Barred(now),
            Halt::Paced(at) => return Next::Barred(at),
            Halt::Gone => match self.forget().await {
                Ok(()) => return Next::Ended,
                Err(error) => return self.unwritten(&error),
            },
            Halt::Unwritten(error) => return self.unwritten(&error),
            Halt::Throttled(at) => {
                let words =
                    "Azure takes no more requests for it for now (429); it goes on by itself";
                self.state.trouble = Some(plainly("Throttled", words));
                at
            }
            Halt::Failed(trouble, after) => {
                tracing::warn!(compute = %self.compute, reason = %trouble.reason, "{}", trouble.message);
                self.state.trouble = Some(trouble);
                now + self.pause(PAUSES).max(after.unwrap_or_default())
            }
        };
        let until = (self.around().now)() + at.saturating_duration_since(now);
        if let Some(trouble) = &mut self.state.trouble {
            trouble.until = Some(until);
        }
        match self.tell().await {
            Err(Halt::Unwritten(error)) => {
                tracing::warn!(%error, "what became of a compute resource is not written down yet");
                Next::Barred(at)
            }
            _ => Next::Barred(at),
        }
    }

    fn unwritten(&mut self, error: &RecordError) -> Next {
        tracing::warn!(%error, "nothing is asked of Azure before the record is written");
        Next::Barred(Instant::now() + self.pause(RECORD_PAUSES))
    }

    async fn forget(&mut self) -> Result<(), RecordError> {
        if self.state.written.is_some() {
            if self.lead(Duration::ZERO).await.is_err() {
                return Ok(());
            }
            let forgotten = self.around().records.forget(&self.compute);
            self.while_leading(forgotten).await?;
            self.state.written = None;
        }
        self.state.record = Arc::default();
        self.around().board.forget(&self.compute.id);
        Ok(())
    }

    /// The pause after one more failure: doubling, not the same for all.
    fn pause(&mut self, bounds: backoff::Bounds) -> Duration {
        let pause = backoff::pause(bounds, self.state.failures);
        self.state.failures = self.state.failures.saturating_add(1);
        pause.mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}

fn too_many(left_out: usize) -> Trouble {
    let words = format!(
        "{left_out} more identities are wanted here than an AzureAssignment holds; they come when others go. Spread their pods over more node pools, or use the token source `federated`"
    );
    plainly(TOO_MANY, &words)
}

/// Until when something is waited for is not written: it changes all the time.
fn says_the_same(one: &Told, other: &Told) -> bool {
    let words = |told: &Told| {
        let trouble = told.trouble.as_ref();
        trouble.map(|trouble| (trouble.reason.clone(), trouble.message.clone()))
    };
    one.record == other.record && words(one) == words(other)
}
