//! The pace of calls to one service.
//!
//! In: who wants to call for which identity, and whether somebody waits. Out: a [`Permit`], held
//! while the call runs. Waits for its turn (see [`super::turns`]), never beyond the caller's own
//! deadline; a 429 pauses whom it is meant for, for as long as it asks. Invariant 5, for IMDS, which the
//! whole node shares: never more than 20 calls begin in a second and never more than five run, also
//! while another instance drains.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::key::Applicant;
use crate::agent::rate::Rate;
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Asker;

use super::clock::Clock;
use super::service::Service;
use super::source::Urgency;
use super::turns::{Turn, TurnLimits, Turns, Waiting};
use super::upstream_metrics::{Part, UpstreamMetrics};

/// A pause that lasts longer than this is answered instead of waited for.
const PAUSE_WAIT: Duration = Duration::from_secs(2);
/// What is left to an instance while another takes over.
const DRAINING: (Rate, usize) = (
    Rate {
        per_second: 1,
        burst: 1,
    },
    1,
);

/// The right to have one call running. Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    governor: Arc<Governor>,
    applicant: Applicant,
    well: bool,
}

impl Permit {
    /// The call went well (a refusal is well: IMDS is in order).
    pub const fn went_well(&mut self) {
        self.well = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.governor
            .state
            .lock()
            .turns
            .end(self.applicant, self.well);
        self.governor.pump();
    }
}

#[derive(Debug)]
struct State {
    turns: Turns<oneshot::Sender<Permit>>,
    draining: bool,
    /// When the timer that is set will go off (monotonic).
    timer: Option<Duration>,
    pauses: Part,
}

/// The governor of one service.
#[derive(Debug)]
pub struct Governor {
    service: Service,
    limits: TurnLimits,
    clock: Clock,
    metrics: UpstreamMetrics,
    state: Mutex<State>,
}

impl Governor {
    /// A governor with nothing running.
    #[must_use]
    pub fn new(
        service: Service,
        limits: TurnLimits,
        clock: Clock,
        metrics: UpstreamMetrics,
    ) -> Arc<Self> {
        let pauses = metrics.paused();
        Arc::new(Self {
            service,
            limits,
            clock,
            metrics,
            state: Mutex::new(State {
                turns: Turns::new(limits),
                draining: false,
                timer: None,
                pauses,
            }),
        })
    }

    /// Waits for a turn. Urgency may come while waiting; then it changes lanes.
    pub async fn turn(
        self: &Arc<Self>,
        asker: &Asker,
        applicant: Applicant,
        urgency: &mut Urgency,
    ) -> Result<Permit, Fault> {
        let since = self.clock.mono();
        let _in_line = self.metrics.queued();
        let urgent = urgency.is_urgent();
        let mut granted = self.enqueue(asker, applicant, urgent)?;
        if !urgent {
            tokio::select! {
                biased;
                permit = &mut granted => return self.granted(permit, since),
                () = urgency.urgent() => {}
            }
            // The place in the other lane is given up by dropping the receiver.
            granted = self.enqueue(asker, applicant, true)?;
        }
        let permit = granted.await;
        self.granted(permit, since)
    }

    /// The service asked for a pause when it was called for this identity.
    pub fn pause(self: &Arc<Self>, applicant: Applicant, pause: Duration) {
        let until = self.clock.mono() + pause.min(self.service.longest_pause());
        {
            let turns = &mut self.state.lock().turns;
            if self.service.throttles_everybody() {
                turns.pause(until);
            } else {
                turns.pause_identity(applicant, until);
            }
        }
        self.pump();
        // Also with nobody in line: the gauge goes back when it ends.
        self.set_timer(until);
    }

    /// Another instance takes over: renewals stop, calls that somebody waits for get a small share.
    /// `false` takes the whole share back.
    pub fn drain(self: &Arc<Self>, draining: bool) {
        let limits = if draining {
            TurnLimits {
                rate: DRAINING.0,
                concurrency: DRAINING.1,
                ..self.limits
            }
        } else {
            self.limits
        };
        {
            let mut state = self.state.lock();
            state.draining = draining;
            state.turns.limit(limits);
        }
        self.pump();
    }

    fn enqueue(
        self: &Arc<Self>,
        asker: &Asker,
        applicant: Applicant,
        urgent: bool,
    ) -> Result<oneshot::Receiver<Permit>, Fault> {
        let (waker, granted) = oneshot::channel();
        {
            let mut state = self.state.lock();
            let paused = state.turns.paused(applicant, self.clock.mono());
            if paused > PAUSE_WAIT {
                return Err(self.service.throttles(paused));
            }
            let waiting = Waiting {
                asker: asker.clone(),
                applicant,
                waker,
            };
            let refused = (state.draining && !urgent) || state.turns.wait(waiting, urgent).is_err();
            if refused {
                return Err(overloaded());
            }
        }
        self.pump();
        Ok(granted)
    }

    fn granted(
        &self,
        permit: Result<Permit, oneshot::error::RecvError>,
        since: Duration,
    ) -> Result<Permit, Fault> {
        self.metrics.waited(self.clock.mono().saturating_sub(since));
        permit.map_err(|_| overloaded())
    }

    /// Gives out every turn that has come, and sets a timer for the next.
    fn pump(self: &Arc<Self>) {
        loop {
            let now = self.clock.mono();
            let mut state = self.state.lock();
            let turn = state.turns.next(now, |waker| !waker.is_closed());
            let pauses = state.turns.pauses(now);
            state.pauses.set(pauses);
            match turn {
                Turn::Go(next) => {
                    drop(state);
                    let permit = Permit {
                        governor: Arc::clone(self),
                        applicant: next.applicant,
                        well: false,
                    };
                    // Without a taker the permit comes back and is dropped: the place is free again.
                    drop(next.waker.send(permit));
                }
                Turn::Later(at) => {
                    if state.timer.is_none_or(|set| at < set) {
                        state.timer = Some(at);
                        drop(state);
                        self.set_timer(at);
                    }
                    return;
                }
                Turn::Idle => return,
            }
        }
    }

    fn set_timer(self: &Arc<Self>, at: Duration) {
        // Without a runtime the process is ending and nobody waits.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let governor = Arc::downgrade(self);
        let until = self.clock.instant(at);
        runtime.spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(governor) = governor.upgrade() {
                {
                    let mut state = governor.state.lock();
                    if state.timer == Some(at) {
                        state.timer = None;
                    }
                }
                governor.pump();
            }
        });
    }
}

fn overloaded() -> Fault {
    Fault::new(
        FaultKind::Overloaded,
        "Too many token requests wait on this node",
    )
}

#[cfg(test)]
#[allow(
    clippy::unchecked_time_subtraction,
    reason = "a test that underflows fails"
)]
mod tests;
