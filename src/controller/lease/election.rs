//! Who holds the lease, and what to do about it next. Pure: what was read or written, and when, goes
//! in; the next step comes out. It asks no clock and no server.
//!
//! Of the lease's own times none is compared with a clock of here: a lease that somebody else holds is
//! free when it was seen unchanged for as long as it lasts. Each renewal changes it for certain, also
//! one by a clock that was set back.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

use super::Settings;
use super::guard::Term;

/// A lease may ask for more than our duration, but not for ever: somebody may have mistyped it.
const LONGEST: Duration = Duration::from_mins(1);

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing before then.
    Wait(Instant),
    /// Read the lease.
    Look,
    /// Write this where there is none.
    Create(Box<Lease>),
    /// Write this over the version that it names.
    Replace(Box<Lease>),
}

/// A candidate's or holder's view.
#[derive(Debug)]
pub(super) struct Election {
    settings: Settings,
    /// What was read or written last; `None`: nothing yet.
    seen: Option<Seen>,
    /// Whether it must be read (again) before anything else.
    blind: bool,
    due: Instant,
    term: Option<Term>,
    terms: u64,
}

#[derive(Debug)]
struct Seen {
    /// `None`: there is none.
    lease: Option<Lease>,
    /// When it is free, if it does not change, where somebody else holds it.
    free: Instant,
}

impl Election {
    pub(super) const fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            seen: None,
            blind: true,
            due: now,
            term: None,
            terms: 0,
        }
    }

    /// The lease that is held for certain.
    pub(super) const fn term(&self) -> Option<Term> {
        self.term
    }

    /// Who holds it, by what was seen last.
    pub(super) fn holder(&self) -> &str {
        holder(self.seen.as_ref().and_then(|seen| seen.lease.as_ref()))
    }

    /// The next step. `wall` is the time of day, for those who read the lease.
    pub(super) fn next(&self, now: Instant, wall: Timestamp) -> Step {
        if now < self.due {
            return Step::Wait(self.due);
        }
        let Some(seen) = self.seen.as_ref().filter(|_| !self.blind) else {
            return Step::Look;
        };
        if !self.is_mine() && now < seen.free {
            return Step::Look;
        }
        match &seen.lease {
            Some(lease) => Step::Replace(Box::new(self.taken(lease, wall))),
            None => Step::Create(Box::new(self.taken(&Lease::default(), wall))),
        }
    }

    /// The lease was read; `now` is when the answer was there.
    pub(super) fn looked(&mut self, lease: Option<Lease>, now: Instant) {
        self.blind = false;
        self.note(lease, now);
        if !self.is_mine() {
            self.term = None;
        }
        let free = self.seen.as_ref().map_or(now, |seen| seen.free);
        let pause = now + self.settings.look;
        self.due = if self.is_mine() { now } else { free.min(pause) };
    }

    /// The lease was written: the call that did it began at `begun`.
    pub(super) fn written(&mut self, lease: Lease, begun: Instant, now: Instant) {
        self.note(Some(lease), now);
        if !self.is_mine() {
            // An admission webhook changed it? It is not ours, whatever we wrote.
            self.term = None;
            self.due = now + self.settings.look;
            return;
        }
        let goes_on = self.term.filter(|term| term.until > now);
        let number = goes_on.map_or(self.terms + 1, |term| term.number);
        self.terms = number;
        let until = begun + self.settings.duration;
        self.term = Some(Term { until, number });
        self.due = begun + self.settings.renew;
    }

    /// Somebody else was faster, or there is none any more.
    pub(super) fn outdated(&mut self, now: Instant) {
        self.blind = true;
        // Soon, but never in a circle without a pause.
        self.due = now + self.settings.retry / 10;
    }

    /// Time passes: what was held may have ended.
    pub(super) fn lapse(&mut self, now: Instant) {
        self.term = self.term.filter(|term| term.until > now);
    }

    /// A call failed: whether it did something is not known.
    pub(super) fn failed(&mut self, now: Instant) {
        self.blind = true;
        self.due = now + self.settings.retry;
    }

    /// Steps down: from now on the lease is not held. What to write once nothing is under way that
    /// relies on it; `None` where it was not held.
    pub(super) fn step_down(&mut self, wall: Timestamp) -> Option<Lease> {
        self.term = None;
        let seen = self.seen.as_ref().filter(|_| self.is_mine())?;
        let mut lease = self.taken(seen.lease.as_ref()?, wall);
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        Some(lease)
    }

    fn is_mine(&self) -> bool {
        self.holder() == self.settings.identity
    }

    /// Takes in what the server has. Metadata make no difference: whoever edits a label does not renew.
    fn note(&mut self, lease: Option<Lease>, now: Instant) {
        let free = match &self.seen {
            _ if lease.is_none() && self.is_mine() => now,
            // It was deleted: whoever held it may not know that yet.
            Some(seen) if lease.is_none() || same(seen.lease.as_ref(), lease.as_ref()) => seen.free,
            _ if holder(lease.as_ref()).is_empty() => now,
            _ => now + self.lasts(lease.as_ref()),
        };
        self.seen = Some(Seen { lease, free });
    }

    fn lasts(&self, lease: Option<&Lease>) -> Duration {
        let asked = lease.and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds);
        let asked = Duration::from_secs(u64::try_from(asked.unwrap_or_default()).unwrap_or(0));
        asked.min(LONGEST).max(self.settings.duration)
    }

    /// The lease as ours: renewed, or taken over.
    fn taken(&self, before: &Lease, wall: Timestamp) -> Lease {
        let spec = before.spec.clone().unwrap_or_default();
        let is_new = before.metadata.resource_version.is_none();
        let mine = holder(Some(before)) == self.settings.identity;
        // Always later than before: a renewal that changes nothing would not be seen.
        let earlier = spec.renew_time.map(|time| time.0);
        let least = earlier.and_then(|time| time.checked_add(Duration::from_micros(1)).ok());
        let renewed = least.map_or(wall, |least| wall.max(least));
        let transitions = spec.lease_transitions.unwrap_or_default();
        let seconds = i32::try_from(self.settings.duration.as_secs()).unwrap_or(i32::MAX);
        let acquired = spec.acquire_time.filter(|_| mine);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.settings.name.clone()),
                namespace: Some(self.settings.namespace.clone()),
                ..before.metadata.clone()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.settings.identity.clone()),
                lease_duration_seconds: Some(seconds.max(1)),
                acquire_time: Some(acquired.unwrap_or(MicroTime(renewed))),
                renew_time: Some(MicroTime(renewed)),
                lease_transitions: Some(if mine || is_new {
                    transitions
                } else {
                    transitions.saturating_add(1)
                }),
                ..spec
            }),
        }
    }
}

fn holder(lease: Option<&Lease>) -> &str {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn same(before: Option<&Lease>, now: Option<&Lease>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => {
            before.metadata.uid == now.metadata.uid && before.spec == now.spec
        }
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
