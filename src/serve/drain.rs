//! Ending in order. Phase 1: nothing new is accepted, every answer says `Connection: close`.
//! Phase 2, at the deadline or by a second signal: what is left is cut.
//!
//! Idle keep-alive connections are not cut in phase 1, since a request may be on its way: they end
//! with their next answer, by their own closing, or in phase 2. One `Drain` serves all listeners of
//! the process; it is cheap to clone. Reading the phase is one atomic load.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The phase of ending, shared by everything that listens.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    draining: AtomicBool,
    begun: CancellationToken,
    cut: CancellationToken,
    members: TaskTracker,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everybody had left.
    Empty,
    /// The deadline passed, the rest was cut.
    Deadline,
    /// Someone was in a hurry (a second signal), the rest was cut.
    Hurried,
}

impl Drain {
    /// Not draining.
    pub fn new() -> Self {
        Self::default()
    }

    /// Phase 1. Idempotent.
    pub fn begin(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.begun.cancel();
    }

    /// Phase 2 (and phase 1, if it has not begun). Idempotent.
    pub fn cut(&self) {
        self.begin();
        self.shared.cut.cancel();
    }

    /// Whether phase 1 has begun. One atomic load.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Ends when phase 1 begins.
    pub async fn begun(&self) {
        self.shared.begun.cancelled().await;
    }

    /// Ends when phase 2 begins.
    pub async fn cut_off(&self) {
        self.shared.cut.cancelled().await;
    }

    /// Makes [`Drain::complete`] wait until the token is dropped.
    pub fn member(&self) -> TaskTrackerToken {
        self.shared.members.token()
    }

    /// How many [`Drain::complete`] would wait for.
    #[must_use]
    pub fn members(&self) -> usize {
        self.shared.members.len()
    }

    /// Both phases: begins, waits until every member has left, but no longer than `deadline` and
    /// not beyond the end of `hurry` (a second signal); then cuts and waits for the members again.
    pub async fn complete(&self, deadline: Duration, hurry: impl Future<Output = ()>) -> Ended {
        self.begin();
        self.shared.members.close();
        let ended = tokio::select! {
            () = self.shared.members.wait() => Ended::Empty,
            () = tokio::time::sleep(deadline) => Ended::Deadline,
            () = hurry => Ended::Hurried,
        };
        self.cut();
        self.shared.members.wait().await;
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// A member that leaves when the drain cuts.
    fn stubborn(drain: &Drain) {
        let (drain, member) = (drain.clone(), drain.member());
        tokio::spawn(async move {
            drain.cut_off().await;
            drop(member);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn ends_early_when_everybody_has_left() {
        let drain = Drain::new();
        let (other, member) = (drain.clone(), drain.member());
        tokio::spawn(async move {
            other.begun().await;
            drop(member);
        });
        assert!(!drain.is_draining());
        assert_eq!(
            drain.complete(Duration::from_hours(1), pending()).await,
            Ended::Empty
        );
        assert!(drain.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn cuts_at_the_deadline() {
        let drain = Drain::new();
        stubborn(&drain);
        assert_eq!(
            drain.complete(Duration::from_secs(10), pending()).await,
            Ended::Deadline
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_hurry_cuts_before_the_deadline() {
        let drain = Drain::new();
        stubborn(&drain);
        let second = CancellationToken::new();
        second.cancel();
        let ended = drain
            .complete(Duration::from_hours(1), second.cancelled_owned())
            .await;
        assert_eq!(ended, Ended::Hurried);
    }
}
