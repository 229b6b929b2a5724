//! The source `imds`: the node's own IMDS, asked by client id.
//!
//! In: a call. Out: a token, "not here" when IMDS does not know the identity, or a fault in the
//! caller's terms. Blocks for its turn at the governor and then on the network, each attempt at
//! most [`ATTEMPT_LIMIT`] and all of it at most until the call's deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::azure::imds::{ImdsClient, ImdsError};
use crate::model::fault::{Fault, FaultKind};
use crate::model::token::Token;

use super::clock::Clock;
use super::governor::Governor;
use super::metrics::{CallOutcome, UpstreamMetrics};
use super::source::{Call, SourceError, Urgency};

/// The most that one call to IMDS may take once its turn has come.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// How soon a service that said nothing about it is asked again, at the earliest.
const SOON: Duration = Duration::from_secs(1);
/// IMDS says that it is back within 70 s: nobody is told to wait longer, whatever one answer says.
const LATEST: Duration = Duration::from_secs(70);
/// "Being updated" takes up to 70 s.
const UPDATING: Duration = Duration::from_secs(5);

/// The node's IMDS.
#[derive(Debug)]
pub struct ImdsSource {
    client: ImdsClient,
    governor: Arc<Governor>,
    clock: Clock,
    metrics: UpstreamMetrics,
}

impl ImdsSource {
    /// IMDS behind a governor.
    #[must_use]
    pub const fn new(
        client: ImdsClient,
        governor: Arc<Governor>,
        clock: Clock,
        metrics: UpstreamMetrics,
    ) -> Self {
        Self {
            client,
            governor,
            clock,
            metrics,
        }
    }

    /// Fetches one token.
    pub async fn fetch(&self, call: Call, mut urgency: Urgency) -> Result<Token, SourceError> {
        let client_id = call.grant.identity.client_id;
        let turn = self.governor.turn(&call.asker, client_id, &mut urgency);
        let mut permit = tokio::time::timeout_at(call.deadline, turn)
            .await
            .map_err(|_| queue_too_long())??;
        let begun = Instant::now();
        let limit = ATTEMPT_LIMIT.min(call.deadline.saturating_duration_since(begun));
        let answer = self
            .client
            .token(client_id, &call.resource, limit, || self.clock.wall())
            .await;
        self.metrics.called(outcome(&answer), begun.elapsed());
        match &answer {
            Err(ImdsError::Throttled { retry_after }) => {
                self.governor.pause(retry_after.unwrap_or(SOON).max(SOON));
                permit.went_well();
            }
            Err(ImdsError::Unavailable(_) | ImdsError::Invalid(_)) => {}
            _ => permit.went_well(),
        }
        drop(permit);
        answer.map_err(in_callers_terms)
    }

    /// Another instance takes over, or (`false`) does not any more.
    pub fn drain(&self, draining: bool) {
        self.governor.drain(draining);
    }
}

fn outcome(answer: &Result<Token, ImdsError>) -> CallOutcome {
    match answer {
        Ok(_) => CallOutcome::Ok,
        Err(ImdsError::NotFound(_)) => CallOutcome::NotFound,
        Err(ImdsError::Refused { .. }) => CallOutcome::Refused,
        Err(ImdsError::Updating(_)) => CallOutcome::Updating,
        Err(ImdsError::Throttled { .. }) => CallOutcome::Throttled,
        Err(ImdsError::Unavailable(_)) => CallOutcome::Unavailable,
        Err(ImdsError::Invalid(_)) => CallOutcome::Invalid,
    }
}

/// What the pod reads. IMDS's words are passed on where it refused for good; otherwise they are for
/// the log.
fn in_callers_terms(error: ImdsError) -> SourceError {
    let detail = error.to_string();
    let unavailable = |public: &'static str| {
        Fault::new(FaultKind::UpstreamUnavailable, public).with_retry_after(SOON)
    };
    let fault = match error {
        ImdsError::NotFound(_) => return SourceError::NotHere(detail),
        ImdsError::Refused {
            error, description, ..
        } => Fault::new(FaultKind::UpstreamRefused, description).with_code(error),
        ImdsError::Updating(_) => unavailable("IMDS is being updated").with_retry_after(UPDATING),
        ImdsError::Throttled { retry_after } => {
            Fault::new(FaultKind::UpstreamThrottled, "IMDS throttles this node")
                .with_retry_after(retry_after.unwrap_or(SOON).clamp(SOON, LATEST))
        }
        ImdsError::Unavailable(_) => unavailable("IMDS does not answer"),
        ImdsError::Invalid(_) => Fault::new(
            FaultKind::UpstreamInvalid,
            "IMDS gave an answer that is not a token",
        )
        .with_retry_after(SOON),
    };
    SourceError::Fault(fault.with_detail(detail))
}

fn queue_too_long() -> Fault {
    Fault::new(
        FaultKind::Overloaded,
        "The node's turn at IMDS did not come in time",
    )
}
