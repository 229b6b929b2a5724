//! What is known of the watches' health: when each kind was last heard of, and what keeps it from
//! being heard. Written by those who follow, read by the watchdog. No IO.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::api::kind::Kind;

/// All kinds.
#[derive(Debug)]
pub struct Health {
    always: &'static [Kind],
    kinds: [Mutex<State>; Kind::EVERY.len()],
    start: Instant,
    /// How old a remembered state was when this process started.
    remembered: Mutex<Duration>,
}

#[derive(Debug, Default)]
struct State {
    heard: Option<Instant>,
    trouble: Option<Trouble>,
}

/// What keeps a kind from being followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Instant,
    /// Why, in the API server's words or ours.
    pub why: String,
}

/// A kind's health at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Which kind.
    pub kind: Kind,
    /// Whether this process has ever heard of it.
    pub known: bool,
    /// How long ago it was heard of.
    pub age: Duration,
    /// For how long it has been in trouble, and why.
    pub trouble: Option<(Duration, String)>,
}

impl Health {
    /// Nothing was heard yet. `always` are the kinds that count from the start, others from the first
    /// word of them on.
    pub fn new(always: &'static [Kind]) -> Self {
        Self {
            always,
            kinds: Default::default(),
            start: Instant::now(),
            remembered: Mutex::default(),
        }
    }

    /// What is known at the start is this old.
    pub fn remembers(&self, age: Duration) {
        *self.remembered.lock() = age;
    }

    /// The API server told something of a kind.
    pub fn heard(&self, kind: Kind) {
        let mut state = self.kinds[kind as usize].lock();
        state.heard = Some(Instant::now());
        state.trouble = None;
    }

    /// A kind cannot be followed at the moment; whether that is news.
    pub fn failed(&self, kind: Kind, why: String) -> bool {
        let mut state = self.kinds[kind as usize].lock();
        let since = state.trouble.as_ref().map(|trouble| trouble.since);
        let is_news = state.trouble.as_ref().is_none_or(|known| known.why != why);
        state.trouble = Some(Trouble {
            since: since.unwrap_or_else(Instant::now),
            why,
        });
        is_news
    }

    /// The health of all kinds that are followed, now.
    pub fn pulses(&self) -> Vec<Pulse> {
        let remembered = *self.remembered.lock();
        let pulse = |kind: Kind| {
            let state = self.kinds[kind as usize].lock();
            let never = || self.start.elapsed() + remembered;
            let trouble = state.trouble.as_ref();
            Pulse {
                kind,
                known: state.heard.is_some(),
                age: state.heard.map_or_else(never, |heard| heard.elapsed()),
                trouble: trouble.map(|trouble| (trouble.since.elapsed(), trouble.why.clone())),
            }
        };
        let counts = |pulse: &Pulse| {
            self.always.contains(&pulse.kind) || pulse.known || pulse.trouble.is_some()
        };
        Kind::EVERY.into_iter().map(pulse).filter(counts).collect()
    }

    /// How long ago this kind was heard of; since the start, if never.
    pub fn age(&self, kind: Kind) -> Duration {
        let heard = self.kinds[kind as usize].lock().heard;
        heard.unwrap_or(self.start).elapsed()
    }

    /// How long ago the kind was heard of about which least is known.
    pub fn state_age(&self) -> Duration {
        let pulses = self.pulses();
        pulses
            .into_iter()
            .map(|pulse| pulse.age)
            .max()
            .unwrap_or_default()
    }
}
