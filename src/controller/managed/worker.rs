//! One managed identity's worker: looks at what is known, does one call at a time, tells what became of it.
//!
//! In: its claim, as it changes. Out: calls of Azure and Kubernetes, a [`super::ManagedOutcome`] on the board.
//! Blocks on both, each call with a limit; no other identity waits for it but for a place among the few
//! calls that are made at once. Nothing is called by one whose lease may end before the call does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::claim::{Claim, Mode};
use super::known::{Answer, Failed, Known};
use super::outside::{Azure, Leading, Objects};
use super::step::{self, Action, Facts, Next, Settings};
use crate::controller::board::Board;
use crate::controller::known::Existence;
use crate::controller::lease::{WRITE_LEASE, WRITE_LIMIT};
use crate::model::ids::ArmId;

/// What was done and is to be done again at once is not: whatever it was, it did not help.
const AGAIN: Duration = Duration::from_secs(2);
/// Who does not lead looks again after this long.
const NOT_LEADING: Duration = Duration::from_secs(1);
/// The longest rest: wall clocks jump.
const LONGEST_REST: Duration = Duration::from_mins(10);

/// What all workers share.
pub(super) struct Shared<A, O, L> {
    pub azure: A,
    pub objects: O,
    pub lease: L,
    pub board: Arc<Board>,
    pub settings: Settings,
    pub mode: watch::Receiver<Mode>,
    /// Calls of Azure at once, of all identities.
    pub places: Semaphore,
    /// The time since the epoch.
    pub now: fn() -> Duration,
}

/// The worker.
pub(super) struct Worker<A, O, L> {
    shared: Arc<Shared<A, O, L>>,
    claims: watch::Receiver<Arc<Claim>>,
    mode: watch::Receiver<Mode>,
    known: Known,
    /// What was looked at last.
    before: Option<(Arc<Claim>, Mode)>,
    /// What was done last.
    last: Option<Action>,
    /// The identity, once it was about to be deleted.
    leaves: Option<ArmId>,
}

impl<A: Azure, O: Objects, L: Leading> Worker<A, O, L> {
    pub fn new(shared: &Arc<Shared<A, O, L>>, claims: watch::Receiver<Arc<Claim>>) -> Self {
        Self {
            shared: shared.clone(),
            claims,
            mode: shared.mode.clone(),
            known: Known::default(),
            before: None,
            last: None,
            leaves: None,
        }
    }

    /// Works until nobody sends claims any more.
    pub async fn run(mut self) {
        let first = self.claims.borrow().clone();
        while self.claims.has_changed().is_ok() {
            let claim = self.claims.borrow_and_update().clone();
            let (next, claim) = self.look(&claim);
            self.tell(&claim, &next);
            let Next { action, again, .. } = next;
            match action {
                Some(action) if self.leads() => {
                    if self.last.as_ref() == Some(&action) {
                        self.rest(AGAIN).await;
                        self.last = None;
                        continue;
                    }
                    let answer = self.call(&claim, &action).await;
                    self.record(&claim, action, answer);
                }
                Some(_) => self.rest(NOT_LEADING).await,
                None => {
                    self.last = None;
                    let now = (self.shared.now)();
                    let over = self.known.setback.as_ref();
                    if over.is_some_and(|setback| setback.until <= now) {
                        self.known.setback = None;
                    }
                    let rest = again.map(|again| again.saturating_sub(now));
                    self.rest(rest.unwrap_or(LONGEST_REST)).await;
                }
            }
        }
        if let Some(id) = &self.leaves {
            self.shared.board.tell_leaving(id, false);
        }
        self.shared.board.forget_managed(&first.name, &first.uid);
    }

    /// What comes next, and the claim with what we wrote ourselves.
    fn look(&mut self, observed: &Arc<Claim>) -> (Next, Claim) {
        let shared = &self.shared;
        let mode = *self.mode.borrow_and_update();
        let now = (shared.now)();
        let claim = Claim::clone(observed).with(self.known.written.as_ref());
        let before = self.before.replace((observed.clone(), mode));
        let before = before.filter(|(_, before)| *before == mode);
        let leaving = claim.deleting || mode != Mode::Serve;
        self.known.notice(
            before.as_ref().map(|(claim, _)| &**claim),
            &claim,
            leaving,
            &shared.settings,
            now,
        );
        let next = step::next(Facts {
            claim: &claim,
            known: &self.known,
            settings: &shared.settings,
            mode,
            now,
        });
        (next, claim)
    }

    fn tell(&mut self, claim: &Claim, next: &Next) {
        let outcome = next.outcome.clone();
        if let Some(id) = &outcome.resource_id
            && matches!(outcome.existence, Existence::Exists { .. })
        {
            let existence = outcome.existence.clone();
            self.shared.board.tell_existence(id, existence);
        }
        if let Some(id) = &next.leaves {
            self.shared.board.tell_leaving(id, true);
            self.leaves = Some(id.clone());
        }
        self.shared.board.tell_managed(&claim.name, outcome);
    }

    fn leads(&self) -> bool {
        self.shared.lease.lasts(WRITE_LEASE)
    }

    async fn call(&self, claim: &Claim, action: &Action) -> Result<Answer, Failed> {
        let shared = &self.shared;
        if !action.is_azures() {
            let call = shared.objects.call(claim, action);
            return timeout(WRITE_LIMIT, call)
                .await
                .unwrap_or_else(|_| Err(late()));
        }
        self.admitted(action).await?;
        let Ok(_place) = shared.places.acquire().await else {
            return Err(late());
        };
        shared.azure.prepare(WRITE_LIMIT).await?;
        // Waiting for a place and a token took time; a term that ended writes nothing in the next one.
        if !self.leads() || self.claims.has_changed().is_err() {
            return Err(lost());
        }
        let call = shared.azure.call(action, WRITE_LIMIT);
        timeout(WRITE_LIMIT, call)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    /// Waits for the rate; what Azure itself asked for is a failure with a time.
    async fn admitted(&self, action: &Action) -> Result<(), Failed> {
        while let Err(wait) = self.shared.azure.admit(action) {
            if wait.asked {
                return Err(throttled(wait.at.saturating_duration_since(Instant::now())));
            }
            sleep_until(wait.at).await;
            if self.claims.has_changed().is_err() {
                return Err(lost());
            }
        }
        Ok(())
    }

    fn record(&mut self, claim: &Claim, action: Action, answer: Result<Answer, Failed>) {
        let name = &claim.name;
        match &answer {
            Ok(_) => tracing::debug!(identity = %name, ?action, "done for a managed identity"),
            Err(failed) => {
                tracing::warn!(identity = %name, ?action, reason = %failed.reason, error = %failed.message,
                    "a step of a managed identity failed");
            }
        }
        let now = (self.shared.now)();
        let done = answer.is_ok();
        self.known.learn(&action, answer, claim, now);
        self.last = done.then_some(action);
    }

    /// Until something changed, or that long.
    async fn rest(&mut self, most: Duration) {
        let most = most.clamp(Duration::from_millis(50), LONGEST_REST);
        tokio::select! {
            // An error: nobody sends any more; the loop sees it.
            _ = self.claims.changed() => {}
            Ok(()) = self.mode.changed() => {}
            () = sleep(most.mul_f64(1.0 + fastrand::f64() / 10.0)) => {}
        }
    }
}

impl Action {
    /// Whether Azure is asked, and not Kubernetes.
    pub(super) const fn is_azures(&self) -> bool {
        matches!(
            self,
            Self::Read(_)
                | Self::Create(..)
                | Self::Delete(_)
                | Self::ReadCredentials(_)
                | Self::PutCredential(..)
                | Self::DeleteCredential(..)
        )
    }
}

fn late() -> Failed {
    Failed {
        reason: "Timeout".into(),
        message: format!("no answer within {} s", WRITE_LIMIT.as_secs()).into(),
        retry_after: None,
        transient: true,
    }
}

fn throttled(wait: Duration) -> Failed {
    Failed {
        reason: "Throttled".into(),
        message: "Azure takes no more requests for identities of its subscription for now (429)"
            .into(),
        retry_after: Some(wait),
        transient: true,
    }
}

fn lost() -> Failed {
    Failed {
        reason: "NotLeading".into(),
        message: "another controller may be leading".into(),
        retry_after: None,
        transient: true,
    }
}

#[cfg(test)]
mod tests;
