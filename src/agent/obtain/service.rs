//! What differs between the services that tokens come from: their words, and whom a 429 is meant for.
//! Pure.

use std::time::Duration;

use crate::model::fault::{Fault, FaultKind};

/// How soon a service that said nothing about it is asked again, at the earliest.
pub const SOON: Duration = Duration::from_secs(1);

/// Nobody is told to come later than this, however long the pause: SDKs give up beyond it.
const LATEST: Duration = Duration::from_secs(70);

/// A service that gives tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// The node's IMDS.
    Imds,
    /// Entra ID, or a token endpoint that stands for it.
    Entra,
}

impl Service {
    /// Whether a 429 is meant for the whole node. IMDS counts a node's requests; Entra an application's.
    #[must_use]
    pub const fn throttles_everybody(self) -> bool {
        matches!(self, Self::Imds)
    }

    /// The longest pause that is obeyed. IMDS says that it is back within 70 s; Entra's limits are
    /// counted over minutes.
    #[must_use]
    pub const fn longest_pause(self) -> Duration {
        match self {
            Self::Imds => Duration::from_secs(70),
            Self::Entra => Duration::from_mins(5),
        }
    }

    /// It asked for a pause; this much of it is left.
    #[must_use]
    pub fn throttles(self, left: Duration) -> Fault {
        let words = match self {
            Self::Imds => "IMDS throttles this node",
            Self::Entra => "Entra throttles this application",
        };
        Fault::new(FaultKind::UpstreamThrottled, words).with_retry_after(left.min(LATEST))
    }

    /// It failed, or said nothing.
    #[must_use]
    pub fn unavailable(self) -> Fault {
        let words = match self {
            Self::Imds => "IMDS does not answer",
            Self::Entra => "Entra does not answer",
        };
        Fault::new(FaultKind::UpstreamUnavailable, words).with_retry_after(SOON)
    }

    /// What it said is no token.
    #[must_use]
    pub fn invalid(self) -> Fault {
        let words = match self {
            Self::Imds => "IMDS gave an answer that is not a token",
            Self::Entra => "Entra gave an answer that is not a token",
        };
        Fault::new(FaultKind::UpstreamInvalid, words).with_retry_after(SOON)
    }

    /// The turn to call it did not come before the deadline.
    #[must_use]
    pub fn queue_too_long(self) -> Fault {
        let words = match self {
            Self::Imds => "The node's turn at IMDS did not come in time",
            Self::Entra => "The node's turn at Entra did not come in time",
        };
        Fault::new(FaultKind::Overloaded, words)
    }
}
