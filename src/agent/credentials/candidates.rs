//! Which of an identity's credentials to present, and in which order. Pure.
//!
//! In: what its Secret holds, what Entra said of each credential, `now`. Out: the credentials to try, the
//! best first. Holds that a replaced credential stays until a newer one has proved itself, that none
//! is kept for ever, and that a refused one gets another chance: Entra takes minutes to tell all of
//! its servers of a new credential.

use std::sync::Arc;
use std::time::Duration;

use super::material::Credential;
use crate::model::backoff::{self, Bounds};

/// After a refusal others are preferred for this long; then longer each time.
const REFUSED: Bounds = (Duration::from_secs(30), Duration::from_mins(10));
/// Replaced credentials that are kept: whoever writes a Secret often must not fill the memory.
const MAX_REPLACED: usize = 3;

/// How far a node's clock may be off.
const SKEW: Duration = Duration::from_mins(5);

/// An identity's credentials.
#[derive(Debug, Default)]
pub struct Candidates {
    /// Newest first; what the Secret holds stands before what it held.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    credential: Arc<Credential>,
    /// Whether the Secret holds it now.
    listed: bool,
    /// Whether it ever gave a token.
    proved: bool,
    /// How often in a row it was refused, and until when others are preferred.
    refusals: u32,
    not_before: Duration,
}

impl Candidates {
    /// The Secret holds these now, newest first. Whether it did not hold one of them before.
    pub fn replace(&mut self, held: Vec<Credential>) -> bool {
        let mut before = std::mem::take(&mut self.entries);
        let mut is_new = false;
        for credential in held {
            if self.holds(&credential) {
                continue;
            }
            let known = before
                .iter()
                .position(|entry| entry.credential.is_same(&credential));
            let entry = known.map_or_else(|| Entry::new(credential), |at| before.remove(at));
            is_new |= !entry.listed;
            self.entries.push(Entry {
                listed: true,
                ..entry
            });
        }
        for entry in &mut before {
            entry.listed = false;
        }
        // Those that gave tokens are worth more than those that never did.
        before.sort_by_key(|entry| !entry.proved);
        before.truncate(MAX_REPLACED);
        self.entries.extend(before);
        is_new
    }

    fn holds(&self, credential: &Credential) -> bool {
        let mut all = self.entries.iter();
        all.any(|entry| entry.credential.is_same(credential))
    }

    /// Nothing is left: the Secret is gone.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// What to present, the best first: valid ones that were not refused lately, then the rest. Times
    /// since the epoch. Expired ones are among the last: it is Entra's clock that counts.
    #[must_use]
    pub fn in_order(&self, now: Duration) -> Vec<Arc<Credential>> {
        let mut order: Vec<&Entry> = self.entries.iter().collect();
        order.sort_by_key(|entry| (!entry.credential.is_valid(now), entry.is_put_back(now)));
        order
            .into_iter()
            .map(|entry| entry.credential.clone())
            .collect()
    }

    /// It gave a token: what the Secret held before it is not needed any more.
    pub fn proved(&mut self, credential: &Credential) {
        let Some(entry) = self.entry(credential) else {
            return;
        };
        (entry.proved, entry.refusals) = (true, 0);
        if entry.listed {
            self.entries.retain(|entry| entry.listed);
        }
    }

    /// Entra refused it. A replaced one has no second chance.
    pub fn refused(&mut self, credential: &Credential, now: Duration) {
        let Some(entry) = self.entry(credential) else {
            return;
        };
        entry.not_before = now + backoff::pause(REFUSED, entry.refusals);
        entry.refusals = entry.refusals.saturating_add(1);
        self.entries
            .retain(|entry| entry.listed || !entry.credential.is_same(credential));
    }

    fn entry(&mut self, credential: &Credential) -> Option<&mut Entry> {
        let mut all = self.entries.iter_mut();
        all.find(|entry| entry.credential.is_same(credential))
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Since when all of them have expired, whatever the clocks; `None` while one has not.
    #[must_use]
    pub fn expired_since(&self, now: Duration) -> Option<Duration> {
        let ends = self
            .entries
            .iter()
            .map(|entry| entry.credential.not_after());
        let last = ends.map(|end| end.unwrap_or(Duration::MAX)).max()?;
        (last.saturating_add(SKEW) <= now).then_some(last)
    }

    /// Whether one is valid and was not refused lately.
    #[must_use]
    pub fn is_promising(&self, now: Duration) -> bool {
        let mut all = self.entries.iter();
        all.any(|entry| entry.credential.is_valid(now) && entry.refusals == 0)
    }

    /// The newest one of the Secret.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<Credential>> {
        let newest = self.entries.first().filter(|entry| entry.listed);
        newest.map(|entry| &entry.credential)
    }
}

impl Entry {
    fn new(credential: Credential) -> Self {
        Self {
            credential: Arc::new(credential),
            listed: false,
            proved: false,
            refusals: 0,
            not_before: Duration::ZERO,
        }
    }

    fn is_put_back(&self, now: Duration) -> bool {
        self.refusals > 0 && now < self.not_before
    }
}

#[cfg(test)]
mod tests;
