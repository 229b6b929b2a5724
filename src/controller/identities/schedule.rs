//! Which identity is asked for next, and when. Pure: times are durations since one start, chance comes
//! as a value.
//!
//! Holds that what is newly named is asked for at once, that no identity is asked for twice at a time,
//! and that those that exist are looked at once in an interval, spread over it and not all together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::backoff;
use crate::model::ids::ArmId;

/// After looks that found none.
const MISSING: backoff::Bounds = (Duration::from_secs(30), Duration::from_mins(10));
/// After failures that may pass by themselves.
const FAILED: backoff::Bounds = (Duration::from_secs(10), Duration::from_mins(10));
/// Not sooner after the last look, whoever is in a hurry.
const SOONEST: Duration = Duration::from_secs(15);

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It exists.
    Exists,
    /// It does not.
    Missing,
    /// Nobody knows: not before this time has passed may it be asked again.
    Failed(Duration),
}

/// All identities that are asked for.
#[derive(Debug)]
pub struct Schedule {
    /// How often those are looked at that exist.
    interval: Duration,
    identities: BTreeMap<ArmId, Entry>,
    queue: BTreeSet<(Duration, ArmId)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// When it is due; `None` while it is being asked for.
    due: Option<Duration>,
    /// Nobody's hurry makes it due before.
    soonest: Duration,
    /// Looks in a row that did not find it.
    failures: u32,
}

impl Schedule {
    /// Nothing is asked for yet.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            identities: BTreeMap::new(),
            queue: BTreeSet::new(),
        }
    }

    /// These are named now; gives back those that no longer are.
    pub fn want(&mut self, wanted: &BTreeSet<ArmId>, now: Duration) -> Vec<ArmId> {
        let known = self.identities.keys();
        let gone: Vec<ArmId> = known.filter(|id| !wanted.contains(*id)).cloned().collect();
        for id in &gone {
            self.set(id, None);
            self.identities.remove(id);
        }
        for id in wanted {
            if !self.identities.contains_key(id) {
                self.identities.insert(id.clone(), Entry::default());
                self.set(id, Some(now));
            }
        }
        gone
    }

    /// Somebody has a reason to doubt what is known of it.
    pub fn hurry(&mut self, id: &ArmId, now: Duration) {
        let Some(entry) = self.identities.get(id) else {
            return;
        };
        let soonest = now.max(entry.soonest);
        if entry.due.is_some_and(|due| due > soonest) {
            self.set(id, Some(soonest));
        }
    }

    /// The next one that is due: from now on it is being asked for.
    pub fn take(&mut self, now: Duration) -> Option<ArmId> {
        let (due, id) = self.queue.first()?;
        if *due > now {
            return None;
        }
        let id = id.clone();
        self.set(&id, None);
        Some(id)
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// It could not be asked for yet.
    pub fn postpone(&mut self, id: &ArmId, until: Duration) {
        self.set(id, Some(until));
    }

    /// It was asked for; whether anybody still names it. `chance` is from 0 to 1.
    pub fn looked(&mut self, id: &ArmId, how: Looked, now: Duration, chance: f64) -> bool {
        let interval = self.interval;
        let Some(entry) = self.identities.get_mut(id) else {
            return false;
        };
        let least = match how {
            Looked::Failed(least) => least,
            Looked::Exists | Looked::Missing => Duration::ZERO,
        };
        entry.soonest = now + SOONEST.max(least);
        let grown = |bounds| backoff::pause(bounds, entry.failures).mul_f64(0.9 + chance / 5.0);
        let pause = match how {
            Looked::Exists => interval.mul_f64(0.75 + chance / 2.0),
            Looked::Missing => grown(MISSING),
            Looked::Failed(_) => grown(FAILED),
        };
        entry.failures = match how {
            Looked::Exists => 0,
            Looked::Missing | Looked::Failed(_) => entry.failures.saturating_add(1),
        };
        self.set(id, Some(now + pause.max(least)));
        true
    }

    fn set(&mut self, id: &ArmId, due: Option<Duration>) {
        let Some(entry) = self.identities.get_mut(id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut entry.due, due) {
            self.queue.remove(&(before, id.clone()));
        }
        if let Some(due) = due {
            self.queue.insert((due, id.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_mins(5);

    fn id(n: usize) -> ArmId {
        let id = format!(
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i{n}"
        );
        id.parse().unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of(count: usize) -> (Schedule, BTreeSet<ArmId>) {
        let wanted: BTreeSet<ArmId> = (0..count).map(id).collect();
        let mut schedule = Schedule::new(INTERVAL);
        assert!(schedule.want(&wanted, at(0)).is_empty());
        (schedule, wanted)
    }

    #[test]
    fn new_ones_are_due_at_once_and_none_twice_at_a_time() {
        let (mut schedule, mut wanted) = of(2);
        assert!(schedule.take(at(0)).is_some());
        assert!(schedule.take(at(0)).is_some());
        assert_eq!((schedule.take(at(9999)), schedule.next()), (None, None));
        wanted.insert(id(7));
        schedule.want(&wanted, at(1));
        assert_eq!(schedule.take(at(1)), Some(id(7)));
        schedule.hurry(&id(7), at(1));
        assert_eq!(schedule.take(at(9999)), None, "it is being asked for");
    }

    #[test]
    fn those_that_exist_are_spread_over_the_interval() {
        let (mut schedule, wanted) = of(101);
        let all: Vec<ArmId> = std::iter::from_fn(|| schedule.take(at(0))).collect();
        for (n, id) in all.iter().enumerate() {
            let chance = f64::from(u32::try_from(n).unwrap()) / 100.0;
            assert!(schedule.looked(id, Looked::Exists, at(0), chance));
        }
        let dues: Vec<u64> = schedule
            .queue
            .iter()
            .map(|(due, _)| due.as_secs())
            .collect();
        assert_eq!((dues[0], dues[100]), (225, 375));
        let most = dues.iter().filter(|due| (300..310).contains(*due)).count();
        assert!(most < 10, "{most} in ten seconds");
        assert_eq!(schedule.identities.len(), wanted.len());
    }

    #[test]
    fn one_that_is_missing_is_asked_for_less_and_less_and_its_return_is_noticed() {
        let (mut schedule, _) = of(1);
        let mut pauses = Vec::new();
        let mut now = at(0);
        for _ in 0..7 {
            now = now.max(schedule.next().unwrap());
            let id = schedule.take(now).unwrap();
            schedule.looked(&id, Looked::Missing, now, 0.5);
            let pause = schedule.next().unwrap().checked_sub(now);
            pauses.push(pause.unwrap().as_secs());
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600]);
        now = schedule.next().unwrap();
        let id = schedule.take(now).unwrap();
        schedule.looked(&id, Looked::Exists, now, 0.5);
        assert_eq!(schedule.next(), Some(now + INTERVAL));
    }

    #[test]
    fn what_azure_asks_for_is_the_least_pause() {
        let (mut schedule, _) = of(1);
        let id = schedule.take(at(0)).unwrap();
        schedule.looked(&id, Looked::Failed(at(700)), at(0), 0.0);
        schedule.hurry(&id, at(20));
        assert_eq!(schedule.next(), Some(at(700)));
    }

    #[test]
    fn whoever_is_in_a_hurry_does_not_make_a_flood() {
        let (mut schedule, _) = of(1);
        let id = schedule.take(at(0)).unwrap();
        schedule.looked(&id, Looked::Exists, at(0), 0.5);
        schedule.hurry(&id, at(1));
        assert_eq!(schedule.next(), Some(at(15)));
        schedule.hurry(&id, at(2));
        assert_eq!(schedule.next(), Some(at(15)));
        schedule.hurry(&id, at(100));
        assert_eq!(schedule.next(), Some(at(15)), "never later than it was");
    }

    #[test]
    fn what_nobody_names_any_more_is_forgotten_also_while_it_is_asked_for() {
        let (mut schedule, _) = of(2);
        let first = schedule.take(at(0)).unwrap();
        let gone = schedule.want(&BTreeSet::new(), at(1));
        assert_eq!(gone.len(), 2);
        assert!(!schedule.looked(&first, Looked::Exists, at(2), 0.5));
        schedule.postpone(&first, at(3));
        assert_eq!(schedule.next(), None);
    }
}
