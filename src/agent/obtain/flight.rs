//! One fetch, in a task of its own: it goes on when its first caller goes away, and its end is told
//! to everybody who waits, whatever happens to it.
//!
//! Waits for the source up to the flight's deadline. Whatever comes back is checked to be a token
//! of the identity that was asked for before it is kept.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::fault::{Fault, FaultKind};

use super::broker::Broker;
use super::entry::{Cell, Entry, Flight, Outcome, Outcomes};
use super::slot::{Held, Renewal, Wanted};
use super::source::{Call, SourceError, TokenSource, Urgency};
use super::verify::claims_of;

/// Tells the end of a flight exactly once, also when the task is cancelled or panics.
struct Landing<S: TokenSource> {
    broker: Arc<Broker<S>>,
    entry: Arc<Entry>,
    end: watch::Sender<Option<Outcome>>,
    wanted: Wanted,
    outcome: Option<Result<Held, SourceError>>,
}

impl<S: TokenSource> Drop for Landing<S> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(Fault::new(FaultKind::Internal, "The fetch was broken off").into())
        });
        let now = self.broker.clock.now();
        let mut cell = self.entry.cell.lock();
        let (told, renewal) = match outcome {
            Ok(held) => {
                let held = Arc::new(held);
                (
                    Ok(Arc::clone(&held)),
                    cell.slot.succeed(held, self.wanted, now),
                )
            }
            Err(error) => {
                let told = cell.slot.fail(error, now, fastrand::f64());
                (Err(told), Renewal::Failed)
            }
        };
        cell.flight = None;
        drop(cell);
        self.broker.metrics.refreshed(renewal);
        self.end.send_replace(Some(told));
    }
}

/// Marks the cell as in flight; the returned flight must be launched at once.
pub(super) fn begin<S: TokenSource>(
    broker: &Arc<Broker<S>>,
    entry: &Arc<Entry>,
    cell: &mut Cell,
    urgent: bool,
    wanted: Wanted,
) -> Launch<S> {
    let (flight, end, urgency) = Flight::new(urgent, wanted);
    cell.slot.begin(broker.clock.now());
    cell.flight = Some(flight);
    Launch {
        landing: Landing {
            broker: Arc::clone(broker),
            entry: Arc::clone(entry),
            end,
            wanted,
            outcome: None,
        },
        urgency,
    }
}

/// A flight that has begun and only needs its task. Dropped instead, it ends as a failure.
#[must_use = "a flight that is not launched fails"]
pub(super) struct Launch<S: TokenSource> {
    landing: Landing<S>,
    urgency: Urgency,
}

impl<S: TokenSource> Launch<S> {
    /// Its end, to wait for.
    pub(super) fn outcomes(&self) -> Outcomes {
        self.landing.end.subscribe()
    }

    /// Starts the task. The entry must not be locked.
    pub(super) fn launch(self, call: Call) {
        let Self {
            mut landing,
            urgency,
        } = self;
        let broker = Arc::clone(&landing.broker);
        broker.tasks.spawn(async move {
            landing.outcome = Some(fetch(&landing.broker, call, urgency).await);
            drop(landing);
        });
    }
}

/// Fetches a token and makes sure that it is one of the identity that was asked for.
pub(super) async fn fetch<S: TokenSource>(
    broker: &Broker<S>,
    call: Call,
    urgency: Urgency,
) -> Result<Held, SourceError> {
    let client_id = call.grant.identity.client_id;
    let deadline = call.deadline;
    let token = tokio::time::timeout_at(deadline, broker.source.fetch(call, urgency))
        .await
        .map_err(|_| Fault::new(FaultKind::UpstreamUnavailable, "The source does not answer"))??;
    let claims = claims_of(&token, client_id)?;
    let now = broker.clock.now();
    let held = Held::new(token, claims, now, fastrand::f64());
    if held.is_usable(now) {
        return Ok(held);
    }
    let words = "The source answered with a token that has ended already";
    Err(Fault::new(FaultKind::UpstreamInvalid, words).into())
}
