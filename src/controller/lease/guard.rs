//! What the rest of the controller sees of the lease: until when it is held for certain.
//!
//! In: what the keeper of the lease tells. Out: the moment of its end, or waiting for its beginning or
//! end. The end needs nobody to tell it: it comes by itself, also while the keeper hangs.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A write takes at most this long: then it is dropped.
pub const WRITE_LIMIT: Duration = Duration::from_secs(8);
/// So long the lease must last for a write to be sent: for what lies between the look at it and the first
/// byte, too.
pub const WRITE_LEASE: Duration = Duration::from_secs(9);

/// One time of holding the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// Until when it lasts for certain.
    pub until: Instant,
    /// Which one it is of this process.
    pub number: u64,
}

/// Whether this process is the one controller, and until when for certain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    term: watch::Receiver<Option<Term>>,
}

/// How long this process leads for certain: before a write is sent there must be as much time left as
/// the write may take.
pub trait Lead: Send + Sync + 'static {
    /// Until when nobody else leads; `None`: somebody else may.
    fn until(&self) -> Option<Instant>;

    /// Whether it leads for longer than this.
    fn lasts(&self, time: Duration) -> bool {
        self.until()
            .is_some_and(|until| until > Instant::now() + time)
    }
}

impl Lead for Guard {
    fn until(&self) -> Option<Instant> {
        Self::until(self)
    }
}

impl Guard {
    pub(super) const fn new(term: watch::Receiver<Option<Term>>) -> Self {
        Self { term }
    }

    /// A guard that never ends: where there is no cluster to share with others, and for tests.
    #[must_use]
    pub fn forever() -> Self {
        let term = Term {
            until: Instant::now() + Duration::from_hours(24 * 365),
            number: 1,
        };
        Self::new(watch::channel(Some(term)).1)
    }

    /// Until when the lease is held for certain; `None`: it is not held.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.current().map(|term| term.until)
    }

    /// Which time of holding the lease this is; `None`: it is not held. Another number: somebody else
    /// may have held it in between.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        self.current().map(|term| term.number)
    }

    /// Waits until the lease is held.
    pub async fn held(&self) {
        let mut term = self.term.clone();
        while self.current().is_none() {
            term.borrow_and_update();
            if self.current().is_some() {
                return;
            }
            if term.changed().await.is_err() {
                // Nobody keeps it any more: it will never be held.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the lease that is held now is not held any more, also where another term follows at
    /// once. Returns immediately where none is held.
    pub async fn lost(&self) {
        let mut term = self.term.clone();
        let Some(first) = self.current() else {
            return;
        };
        loop {
            let now = *term.borrow_and_update();
            let Some(now) = now.filter(|now| now.number == first.number) else {
                return;
            };
            if now.until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(now.until) => {}
                changed = term.changed() => if changed.is_err() {
                    return sleep_until(now.until).await;
                },
            }
        }
    }

    fn current(&self) -> Option<Term> {
        let term = *self.term.borrow();
        term.filter(|term| term.until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_by_itself() {
        let (sender, receiver) = watch::channel(None);
        let guard = Guard::new(receiver);
        guard.lost().await;
        assert_eq!(guard.until(), None);
        let start = Instant::now();
        let until = start + Duration::from_secs(15);
        sender.send_replace(Some(Term { until, number: 1 }));
        guard.held().await;
        assert_eq!(guard.until(), Some(until));
        drop(sender);
        guard.lost().await;
        assert_eq!((start.elapsed().as_secs(), guard.until()), (15, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_prolongs_and_another_term_is_an_end() {
        let start = Instant::now();
        let term = |seconds, number| {
            let until = start + Duration::from_secs(seconds);
            Some(Term { until, number })
        };
        let (sender, receiver) = watch::channel(term(15, 1));
        let guard = Guard::new(receiver);
        let lost = tokio::spawn(async move {
            guard.lost().await;
            start.elapsed()
        });
        tokio::time::sleep(Duration::from_secs(10)).await;
        sender.send_replace(term(25, 1));
        tokio::time::sleep(Duration::from_secs(10)).await;
        sender.send_replace(term(35, 2));
        assert_eq!(lost.await.unwrap().as_secs(), 20);
    }
}
