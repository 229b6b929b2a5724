//! One request's way: source by source, look by look at the key's entry, until it is answered.
//!
//! In: an [`Ask`]. Out: a token or a fault. Waits for flights, and holds a request for an identity
//! that Azure may not show yet; locks are held for a look only. Invariant 5: whoever starts a
//! flight does so under the entry's lock, where nobody else can.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::model::facts::SourceFacts;
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::{Asker, Grant};

use super::broker::{Ask, Broker, CacheState, Obtained};
use super::clock::Moment;
use super::entry::{Cell, Entry, Outcome, Outcomes};
use super::flight;
use super::key::IdentityKey;
use super::metrics::Lookup;
use super::slot::{Decision, Wanted};
use super::source::{Call, SourceError, TokenSource, Urgency};
use super::verify::admit;

const SECOND: Duration = Duration::from_secs(1);
/// While an identity is "not yet", IMDS is asked this often, as long as somebody waits.
const NOT_YET_GAP: Duration = SECOND;

/// What one look at an entry led to.
enum Step {
    Done(Result<Obtained, SourceError>),
    /// Wait for the flight; at most until then (monotonic), where a token is at hand.
    Wait(Outcomes, Option<Duration>),
    /// Look again when the flight has ended.
    After(Outcomes),
    /// The entry was evicted meanwhile.
    Gone,
}

impl<S: TokenSource> Broker<S> {
    /// Asks the sources; while the identity is so new that Azure may not show it, again for a while.
    pub(super) async fn hold(self: &Arc<Self>, ask: Ask<'_>) -> Result<Obtained, Fault> {
        let hold_until = (Instant::now() + self.config.not_yet_hold).min(ask.deadline);
        loop {
            let detail = match self.walk(ask).await {
                Ok(obtained) => return Ok(obtained),
                Err(SourceError::Fault(fault)) => return Err(fault),
                Err(SourceError::NotHere(detail)) => detail,
            };
            if !self.is_not_yet(ask.request.grant, self.clock.now()) {
                return Err(Fault::identity_not_found(detail));
            }
            let next = Instant::now() + NOT_YET_GAP;
            if next > hold_until {
                return Err(Fault::new(
                    FaultKind::NotYetAssigned,
                    "The identity is new and Azure does not show it on this node yet",
                )
                .with_retry_after(2 * SECOND)
                .with_detail(detail));
            }
            sleep_until(next).await;
        }
    }

    /// Whether Azure may still be about to show the identity.
    pub(super) fn is_not_yet(&self, grant: &Grant, now: Moment) -> bool {
        // Only IMDS has to be told of an identity by assigning it.
        grant.identity.sources.contains(&SourceFacts::Imds)
            && now.wall.saturating_sub(grant.first_seen) < self.config.not_yet_window
    }

    /// The sources in their order: the next one only where the one before cannot serve here.
    async fn walk(self: &Arc<Self>, ask: Ask<'_>) -> Result<Obtained, SourceError> {
        let mut why = Vec::new();
        for source in &ask.request.grant.identity.sources {
            match self.by_source(source, ask).await {
                Err(SourceError::NotHere(detail)) => why.push(detail),
                result => return result,
            }
        }
        if why.is_empty() {
            why.push("the AzureIdentity names no token source".to_owned());
        }
        Err(SourceError::NotHere(why.join("; ")))
    }

    async fn by_source(
        self: &Arc<Self>,
        source: &SourceFacts,
        ask: Ask<'_>,
    ) -> Result<Obtained, SourceError> {
        if ask.request.claims.is_some() {
            return self.alone(source, ask).await;
        }
        let key = IdentityKey::of(source, &ask.request.grant.identity, ask.request.asker);
        // What is anew has paid already, by another rate.
        let mut paid = ask.request.bypass_cache;
        loop {
            let entry = match self.table.find(&key, ask.request.resource) {
                Some(entry) => entry,
                None => self.insert(&key, ask, &mut paid)?,
            };
            let step = if ask.request.bypass_cache {
                self.step_anew(&entry, source, ask)
            } else {
                self.step(&entry, source, ask, &mut paid)
            };
            let (mut outcomes, until) = match step {
                Step::Gone => continue,
                Step::After(mut outcomes) => {
                    let _ = outcomes.wait_for(Option::is_some).await;
                    continue;
                }
                Step::Done(result) => return result,
                Step::Wait(outcomes, until) => (outcomes, until),
            };
            let end = async {
                let told = outcomes.wait_for(Option::is_some).await;
                told.ok().and_then(|outcome| outcome.clone())
            };
            let outcome = match until.map(|until| self.clock.instant(until)) {
                None => end.await,
                Some(until) => match timeout_at(until, end).await {
                    Ok(outcome) => outcome,
                    // The next look serves the token at hand.
                    Err(_) => continue,
                },
            };
            return self.landed(&entry, source, ask, outcome);
        }
    }

    /// A token that is neither cached nor shared: its claims are this caller's.
    async fn alone(
        self: &Arc<Self>,
        source: &SourceFacts,
        ask: Ask<'_>,
    ) -> Result<Obtained, SourceError> {
        self.metrics.lookup(Lookup::Miss);
        // In a task of its own as every fetch: a call that is broken off counts against the service.
        let (broker, call) = (Arc::clone(self), self.call(source, ask));
        let fetched = self.tasks.spawn(async move {
            let (_waiting, urgent) = watch::channel(true);
            flight::fetch(&broker, call, Urgency::follow(urgent)).await
        });
        let held = fetched.await.unwrap_or_else(|_| Err(broken_off()))?;
        admit(&held.claims, ask.request.grant)?;
        Ok(Obtained {
            left: held.left(self.clock.now()),
            token: held.token,
            cache: CacheState::Miss,
            source: source.as_str(),
        })
    }

    /// One look at an entry for somebody who wants a new token: he joins a flight that is to bring one,
    /// waits for another to end, or starts one.
    fn step_anew(self: &Arc<Self>, entry: &Arc<Entry>, source: &SourceFacts, ask: Ask<'_>) -> Step {
        let now = self.clock.now();
        let mut cell = entry.cell.lock();
        if cell.gone {
            return Step::Gone;
        }
        entry.touch(ask.request.asker, now.mono);
        self.metrics.lookup(Lookup::Miss);
        if let Some(flight) = &cell.flight {
            return if flight.wanted == Wanted::New {
                Step::Wait(flight.join(), None)
            } else {
                Step::After(flight.join())
            };
        }
        let launch = flight::begin(self, entry, &mut cell, true, Wanted::New);
        let outcomes = launch.outcomes();
        drop(cell);
        launch.launch(self.call(source, ask));
        Step::Wait(outcomes, None)
    }

    /// A new entry. The fetch that it will need is paid for first: a pod over its share makes none.
    fn insert(
        &self,
        key: &IdentityKey,
        ask: Ask<'_>,
        paid: &mut bool,
    ) -> Result<Arc<Entry>, SourceError> {
        self.pay(ask.request.asker, paid)?;
        let entry = self
            .table
            .find_or_insert(
                key,
                ask.request.resource,
                ask.request.asker,
                self.clock.now(),
            )
            .map_err(|_| {
                Fault::new(
                    FaultKind::Overloaded,
                    "Too many resources are being asked for with this identity",
                )
            })?;
        self.metrics.set_entries(self.table.len());
        Ok(entry)
    }

    /// One look at an entry, and the flight that it may call for.
    fn step(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        source: &SourceFacts,
        ask: Ask<'_>,
        paid: &mut bool,
    ) -> Step {
        let now = self.clock.now();
        let mut cell = entry.cell.lock();
        if cell.gone {
            return Step::Gone;
        }
        entry.touch(ask.request.asker, now.mono);
        match cell
            .slot
            .decide(now, self.is_not_yet(ask.request.grant, now))
        {
            decision @ (Decision::Serve | Decision::ServeAndRefresh) => {
                let refresh = decision == Decision::ServeAndRefresh;
                Step::Done(self.serve(entry, cell, refresh, source, ask, now))
            }
            Decision::Refuse(until) => {
                self.metrics.lookup(Lookup::Negative);
                Step::Done(Err(refusal(&cell, until.saturating_sub(now.mono))))
            }
            Decision::Wait(until) => {
                self.metrics.lookup(Lookup::Miss);
                match &cell.flight {
                    Some(flight) => Step::Wait(flight.join(), until),
                    None => Step::Done(Err(broken_off())),
                }
            }
            Decision::Fetch(until) => {
                if let Err(error) = self.pay(ask.request.asker, paid) {
                    return Step::Done(if cell.slot.usable(now).is_some() {
                        self.serve(entry, cell, false, source, ask, now)
                    } else {
                        Err(error)
                    });
                }
                *paid = false;
                self.metrics.lookup(Lookup::Miss);
                let launch = flight::begin(self, entry, &mut cell, true, Wanted::Any);
                let outcomes = launch.outcomes();
                drop(cell);
                launch.launch(self.call(source, ask));
                Step::Wait(outcomes, until)
            }
        }
    }

    /// Serves the token at hand, if this grant may have it, and renews it beside if it is due.
    pub(super) fn serve(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        mut cell: MutexGuard<'_, Cell>,
        refresh: bool,
        source: &SourceFacts,
        ask: Ask<'_>,
        now: Moment,
    ) -> Result<Obtained, SourceError> {
        let held = cell.slot.usable(now).cloned().ok_or_else(broken_off)?;
        admit(&held.claims, ask.request.grant)?;
        let launch = (refresh && !self.draining.load(Ordering::Relaxed))
            .then(|| flight::begin(self, entry, &mut cell, false, Wanted::Any));
        let (cache, lookup) = if cell.slot.is_failing() || held.is_short(now) {
            (CacheState::Stale, Lookup::Stale)
        } else if cell.slot.in_flight() {
            (CacheState::Refreshing, Lookup::Hit)
        } else {
            (CacheState::Hit, Lookup::Hit)
        };
        drop(cell);
        if let Some(launch) = launch {
            launch.launch(self.call(source, ask));
        }
        self.metrics.lookup(lookup);
        Ok(Obtained {
            left: held.left(now),
            token: Arc::clone(&held.token),
            cache,
            source: source.as_str(),
        })
    }

    /// What a caller gets of a flight that he waited for.
    fn landed(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        source: &SourceFacts,
        ask: Ask<'_>,
        outcome: Option<Outcome>,
    ) -> Result<Obtained, SourceError> {
        let now = self.clock.now();
        let cell = entry.cell.lock();
        match outcome.unwrap_or_else(|| Err(broken_off())) {
            Ok(fresh) => {
                // Of a fetched token and one that was there, the longer one was kept.
                let held = cell.slot.usable(now).cloned().unwrap_or(fresh);
                drop(cell);
                if !held.is_usable(now) {
                    return Err(broken_off());
                }
                admit(&held.claims, ask.request.grant)?;
                Ok(Obtained {
                    left: held.left(now),
                    token: Arc::clone(&held.token),
                    cache: CacheState::Miss,
                    source: source.as_str(),
                })
            }
            Err(_) if !ask.request.bypass_cache && cell.slot.usable(now).is_some() => {
                self.serve(entry, cell, false, source, ask, now)
            }
            Err(error) => Err(error),
        }
    }

    fn call(&self, source: &SourceFacts, ask: Ask<'_>) -> Call {
        Call {
            source: source.clone(),
            grant: ask.request.grant.clone(),
            resource: ask.request.resource.to_owned(),
            asker: ask.request.asker.clone(),
            claims: ask.request.claims.map(str::to_owned),
            bypass_cache: ask.request.bypass_cache,
            // Ends before its callers give up, so that they learn why.
            deadline: Instant::now() + self.config.answer_deadline.saturating_sub(SECOND),
        }
    }

    /// Counts a request that the cache will not do for against the pod's share of those.
    pub(super) fn take_anew(&self, asker: &Asker) -> Result<(), Fault> {
        let taken = self.anew.lock().take(asker, self.clock.mono());
        taken.map_err(|wait| {
            Fault::new(
                FaultKind::PodThrottled,
                "This pod asks for more new tokens (claims, bypass_cache) than its share",
            )
            .with_retry_after(wait.max(SECOND))
        })
    }

    /// Counts a fetch against the pod's share, once for each fetch.
    fn pay(&self, asker: &Asker, paid: &mut bool) -> Result<(), SourceError> {
        if !*paid {
            let taken = self.pods.lock().take(asker, self.clock.mono());
            taken.map_err(|wait| {
                Fault::new(
                    FaultKind::PodThrottled,
                    "This pod asks for more uncached tokens than its share",
                )
                .with_retry_after(wait.max(SECOND))
            })?;
            *paid = true;
        }
        Ok(())
    }
}

/// The refusal at hand, to be tried again when it is not kept any more.
fn refusal(cell: &Cell, left: Duration) -> SourceError {
    match cell.slot.refusal() {
        Some(SourceError::Fault(fault)) => {
            SourceError::Fault(fault.clone().with_retry_after(left.max(SECOND)))
        }
        Some(error) => error.clone(),
        None => broken_off(),
    }
}

fn broken_off() -> SourceError {
    SourceError::Fault(Fault::new(
        FaultKind::UpstreamUnavailable,
        "The token could not be fetched",
    ))
}
