//! One cache key at run time: its slot, the fetch in flight, and who uses it.
//!
//! Holds a lock for the length of a decision, never across a wait. An entry that was evicted is
//! `gone`: whoever still has it looks its key up again, so that no key has two fetches in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::grant::Asker;

use super::slot::{Held, Slot, Wanted};
use super::source::{SourceError, Urgency};

/// How a fetch ended.
pub type Outcome = Result<Arc<Held>, SourceError>;
/// `None` until the fetch has ended.
pub type Outcomes = watch::Receiver<Option<Outcome>>;

/// A fetch in flight, as its callers see it.
#[derive(Debug)]
pub struct Flight {
    /// Which token it is to bring.
    pub wanted: Wanted,
    outcomes: Outcomes,
    urgent: watch::Sender<bool>,
}

impl Flight {
    /// A new flight: the part for callers, the sender of its end, and its urgency.
    #[must_use]
    pub fn new(urgent: bool, wanted: Wanted) -> (Self, watch::Sender<Option<Outcome>>, Urgency) {
        let (end, outcomes) = watch::channel(None);
        let (urgent, follow) = watch::channel(urgent);
        let flight = Self {
            wanted,
            outcomes,
            urgent,
        };
        (flight, end, Urgency::follow(follow))
    }

    /// Somebody waits from now on.
    pub fn join(&self) -> Outcomes {
        self.urgent
            .send_if_modified(|urgent| !std::mem::replace(urgent, true));
        self.outcomes.clone()
    }
}

/// What the lock of an entry guards.
#[derive(Debug, Default)]
pub struct Cell {
    /// The state.
    pub slot: Slot,
    /// There exactly while `slot.in_flight()`.
    pub flight: Option<Flight>,
    /// Evicted: of no use any more.
    pub gone: bool,
}

/// One cache key.
#[derive(Debug)]
pub struct Entry {
    /// Everything that changes.
    pub cell: Mutex<Cell>,
    /// Whose request made it.
    maker: Asker,
    /// Whether another asker used it, too.
    shared: AtomicBool,
    /// When it was used last (monotonic, milliseconds).
    used: AtomicU64,
}

impl Entry {
    /// An empty entry, made for a request of `maker`'s.
    #[must_use]
    pub fn new(maker: Asker, now: Duration) -> Self {
        Self {
            cell: Mutex::default(),
            maker,
            shared: AtomicBool::new(false),
            used: AtomicU64::new(millis(now)),
        }
    }

    /// Notes a use.
    pub fn touch(&self, asker: &Asker, now: Duration) {
        self.used.store(millis(now), Ordering::Relaxed);
        if !self.shared.load(Ordering::Relaxed) && self.maker != *asker {
            self.shared.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nobody but this asker has used it.
    #[must_use]
    pub fn is_only_of(&self, asker: &Asker) -> bool {
        self.maker == *asker && !self.shared.load(Ordering::Relaxed)
    }

    /// When it was used last (monotonic, milliseconds).
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

fn millis(mono: Duration) -> u64 {
    u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)
}
