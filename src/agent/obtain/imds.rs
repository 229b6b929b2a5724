//! The source `imds`: the node's own IMDS, asked by client id.
//!
//! In: a call. Out: a token, "not here" when IMDS does not know the identity, or a fault in the
//! caller's terms. Blocks for its turn and then on the network, each attempt at most
//! [`ATTEMPT_LIMIT`] and all of it at most until the call's deadline.

use std::time::Duration;

use crate::azure::imds::{ImdsClient, ImdsError};
use crate::model::fault::{Fault, FaultKind};
use crate::model::token::Token;

use super::clock::Clock;
use super::service::{SOON, Service};
use super::source::{Call, SourceError, Urgency};
use super::upstream::{Judged, Upstream};
use super::upstream_metrics::CallOutcome;

/// The most that one call to IMDS may take once its turn has come.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// "Being updated" takes up to 70 s.
const UPDATING: Duration = Duration::from_secs(5);

/// The node's IMDS.
#[derive(Debug)]
pub struct ImdsSource {
    client: ImdsClient,
    upstream: Upstream,
    clock: Clock,
}

impl ImdsSource {
    /// IMDS, called as `upstream` allows.
    #[must_use]
    pub const fn new(client: ImdsClient, upstream: Upstream, clock: Clock) -> Self {
        Self {
            client,
            upstream,
            clock,
        }
    }

    /// Fetches one token.
    pub async fn fetch(&self, call: &Call, mut urgency: Urgency) -> Result<Token, SourceError> {
        let client_id = call.grant.identity.client_id;
        let attempt = |limit| async move {
            let (client, resource, now) = (&self.client, &call.resource, || self.clock.wall());
            if call.is_anew() {
                let claims = call.claims.as_deref();
                let asked = client.token_anew(client_id, resource, claims, limit, now);
                asked.await
            } else {
                client.token(client_id, resource, limit, now).await
            }
        };
        let answer = self
            .upstream
            .call(call, &mut urgency, ATTEMPT_LIMIT, attempt)
            .await?;
        answer.map_err(in_callers_terms)
    }

    /// Another instance takes over, or (`false`) does not any more.
    pub fn drain(&self, draining: bool) {
        self.upstream.drain(draining);
    }
}

impl Judged for ImdsError {
    fn outcome(&self) -> CallOutcome {
        match self {
            Self::NotFound(_) => CallOutcome::NotFound,
            Self::Refused { .. } => CallOutcome::Refused,
            Self::Updating(_) => CallOutcome::Updating,
            Self::Throttled { .. } => CallOutcome::Throttled,
            Self::Unavailable(_) => CallOutcome::Unavailable,
            Self::Invalid(_) => CallOutcome::Invalid,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } => *retry_after,
            _ => None,
        }
    }
}

/// What the pod reads. IMDS's words are passed on where it refused for good; otherwise they are for
/// the log.
fn in_callers_terms(error: ImdsError) -> SourceError {
    let detail = error.to_string();
    let fault = match error {
        ImdsError::NotFound(_) => return SourceError::NotHere(detail),
        ImdsError::Refused {
            error, description, ..
        } => Fault::new(FaultKind::UpstreamRefused, description).with_code(error),
        ImdsError::Updating(_) => {
            Fault::new(FaultKind::UpstreamUnavailable, "IMDS is being updated")
                .with_retry_after(UPDATING)
        }
        ImdsError::Throttled { retry_after } => {
            // Nobody is told to wait longer, whatever one answer says.
            let latest = Service::Imds.longest_pause();
            Service::Imds.throttles(retry_after.unwrap_or(SOON).clamp(SOON, latest))
        }
        ImdsError::Unavailable(_) => Service::Imds.unavailable(),
        ImdsError::Invalid(_) => Service::Imds.invalid(),
    };
    SourceError::Fault(fault.with_detail(detail))
}
