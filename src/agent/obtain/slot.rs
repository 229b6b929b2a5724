//! What is known of one cache key, and what to do about a request for it. Pure: moments in,
//! decisions out; no IO, no clock, no locks.
//!
//! Invariant 5: a valid token is served while it is renewed and when renewal fails, until 30 s
//! before its end. A token with 300 s left or less is served only after a longer one was tried for.
//! Refusals are kept for seconds, by kind.

use std::sync::Arc;
use std::time::Duration;

use crate::model::fault::FaultKind;
use crate::model::token::{SHORT, Token, UNUSABLE};

use super::clock::Moment;
use super::source::SourceError;
use super::verify::Claims;

/// Seconds.
const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long a caller waits for a longer token while a short one is at hand.
pub const SHORT_WAIT: Duration = s(3);
/// While only a short token is at hand, a longer one is tried for this often.
const SHORT_RETRY: Duration = s(30);
/// IMDS caches, too: a renewal that brought the same end is not repeated sooner than this.
const UNCHANGED_RETRY: Duration = s(300);
/// First and last gap between failing renewals.
const BACKOFF: (Duration, Duration) = (s(5), s(300));
/// The longest that a service's own `Retry-After` is believed.
const RETRY_AFTER_LIMIT: Duration = s(30);

/// A token at hand.
#[derive(Debug)]
pub struct Held {
    /// The token.
    pub token: Arc<Token>,
    /// What it says about itself.
    pub claims: Claims,
    /// Its end by monotonic time: a wall clock that is set back does not prolong it.
    until: Duration,
    /// With this much life left it is due for renewal.
    renew_left: Duration,
}

impl Held {
    /// A token that came at `now`. `jitter` (0..1) spreads renewals. Its life is no
    /// longer than it says itself, also where its source promised more; the node's clock may differ
    /// from the source's.
    #[must_use]
    pub fn new(mut token: Token, claims: Claims, now: Moment, jitter: f64) -> Self {
        let end = claims.life.map(|life| token.obtained_at + life);
        token.expires_on = token.expires_on.min(end.unwrap_or(token.expires_on));
        let renew_left = token.expires_on.saturating_sub(token.refresh_at(jitter));
        Self {
            until: now.mono + token.left(now.wall),
            renew_left,
            claims,
            token: Arc::new(token),
        }
    }

    /// What is left of its life, by the clock that says less.
    #[must_use]
    pub fn left(&self, now: Moment) -> Duration {
        self.token
            .left(now.wall)
            .min(self.until.saturating_sub(now.mono))
    }

    /// Whether it may be handed out at all.
    #[must_use]
    pub fn is_usable(&self, now: Moment) -> bool {
        self.left(now) > UNUSABLE
    }

    /// Whether a longer one should be tried for first.
    #[must_use]
    pub fn is_short(&self, now: Moment) -> bool {
        self.left(now) <= SHORT
    }
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Hand out the token at hand.
    Serve,
    /// Hand it out and renew it beside.
    ServeAndRefresh,
    /// Start a fetch and wait for it, where a short token is at hand at most until then (monotonic).
    Fetch(Option<Duration>),
    /// Wait for the fetch in flight, likewise.
    Wait(Option<Duration>),
    /// Answer with the refusal at hand, which is kept until then (monotonic).
    Refuse(Duration),
}

/// Which token a fetch is to bring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Any that lives long.
    #[default]
    Any,
    /// A new one, even if it ends before the one at hand (`bypass_cache`).
    New,
}

/// How a fetch ended, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// A first token, or one that ends later than the one at hand.
    Renewed,
    /// A token that ends no later than the one at hand.
    Unchanged,
    /// None.
    Failed,
}

/// One cache key's state.
#[derive(Debug, Default)]
pub struct Slot {
    held: Option<Arc<Held>>,
    /// When the fetch in flight began (monotonic).
    flight: Option<Duration>,
    /// No renewal before then (monotonic).
    retry_at: Duration,
    /// Since when the token at hand is to be replaced, whatever is left of it (monotonic).
    due_since: Option<Duration>,
    /// Fetches that failed in a row.
    failures: u32,
    refusal: Option<(SourceError, Duration)>,
}

impl Slot {
    /// What to do at `now`. `not_yet`: the asker's identity is so new that Azure may not show it.
    #[must_use]
    pub fn decide(&self, now: Moment, not_yet: bool) -> Decision {
        if let Some(held) = self.usable(now) {
            return self.decide_with(held, now);
        }
        if self.flight.is_some() {
            return Decision::Wait(None);
        }
        match &self.refusal {
            Some((error, since)) if now.mono < *since + keep(error, not_yet) => {
                Decision::Refuse(*since + keep(error, not_yet))
            }
            _ => Decision::Fetch(None),
        }
    }

    fn decide_with(&self, held: &Held, now: Moment) -> Decision {
        // Whoever comes after a try that failed waits for no other: in an outage all of a busy pod's callers
        // would, and with each try again fill its connections.
        if held.is_short(now) && !self.is_failing() {
            return match self.flight {
                Some(since) if now.mono < since + SHORT_WAIT => {
                    Decision::Wait(Some(since + SHORT_WAIT))
                }
                None if now.mono >= self.retry_at => Decision::Fetch(Some(now.mono + SHORT_WAIT)),
                _ => Decision::Serve,
            };
        }
        let due =
            self.due_since.is_some() || held.left(now) <= held.renew_left || held.is_short(now);
        if due && now.mono >= self.retry_at && self.flight.is_none() {
            Decision::ServeAndRefresh
        } else {
            Decision::Serve
        }
    }

    /// The token at hand, if it may be handed out.
    #[must_use]
    pub fn usable(&self, now: Moment) -> Option<&Arc<Held>> {
        self.held.as_ref().filter(|held| held.is_usable(now))
    }

    /// The refusal at hand.
    #[must_use]
    pub fn refusal(&self) -> Option<&SourceError> {
        self.refusal.as_ref().map(|(error, _)| error)
    }

    /// Whether the last fetch failed.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether a fetch is in flight.
    #[must_use]
    pub const fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// A fetch begins.
    pub const fn begin(&mut self, now: Moment) {
        self.flight = Some(now.mono);
    }

    /// What is known was got with a credential that has changed: a token at hand is served on, but is
    /// due for renewal, and a refusal is forgotten.
    pub fn renew(&mut self, now: Moment) {
        self.due_since = Some(now.mono);
        self.retry_at = Duration::ZERO;
        self.refusal = None;
    }

    /// A fetch brought a token. The longer-living of two is kept; where a new one was wanted, that one.
    pub fn succeed(&mut self, fresh: Arc<Held>, wanted: Wanted, now: Moment) -> Renewal {
        let began = self.flight.take().unwrap_or_default();
        let due = self.due_since.filter(|since| *since <= began);
        if due.is_some() {
            self.due_since = None;
        }
        self.failures = 0;
        self.refusal = None;
        let replace = wanted == Wanted::New || due.is_some() && !fresh.is_short(now);
        let unchanged = !replace
            && self
                .usable(now)
                .is_some_and(|held| fresh.token.expires_on <= held.token.expires_on);
        let left = fresh.left(now);
        self.retry_at = if left <= SHORT {
            now.mono + SHORT_RETRY
        } else if unchanged {
            now.mono + UNCHANGED_RETRY.max(left / 10)
        } else {
            now.mono
        };
        if unchanged {
            return Renewal::Unchanged;
        }
        self.held = Some(fresh);
        Renewal::Renewed
    }

    /// A fetch failed. `jitter` (0..1) spreads the next renewal; a token at hand stays. What its callers
    /// are told: a source that said "not here" and is in trouble now is still not here, and the next
    /// source serves them on.
    pub fn fail(&mut self, error: SourceError, now: Moment, jitter: f64) -> SourceError {
        let error = match &self.refusal {
            Some((before @ SourceError::NotHere(_), _)) if is_trouble(&error) => before.clone(),
            _ => error,
        };
        let told = error.clone();
        let began = self.flight.take().unwrap_or_default();
        let outdated = self.due_since.is_some_and(|since| since > began);
        let doubled = BACKOFF.0 * 2u32.saturating_pow(self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let left = self.usable(now).map(|held| held.left(now));
        if outdated {
            // The credential changed meanwhile: nothing is learned from what the old one brought.
        } else if let Some(left) = left {
            // Near the end of a token's life renewals come closer again.
            let gap = doubled.min(BACKOFF.1).min((left / 10).max(BACKOFF.0));
            let asked = wish(&error).unwrap_or_default().min(RETRY_AFTER_LIMIT);
            let spread = gap.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
            self.retry_at = now.mono + spread.max(asked);
        } else {
            self.held = None;
            self.due_since = None;
            self.refusal = Some((error, now.mono));
        }
        told
    }
}

/// Whether the source said nothing of the identity.
fn is_trouble(error: &SourceError) -> bool {
    matches!(error, SourceError::Fault(fault) if fault.kind.may_retry())
}

/// How long a refusal is kept.
fn keep(error: &SourceError, not_yet: bool) -> Duration {
    let asked = wish(error).unwrap_or_default().min(RETRY_AFTER_LIMIT);
    match error {
        SourceError::NotHere(_) if not_yet => s(1),
        SourceError::NotHere(_) => s(5),
        SourceError::Fault(fault) => match fault.kind {
            FaultKind::UpstreamRefused => s(5),
            FaultKind::UpstreamInvalid => s(2).max(asked),
            FaultKind::UpstreamThrottled | FaultKind::UpstreamUnavailable => s(1).max(asked),
            // Of our own making, and perhaps another pod's doing: not this key's trouble.
            FaultKind::Overloaded | FaultKind::PodThrottled => Duration::ZERO,
            _ => s(1),
        },
    }
}

/// When the service wants to be asked again.
fn wish(error: &SourceError) -> Option<Duration> {
    match error {
        SourceError::NotHere(_) => None,
        SourceError::Fault(fault) => fault.retry_after,
    }
}

#[cfg(test)]
mod tests;
