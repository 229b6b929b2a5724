//! A call to a service, as every source makes it: circuit, turn, limit, counting, pause.
//!
//! In: a [`Call`], how long an attempt may take, and the attempt itself. Out: what the service
//! answered, or a fault where it was not asked at all. Blocks for the turn and for the attempt, at most
//! until the call's deadline. The sources keep only their protocol and the words of its errors.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::fault::Fault;

use super::circuit::{Circuit, Passage};
use super::clock::Clock;
use super::governor::Governor;
use super::key::Applicant;
use super::service::{SOON, Service};
use super::source::{Call, Urgency};
use super::turns::TurnLimits;
use super::upstream_metrics::{CallOutcome, Part, UpstreamMetrics};

/// What an error says of the service behind it.
pub trait Judged {
    /// How the call ended.
    fn outcome(&self) -> CallOutcome;

    /// When the service wants to be asked again, if it said so.
    fn retry_after(&self) -> Option<Duration>;
}

/// One service: the node's IMDS, or one of Entra's authorities.
#[derive(Debug)]
pub struct Upstream {
    service: Service,
    governor: Arc<Governor>,
    circuit: Mutex<(Circuit, Part)>,
    clock: Clock,
    metrics: UpstreamMetrics,
}

impl Upstream {
    /// A service that nobody has called yet.
    #[must_use]
    pub fn new(
        service: Service,
        limits: TurnLimits,
        clock: Clock,
        metrics: UpstreamMetrics,
    ) -> Self {
        let circuit = Mutex::new((Circuit::default(), metrics.circuit()));
        Self {
            governor: Governor::new(service, limits, clock.clone(), metrics.clone()),
            service,
            circuit,
            clock,
            metrics,
        }
    }

    /// Makes one attempt when its turn has come. `attempt` is told its time limit, `longest` at most.
    pub async fn call<T, E: Judged, F: Future<Output = Result<T, E>>>(
        &self,
        call: &Call,
        urgency: &mut Urgency,
        longest: Duration,
        attempt: impl FnOnce(Duration) -> F,
    ) -> Result<Result<T, E>, Fault> {
        // Nobody gets in line for a service that is not called.
        let now = self.clock.mono();
        let look = self.circuit.lock().0.look(now);
        look.map_err(|left| self.is_open(left))?;
        let applicant = Applicant::of(&call.source, &call.grant.identity);
        let turn = self.governor.turn(&call.asker, applicant, urgency);
        let mut permit = tokio::time::timeout_at(call.deadline, turn)
            .await
            .map_err(|_| self.service.queue_too_long())??;
        let mut passing = self.pass()?;
        let begun = Instant::now();
        let limit = longest.min(call.deadline.saturating_duration_since(begun));
        let answer = attempt(limit).await;
        let outcome = answer.as_ref().map_or_else(E::outcome, |_| CallOutcome::Ok);
        self.metrics.called(outcome, begun.elapsed());
        passing.end = match outcome {
            // Who came late in line does not speak for the service: whoever makes the line long could
            // shut it for everybody.
            CallOutcome::Unavailable if limit < longest && begun.elapsed() >= limit => {
                End::CutShort
            }
            CallOutcome::Unavailable => End::Silent,
            _ => End::Answered,
        };
        match outcome {
            CallOutcome::Throttled => {
                let asked = answer.as_ref().err().and_then(E::retry_after);
                self.governor
                    .pause(applicant, asked.unwrap_or(SOON).max(SOON));
                permit.went_well();
            }
            CallOutcome::Unavailable | CallOutcome::Invalid => {}
            _ => permit.went_well(),
        }
        Ok(answer)
    }

    /// Another instance takes over, or (`false`) does not any more.
    pub fn drain(&self, draining: bool) {
        self.governor.drain(draining);
    }

    fn pass(&self) -> Result<Passing<'_>, Fault> {
        let now = self.clock.mono();
        let passage = self.circuit.lock().0.enter(now);
        Ok(Passing {
            upstream: self,
            passage: passage.map_err(|left| self.is_open(left))?,
            end: End::Silent,
        })
    }

    fn is_open(&self, left: Duration) -> Fault {
        self.service
            .unavailable()
            .with_retry_after(left.max(SOON))
            .with_detail("it failed several times in a row and is left alone for a while")
    }
}

/// A call on its way: whatever becomes of it, the circuit is told.
struct Passing<'a> {
    upstream: &'a Upstream,
    passage: Passage,
    end: End,
}

/// What a call learned of the service.
enum End {
    /// It answers, whatever it answers.
    Answered,
    /// It does not.
    Silent,
    /// Nothing: less than the usual time was left.
    CutShort,
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let now = self.upstream.clock.mono();
        let mut state = self.upstream.circuit.lock();
        let (circuit, open) = &mut *state;
        match self.end {
            End::Answered => circuit.ended(self.passage, true, now),
            End::Silent => circuit.ended(self.passage, false, now),
            End::CutShort => circuit.told_nothing(self.passage),
        }
        open.set(usize::from(circuit.is_open()));
    }
}

#[cfg(test)]
#[allow(
    clippy::unchecked_time_subtraction,
    reason = "a test that underflows fails"
)]
mod tests;
