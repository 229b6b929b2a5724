//! Asks Azure for each identity that is named and admitted: does it exist, who is it?
//!
//! In: the set of identities, from desire. Out: what is known of each, and what keeps it from being
//! known, on the [`Board`]. Blocks on the network, few calls at once. Holds that a failure is no
//! absence: what was known of an identity stays known until Azure says otherwise; and that no read is
//! sent before the time that Azure asked for.

mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::apply::{Access, Paces};
use super::board::{Board, Trouble};
use super::known::Existence;
use crate::azure::arm::{ArmClient, ArmError, ArmErrorKind, IdentityShown};
use crate::model::ids::ArmId;
use schedule::{Looked, Schedule};

/// Calls at once.
const MOST: usize = 8;
/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a subscription is left alone that throttles without saying how long.
const THROTTLED: Duration = Duration::from_secs(30);

/// Who knows identities.
pub trait Knows: Clone + Send + Sync + 'static {
    /// Reads one.
    fn identity(
        &self,
        id: &ArmId,
        limit: Duration,
    ) -> impl Future<Output = Result<IdentityShown, ArmError>> + Send;
}

impl Knows for ArmClient {
    async fn identity(&self, id: &ArmId, limit: Duration) -> Result<IdentityShown, ArmError> {
        ArmClient::identity(self, id, limit).await
    }
}

/// What asking needs.
pub struct Identities<A> {
    /// Azure Resource Manager.
    pub arm: A,
    /// How often it may be asked.
    pub paces: Arc<Paces>,
    /// Where it is told what is known.
    pub board: Arc<Board>,
    /// The identities that some `AzureIdentity` names and a policy admits.
    pub wanted: watch::Receiver<Arc<BTreeSet<ArmId>>>,
    /// Identities of which somebody has reason to doubt what is known.
    pub doubted: mpsc::Receiver<ArmId>,
    /// How often those are looked at that exist.
    pub interval: Duration,
    /// The time since the Unix epoch.
    pub now: fn() -> Duration,
}

impl<A: Knows> Identities<A> {
    /// Asks until nobody tells any more what is wanted.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut schedule = Schedule::new(self.interval);
        let mut calls: JoinSet<(ArmId, Result<IdentityShown, ArmError>)> = JoinSet::new();
        self.want(&mut schedule, start.elapsed());
        loop {
            while calls.len() < MOST
                && let Some(id) = schedule.take(start.elapsed())
            {
                match self.paces.identity(&id, Access::Read) {
                    Ok(()) => {
                        let arm = self.arm.clone();
                        calls.spawn(async move {
                            let known = arm.identity(&id, LIMIT).await;
                            (id, known)
                        });
                    }
                    Err(wait) => schedule.postpone(&id, wait.at.duration_since(start)),
                }
            }
            let next = schedule.next().filter(|_| calls.len() < MOST);
            let due = start + next.unwrap_or_default();
            tokio::select! {
                Some(called) = calls.join_next() => {
                    let (id, answer) = called?;
                    if let Err(error) = &answer {
                        self.rest(&id, error);
                    }
                    self.take(&mut schedule, &id, answer, start.elapsed());
                }
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.want(&mut schedule, start.elapsed()),
                    Err(_) => return Ok(()),
                },
                Some(id) = self.doubted.recv() => schedule.hurry(&id, start.elapsed()),
                () = tokio::time::sleep_until(due), if next.is_some() => {}
            }
        }
    }

    fn want(&mut self, schedule: &mut Schedule, now: Duration) {
        let wanted = self.wanted.borrow_and_update().clone();
        for gone in schedule.want(&wanted, now) {
            self.board.forget_existence(&gone);
        }
    }

    fn take(
        &self,
        schedule: &mut Schedule,
        id: &ArmId,
        answer: Result<IdentityShown, ArmError>,
        now: Duration,
    ) {
        let (looked, existence, trouble) = match answer {
            Ok(shown) => (Looked::Exists, Some(Existence::of(&shown)), None),
            Err(error) if error.kind == ArmErrorKind::NotFound => {
                (Looked::Missing, Some(Existence::Missing), None)
            }
            Err(error) if error.is_absence() => {
                let trouble = self.trouble(&error, None);
                (Looked::Missing, Some(Existence::Missing), Some(trouble))
            }
            Err(error) => {
                let is_throttled = error.kind == ArmErrorKind::Throttled;
                let wait = error.retry_after.or(is_throttled.then_some(THROTTLED));
                let trouble = self.trouble(&error, wait);
                tracing::debug!(identity = %id, %error, "an identity cannot be read");
                (
                    Looked::Failed(wait.unwrap_or_default()),
                    None,
                    Some(trouble),
                )
            }
        };
        if !schedule.looked(id, looked, now, fastrand::f64()) {
            return;
        }
        // First: who hears that something is known of it finds why it was not known gone.
        self.board.tell_trouble(id, trouble);
        if let Some(existence) = existence {
            self.board.tell_existence(id, existence);
        }
    }

    /// Leaves the identities of a throttled subscription alone, and where it is throttled as a whole,
    /// everything in it.
    fn rest(&self, id: &ArmId, error: &ArmError) {
        if error.kind == ArmErrorKind::Throttled {
            let until = Instant::now() + error.retry_after.unwrap_or(THROTTLED);
            let all = error.code.to_ascii_lowercase().starts_with("subscription");
            self.paces.identities_wait(id, until, all);
        }
    }

    fn trouble(&self, error: &ArmError, wait: Option<Duration>) -> Trouble {
        Trouble {
            reason: error.kind.reason().into(),
            message: error.in_full_to_assign().into(),
            until: wait.map(|wait| (self.now)() + wait),
        }
    }
}

#[cfg(test)]
mod tests;
