//! What was told of which pod, so that a refusal that repeats is told once in a while, with its
//! count. Pure: values and `now` in, yes or no out.
//!
//! Bounded: a few entries for each pod, and a rate for all. A pod that is refused a thousand times a
//! second costs a look-up each time, and an Event in five minutes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::reason::Reason;
use crate::agent::rate::{Pace, Rate};

/// The same is told again after this long.
const AGAIN: Duration = Duration::from_mins(5);
/// A closed path is told less often: some SDKs ask for one at each start and do without it.
const CLOSED_AGAIN: Duration = Duration::from_hours(1);
/// What does not change is told for whoever looks today.
const LASTING_AGAIN: Duration = Duration::from_hours(24);
/// Different things told of one pod while they are fresh.
const MAX_OF_POD: usize = 6;
/// Pods remembered at once; a node has a few hundred.
const MAX_PODS: usize = 2048;
/// Of all pods together: the API server serves others, too.
const ALL: Rate = Rate {
    per_second: 1,
    burst: 20,
};

/// What became of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// To be told now: so many times in all since it was first told.
    Tell(u32),
    /// It was told lately; only counted.
    Counted,
    /// Not told, for want of room or of pace.
    Dropped,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    pods: HashMap<Arc<str>, Vec<Told>>,
    pace: Pace,
}

#[derive(Debug)]
struct Told {
    reason: Reason,
    /// A hash of what it was about.
    about: u64,
    /// When it may be told again.
    again: Duration,
    count: u32,
}

impl Ledger {
    /// Takes a refusal in. `about` is a hash of its words, `now` monotonic.
    pub fn note(&mut self, uid: &Arc<str>, reason: Reason, about: u64, now: Duration) -> Entry {
        if self.pods.len() >= MAX_PODS && !self.pods.contains_key(uid) {
            self.pods
                .retain(|_, told| told.iter().any(|told| told.again > now));
            if self.pods.len() >= MAX_PODS {
                return Entry::Dropped;
            }
        }
        let of_pod = self.pods.entry(uid.clone()).or_default();
        let known = of_pod
            .iter()
            .position(|told| told.reason == reason && told.about == about);
        if let Some(at) = known {
            let told = &mut of_pod[at];
            told.count = told.count.saturating_add(1);
            if told.again > now {
                return Entry::Counted;
            }
            if !self.pace.take(ALL, now) {
                return Entry::Dropped;
            }
            told.again = now + pause(reason);
            return Entry::Tell(told.count);
        }
        if of_pod.len() >= MAX_OF_POD {
            of_pod.retain(|told| told.again > now);
        }
        if of_pod.len() >= MAX_OF_POD || !self.pace.take(ALL, now) {
            return Entry::Dropped;
        }
        of_pod.push(Told {
            reason,
            about,
            again: now + pause(reason),
            count: 1,
        });
        Entry::Tell(1)
    }
}

const fn pause(reason: Reason) -> Duration {
    match reason {
        Reason::MetadataPathClosed => CLOSED_AGAIN,
        Reason::HostNetworkBypasses | Reason::ModeWithoutEffect => LASTING_AGAIN,
        _ => AGAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const REASON: Reason = Reason::IdentityNotGranted;

    #[test]
    fn a_flood_is_one_event_and_then_its_count() {
        let (mut ledger, pod) = (Ledger::default(), Arc::from("p"));
        assert_eq!(ledger.note(&pod, REASON, 1, S(0)), Entry::Tell(1));
        for n in 1..1000 {
            assert_eq!(
                ledger.note(&pod, REASON, 1, Duration::from_millis(n)),
                Entry::Counted
            );
        }
        assert_eq!(ledger.note(&pod, REASON, 1, S(301)), Entry::Tell(1001));
        assert_eq!(ledger.note(&pod, REASON, 1, S(302)), Entry::Counted);
    }

    #[test]
    fn another_problem_is_told_at_once() {
        let (mut ledger, pod) = (Ledger::default(), Arc::from("p"));
        assert_eq!(ledger.note(&pod, REASON, 1, S(0)), Entry::Tell(1));
        assert_eq!(ledger.note(&pod, REASON, 2, S(1)), Entry::Tell(1));
        assert_eq!(
            ledger.note(&pod, Reason::TokenRefused, 1, S(2)),
            Entry::Tell(1)
        );
    }

    #[test]
    fn a_pod_that_invents_problems_fills_its_own_share_only() {
        let (mut ledger, flood) = (Ledger::default(), Arc::from("flood"));
        let told = (0..10_000).filter(|n| ledger.note(&flood, REASON, *n, S(0)) == Entry::Tell(1));
        assert_eq!(told.count(), MAX_OF_POD);
        assert_eq!(ledger.pods[&flood].len(), MAX_OF_POD);
        assert_eq!(ledger.note(&"calm".into(), REASON, 1, S(0)), Entry::Tell(1));
    }

    #[test]
    fn all_together_have_a_rate_and_a_bound() {
        let mut ledger = Ledger::default();
        let told = |ledger: &mut Ledger, from: u64, now| {
            (from..from + 5000)
                .filter(|n| ledger.note(&n.to_string().into(), REASON, 1, now) == Entry::Tell(1))
                .count()
        };
        assert_eq!(told(&mut ledger, 0, S(1000)), 20);
        assert!(ledger.pods.len() <= MAX_PODS, "{}", ledger.pods.len());
        // What was quiet for long leaves its place.
        assert!(told(&mut ledger, 10_000, S(5000)) > 0);
    }
}
