//! How far a sandbox is, and what is to be done next. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::backoff;
use crate::serve::Drain;

/// The first pause after a failure, and the longest.
const PAUSES: backoff::Bounds = (Duration::from_millis(50), Duration::from_mins(1));
/// How often it is looked after what was laid: a program of the pod's may take it away.
const LOOK_AFTER: Duration = Duration::from_secs(30);

/// How far a sandbox is.
#[derive(Clone)]
pub enum Stage {
    /// Somebody is in its namespace.
    Busy {
        /// Beside a listener of ours, which this ends.
        beside: Option<Drain>,
        /// So many failures in a row before.
        failures: u32,
    },
    /// It is served.
    Open {
        /// Ends its listener.
        drain: Drain,
        /// When it is looked after what was laid.
        again: Instant,
    },
    /// Nothing of ours is there.
    Clear {
        /// When it is looked again: an agent that goes may have looked after what it laid.
        again: Instant,
    },
    /// What was tried failed.
    Failed {
        /// When it is tried again.
        again: Instant,
        /// So many failures in a row.
        failures: u32,
    },
}

/// What is done in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// It is to be served.
    Lay,
    /// It is served; what was taken away is laid again.
    Mend,
    /// It is not to be served.
    Clear,
}

impl Stage {
    /// What is to be done in a sandbox of this stage, and the stage meanwhile. `None`: nothing now.
    pub fn next(stage: Option<&Self>, served: bool, now: Instant) -> Option<(Errand, Self)> {
        let busy = |beside, failures| Self::Busy { beside, failures };
        let (errand, stage) = match (stage, served) {
            (Some(Self::Busy { .. }), _) => return None,
            (Some(Self::Clear { again }), false) if *again > now => return None,
            (Some(Self::Open { again, .. }), true) if *again > now => return None,
            (Some(Self::Failed { again, .. }), _) if *again > now => return None,
            (Some(Self::Open { drain, .. }), true) => (Errand::Mend, busy(Some(drain.clone()), 0)),
            (Some(Self::Failed { failures, .. }), true) => (Errand::Lay, busy(None, *failures)),
            (Some(Self::Failed { failures, .. }), false) => (Errand::Clear, busy(None, *failures)),
            (Some(Self::Clear { .. }) | None, true) => (Errand::Lay, busy(None, 0)),
            (Some(Self::Open { .. } | Self::Clear { .. }) | None, false) => {
                (Errand::Clear, busy(None, 0))
            }
        };
        Some((errand, stage))
    }

    /// Served from now on.
    pub fn open(drain: Drain, now: Instant) -> Self {
        let again = now + LOOK_AFTER;
        Self::Open { drain, again }
    }

    /// Not served from now on.
    pub fn clear(now: Instant) -> Self {
        let again = now + LOOK_AFTER;
        Self::Clear { again }
    }

    /// After an errand that failed: a listener that there is serves on.
    #[must_use]
    pub fn failed(&self, now: Instant) -> Self {
        match self {
            Self::Busy {
                beside: Some(drain),
                ..
            } => Self::open(drain.clone(), now),
            Self::Busy { failures, .. } => Self::Failed {
                again: now + backoff::pause(PAUSES, *failures),
                failures: failures.saturating_add(1),
            },
            other => other.clone(),
        }
    }

    /// What ends its listener, where there is one.
    pub const fn drain(&self) -> Option<&Drain> {
        match self {
            Self::Open { drain, .. }
            | Self::Busy {
                beside: Some(drain),
                ..
            } => Some(drain),
            _ => None,
        }
    }

    /// When something is to be done by itself.
    pub const fn again(&self) -> Option<Instant> {
        match self {
            Self::Open { again, .. } | Self::Clear { again } | Self::Failed { again, .. } => {
                Some(*again)
            }
            Self::Busy { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(stage: Option<&Stage>, served: bool, now: Instant) -> Option<Errand> {
        Stage::next(stage, served, now).map(|(errand, _)| errand)
    }

    #[test]
    fn what_is_to_be_done_is_done_once() {
        let now = Instant::now();
        assert_eq!(errand(None, true, now), Some(Errand::Lay));
        // Somebody else may have laid something there.
        assert_eq!(errand(None, false, now), Some(Errand::Clear));
        let open = Stage::open(Drain::new(), now);
        assert_eq!(errand(Some(&open), true, now), None);
        assert_eq!(errand(Some(&open), false, now), Some(Errand::Clear));
        let clear = Stage::clear(now);
        assert_eq!(errand(Some(&clear), false, now), None);
        assert_eq!(errand(Some(&clear), true, now), Some(Errand::Lay));
        let due = clear.again().unwrap();
        assert_eq!(errand(Some(&clear), false, due), Some(Errand::Clear));
        let (_, busy) = Stage::next(None, true, now).unwrap();
        for served in [true, false] {
            assert_eq!(errand(Some(&busy), served, now), None);
        }
    }

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let mut now = Instant::now();
        let (_, mut stage) = Stage::next(None, true, now).unwrap();
        let mut pauses = Vec::new();
        for _ in 0..20 {
            stage = stage.failed(now);
            assert_eq!(errand(Some(&stage), true, now), None);
            let again = stage.again().unwrap();
            pauses.push(again - now);
            now = again;
            (_, stage) = Stage::next(Some(&stage), true, now).unwrap();
        }
        assert!(pauses[0] <= PAUSES.0 && pauses[19] > Duration::from_secs(20));
    }

    #[test]
    fn a_listener_outlives_a_failed_look_after_what_was_laid() {
        let now = Instant::now();
        let open = Stage::open(Drain::new(), now);
        let due = open.again().unwrap();
        let (errand, busy) = Stage::next(Some(&open), true, due).unwrap();
        assert_eq!(errand, Errand::Mend);
        assert!(busy.drain().is_some(), "its end may come meanwhile");
        let failed = busy.failed(due);
        assert!(matches!(failed, Stage::Open { .. }));
    }
}
