//! Series of the reviews: which were asked for, and what came of them.

use prometheus::{IntCounter, Registry};

use crate::serve::series::family;

/// What is asked of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    /// Who shows a token.
    Token,
    /// What he may.
    Access,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Yes.
    Allowed,
    /// Yes, as was learnt a moment ago.
    Remembered,
    /// No.
    Denied,
    /// It was not asked: too much was.
    Limited,
    /// No answer.
    Failed,
}

const REVIEWS: [&str; 2] = ["token", "access"];
const OUTCOMES: [&str; 5] = ["allowed", "remembered", "denied", "limited", "failed"];

/// The series.
#[derive(Clone, Debug)]
pub struct ReviewMetrics([[IntCounter; OUTCOMES.len()]; REVIEWS.len()]);

impl ReviewMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let family = family(
            registry,
            "lanyard_host_token_reviews_total",
            "Reviews of who asks on behalf of pods, by what came of them.",
            &["review", "outcome"],
        )?;
        Ok(Self(REVIEWS.map(|review| {
            OUTCOMES.map(|outcome| family.with_label_values(&[review, outcome]))
        })))
    }

    pub(super) fn count(&self, review: Review, outcome: Outcome) {
        self.0[review as usize][outcome as usize].inc();
    }
}
