//! The two clocks that obtaining needs, read together as one [`Moment`].
//!
//! Wall time says when a token ends, for that is what Azure and the SDKs compare. Monotonic time
//! measures waits, backoffs and how long ago a token came: a wall clock that is set back must not
//! make a token live longer, nor a refusal. The monotonic part is tokio's, so that paused tests
//! move it; the wall part is given.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the Unix epoch.
    pub wall: Duration,
    /// Since the clock was made. Never goes back.
    pub mono: Duration,
}

/// A source of [`Moment`]s. Cheap to clone.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> Duration + Send + Sync>,
    start: Instant,
}

impl Clock {
    /// A clock that reads wall time (since the Unix epoch) from `wall`.
    pub fn new(wall: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self {
            wall: Arc::new(wall),
            start: Instant::now(),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment {
            wall: self.wall(),
            mono: self.mono(),
        }
    }

    /// Wall time only.
    #[must_use]
    pub fn wall(&self) -> Duration {
        (self.wall)()
    }

    /// Monotonic time only.
    #[must_use]
    pub fn mono(&self) -> Duration {
        self.start.elapsed()
    }

    /// The instant at which [`Clock::mono`] will say `mono`.
    #[must_use]
    pub fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}
