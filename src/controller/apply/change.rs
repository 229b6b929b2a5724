//! Sends one change of a compute resource and follows it to its end.
//!
//! In: what to add and remove. Out: what ARM shows afterwards, or identities set aside, or why not. Holds
//! invariant 8: nothing is sent by one whose lease may end before the request does; a request whose
//! outcome is not known is looked for before another one is sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::metrics::Patched;
use super::outside::Sent;
use super::pace::Access;
use super::round::{Halt, READ_LIMIT};
use super::search::Verdict;
use super::setbacks::Look;
use super::words::{plainly, setback, trouble};
use super::worker::Worker;
use super::{Arm, Lease, Wanted};
use crate::azure::arm::{
    ArmError, ArmErrorKind, ComputeShown, IdentityPatch, MOST_IDENTITIES, Progress,
    ProvisioningState,
};
use crate::controller::lease::{WRITE_LEASE, WRITE_LIMIT};
use crate::controller::plan::Patch;
use crate::controller::records::Records;
use crate::model::ids::ArmId;

/// How often the lease is looked at that is too short.
const LEASE_POLL: Duration = Duration::from_millis(200);
/// Between two looks at an operation.
const LOOKS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The longest pause that Azure may ask for between them.
const LONGEST_LOOK: Duration = Duration::from_mins(2);

/// How a change that Azure took ended otherwise than well.
enum Ended {
    /// Azure says why.
    Refused(ArmError),
    /// Something else.
    Halt(Halt),
}

impl<A: Arm, R: Records, L: Lease> Worker<A, R, L> {
    /// Asks for a part of the change, as much of it as goes into one request.
    pub(super) async fn change(&mut self, wanted: &Wanted, patch: &Patch) -> Result<(), Halt> {
        let part = self.state.search.part(patch, MOST_IDENTITIES);
        self.admit(Access::Write).await?;
        let sent = self.send(&part).await?;
        self.note_sent(&part, sent.as_ref().err());
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => {
                self.around().metrics.patched(Patched::by(error.kind));
                return self.minded(wanted, &part, error);
            }
        };
        let ended = match sent {
            Sent::Done(shown) => Ok(shown),
            Sent::Running { operation, after } => {
                let begun = Instant::now();
                self.state.in_flight = Some(begun);
                let ended = self.follow(&part, &operation, after).await;
                self.state.took = ended.is_ok().then(|| begun.elapsed());
                ended
            }
        };
        match ended {
            Ok(shown) => {
                self.around().metrics.patched(Patched::Done);
                self.see(shown);
                self.took(wanted, &part)
            }
            Err(Ended::Refused(error)) => {
                self.around().metrics.patched(Patched::by(error.kind));
                // Part of it may be done.
                self.state.seen = None;
                self.state.in_flight = None;
                self.minded(wanted, &part, error)
            }
            Err(Ended::Halt(halt)) => {
                self.around().metrics.patched(Patched::Unknown);
                self.state.unsure.extend(part.add.iter().cloned());
                self.state.seen = None;
                Err(halt)
            }
        }
    }

    /// What became of a request, for the ownership of what it was to add: the intent is written down as
    /// owned, but of a request that was refused nothing came.
    fn note_sent(&mut self, part: &Patch, error: Option<&ArmError>) {
        let state = &mut self.state;
        let entries = &state.record.entries;
        state.unsure.retain(|id| entries.contains_key(id));
        state.refused.retain(|id| entries.contains_key(id));
        if error.is_some_and(|error| !error.may_have_happened()) {
            let refused = part.add.difference(&state.unsure).cloned();
            state.refused.extend(refused);
            return;
        }
        state.refused.retain(|id| !part.add.contains(id));
        if error.is_some() {
            state.unsure.extend(part.add.iter().cloned());
        }
    }

    /// What was refused, and is there all the same, was added by somebody else: it is not ours.
    pub(super) fn disown(&mut self) {
        let state = &mut self.state;
        let Some(seen) = &state.seen else { return };
        let shown = &seen.shown.identities;
        let theirs = |id: &ArmId| shown.contains_key(id);
        for id in state.refused.iter().filter(|id| theirs(id)) {
            let record = Arc::make_mut(&mut state.record);
            if let Some(entry) = record.entries.get_mut(id) {
                entry.owned = false;
            }
        }
        state.refused.retain(|id| !theirs(id));
    }

    /// Sends once. The lease is looked at last of all.
    async fn send(&self, part: &Patch) -> Result<Result<Sent<A::Operation>, ArmError>, Halt> {
        let Some(seen) = &self.state.seen else {
            return Err(Halt::Paced(Instant::now()));
        };
        let add = part.add.iter().cloned().collect();
        // As ARM spells it: what goes is what it shows.
        let shown = |id: &ArmId| {
            seen.raw
                .identities
                .get_key_value(id)
                .map(|(id, _)| id.clone())
        };
        let remove = part.remove.iter().filter_map(shown).collect();
        let patch = IdentityPatch::of(&seen.raw, add, remove);
        loop {
            let prepared = self.around().arm.prepare(WRITE_LIMIT).await;
            prepared.map_err(|error| Halt::Failed(trouble(&error), error.retry_after))?;
            // What leads by now may be a later term of this process, with workers of its own.
            if self.is_closing() {
                return Err(Halt::Closing);
            }
            if self.around().lease.lasts(WRITE_LEASE) {
                break;
            }
            self.lead(WRITE_LEASE).await?;
        }
        // A term that ended writes nothing in the next one, though this process may lead again.
        if self.is_closing() {
            return Err(Halt::Closing);
        }
        let late = || ArmError::new(ArmErrorKind::Unavailable, "no answer to a change in time");
        let sent = self.around().arm.patch(&self.compute, &patch, WRITE_LIMIT);
        Ok(timeout(WRITE_LIMIT, sent)
            .await
            .unwrap_or_else(|_| Err(late())))
    }

    /// Waits until the lease lasts longer than this.
    pub(super) async fn lead(&self, time: Duration) -> Result<(), Halt> {
        while !self.around().lease.lasts(time) {
            if !self.sleep_until(Instant::now() + LEASE_POLL).await {
                return Err(Halt::Closing);
            }
        }
        Ok(())
    }

    /// Azure did it.
    fn took(&mut self, wanted: &Wanted, part: &Patch) -> Result<(), Halt> {
        let state = &mut self.state;
        state.in_flight = None;
        for id in part.add.union(&part.remove) {
            state.setbacks.clear(id);
            state.unsure.remove(id);
        }
        if let Some(culprit) = state.search.took(part)
            && let Some(error) = state.minded.clone()
        {
            self.set_aside(wanted, &culprit, &error);
        }
        if self.shows(part) {
            (self.state.failures, self.state.trouble) = (0, None);
            return Ok(());
        }
        let words = "Azure says that it did what was asked, and does not show it";
        self.state.seen = None;
        Err(Halt::Failed(plainly("NotTaken", words), None))
    }

    fn shows(&self, part: &Patch) -> bool {
        let seen = self.state.seen.as_ref();
        seen.is_some_and(|seen| applied(&seen.raw, part))
    }

    /// Azure did not do it, and says why. `Ok`: the round goes on with what is left.
    fn minded(&mut self, wanted: &Wanted, part: &Patch, error: ArmError) -> Result<(), Halt> {
        let about_identities = match error.kind {
            ArmErrorKind::Throttled => return Err(self.throttled(&error)),
            ArmErrorKind::Precondition => {
                self.state.seen = None;
                return Ok(());
            }
            // Its token was dropped: once more with another one.
            ArmErrorKind::Unauthenticated if self.state.failures == 0 => {
                self.state.failures = 1;
                return Ok(());
            }
            ArmErrorKind::Conflict | ArmErrorKind::Unavailable | ArmErrorKind::Nonsense => {
                self.state.seen = None;
                self.state.in_flight = Some(Instant::now());
                return Err(Halt::Failed(trouble(&error), error.retry_after));
            }
            ArmErrorKind::NotFound | ArmErrorKind::GroupOrSubscriptionGone => {
                return Err(self.unreadable(&error));
            }
            ArmErrorKind::Unauthenticated | ArmErrorKind::Forbidden => {
                return Err(Halt::Failed(trouble(&error), error.retry_after));
            }
            ArmErrorKind::Refused => false,
            ArmErrorKind::BadIdentity
            | ArmErrorKind::LinkedAuthorization
            | ArmErrorKind::TooMany => true,
        };
        let verdict = self
            .state
            .search
            .refused(part, &error.identities, about_identities);
        match verdict {
            Verdict::Smaller => {}
            Verdict::Everything => {
                return Err(Halt::Failed(trouble(&error), error.retry_after));
            }
            Verdict::Culprits(culprits) => {
                for culprit in &culprits {
                    self.set_aside(wanted, culprit, &error);
                }
                tracing::info!(compute = %self.compute, ?culprits, %error,
                    "identities that Azure does not take are set aside");
            }
        }
        self.state.minded = Some(error);
        Ok(())
    }

    fn set_aside(&mut self, wanted: &Wanted, identity: &ArmId, error: &ArmError) {
        let look = Look {
            existence: self.around().board.existence(identity),
            revision: wanted.revisions.get(identity).copied().unwrap_or_default(),
        };
        let now = (self.around().now)();
        let words = setback(error, identity);
        self.state.setbacks.set(identity, words, look, now);
        // Where it is gone, its coming back is a reason to try again. A full channel: others ask already.
        let _ = self.around().doubts.try_send(identity.clone());
    }

    /// Looks at the resource until it shows the change: one read both ends the wait and confirms. Only
    /// where it shows something else the operation is asked. A change right after another one takes about
    /// as long: until then nobody looks.
    async fn follow(
        &mut self,
        part: &Patch,
        operation: &A::Operation,
        after: Duration,
    ) -> Result<ComputeShown, Ended> {
        let deadline = Instant::now() + self.around().pace.operation_timeout;
        let mut pause = after.clamp(LOOKS.0, LONGEST_LOOK);
        let mut first = self.state.took.take().map(|took| took.max(pause));
        loop {
            let at = Instant::now() + first.take().unwrap_or(pause);
            if !self.sleep_until(at.min(deadline)).await {
                return Err(Ended::Halt(Halt::Closing));
            }
            if Instant::now() >= deadline {
                self.state.in_flight = Some(Instant::now());
                let words = "an operation of Azure's on it does not come to an end; it is waited for. See the activity log of the resource in Azure";
                return Err(Ended::Halt(Halt::Failed(
                    plainly("OperationTimeout", words),
                    None,
                )));
            }
            pause = (pause * 2).min(LOOKS.1);
            match self.look().await.map_err(Ended::Halt)? {
                Ok(shown) if shown.state == ProvisioningState::Updating => {}
                Ok(shown) if is_done(&shown, part) => return Ok(shown),
                Ok(_) => match self.ask(operation).await? {
                    Asked::Done(shown) => return Ok(shown),
                    Asked::Running(after) => {
                        pause = after.unwrap_or(pause).clamp(LOOKS.0, LONGEST_LOOK);
                    }
                },
                Err(error)
                    if matches!(
                        error.kind,
                        ArmErrorKind::Unavailable | ArmErrorKind::Nonsense
                    ) => {}
                Err(error) => return Err(Ended::Halt(self.unreadable(&error))),
            }
        }
    }

    /// One read of the resource; where Azure or the rate asks to wait, after that.
    async fn look(&self) -> Result<Result<ComputeShown, ArmError>, Halt> {
        loop {
            let wait = match self.admit(Access::Read).await {
                Ok(()) => match self.asked().await {
                    Err(error) if error.kind == ArmErrorKind::Throttled => self.throttled(&error),
                    other => return Ok(other),
                },
                Err(wait) => wait,
            };
            let (Halt::Throttled(at) | Halt::Paced(at)) = wait else {
                return Err(wait);
            };
            if !self.sleep_until(at).await {
                return Err(Halt::Closing);
            }
        }
    }

    /// Asks the operation itself, where the resource is at rest and does not show the change.
    async fn ask(&self, operation: &A::Operation) -> Result<Asked, Ended> {
        let failed = |trouble, after| Err(Ended::Halt(Halt::Failed(trouble, after)));
        let asked = self.around().arm.progress(operation, READ_LIMIT).await;
        match asked {
            Ok(Progress::Running { after }) => Ok(Asked::Running(Some(after))),
            Ok(Progress::Failed(error)) => Err(Ended::Refused(error)),
            Ok(Progress::Canceled) => {
                let words = "the change was canceled in Azure; it is asked for again";
                failed(plainly("Canceled", words), None)
            }
            // It ended between the two reads.
            Ok(Progress::Succeeded) => match self.look().await.map_err(Ended::Halt)? {
                Ok(shown) => Ok(Asked::Done(shown)),
                Err(error) => failed(trouble(&error), error.retry_after),
            },
            // The next look waits for it.
            Err(error) if error.kind == ArmErrorKind::Throttled => {
                self.throttled(&error);
                Ok(Asked::Running(None))
            }
            Err(error) if error.is_transient() => Ok(Asked::Running(error.retry_after)),
            Err(error) => failed(trouble(&error), error.retry_after),
        }
    }
}

/// What an operation says of itself.
enum Asked {
    Done(ComputeShown),
    Running(Option<Duration>),
}

/// Whether a change is there. A resource that failed in something else may have it, too: then the
/// identities that were added have their principals.
fn is_done(shown: &ComputeShown, part: &Patch) -> bool {
    use ProvisioningState::{Succeeded, Unknown};
    let is_at_rest = matches!(shown.state, Succeeded | Unknown);
    let is_filled = |id: &ArmId| {
        let principal = shown.identities.get(id);
        principal.is_some_and(|one| one.principal_id.is_some())
    };
    applied(shown, part) && (is_at_rest || part.add.iter().all(is_filled))
}

fn applied(shown: &ComputeShown, part: &Patch) -> bool {
    let has = |id: &ArmId| shown.identities.contains_key(id);
    part.add.iter().all(has) && !part.remove.iter().any(has)
}
