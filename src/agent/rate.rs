//! Rates: at most `burst` at once and `per_second` in the long run. Pure, and exact: in any window
//! of one second, ends included, no more than `burst + per_second` are let through.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::grant::Asker;

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once, after a quiet time.
    pub burst: u32,
}

/// The state of one rate: when the next would be due if all came evenly (monotonic).
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    due: Duration,
}

impl Pace {
    /// When the next may pass; not later than `now` if it may at once.
    #[must_use]
    pub fn ready_at(&self, rate: Rate) -> Duration {
        let ahead = interval(rate) * rate.burst.max(1).saturating_sub(1);
        self.due.saturating_sub(ahead)
    }

    /// Lets one pass, if it may.
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let ready = self.ready_at(rate) <= now;
        if ready {
            self.due = self.due.max(now) + interval(rate);
        }
        ready
    }

    /// Whether it is as if nothing had ever passed.
    #[must_use]
    pub fn is_rested(&self, now: Duration) -> bool {
        self.due <= now
    }
}

fn interval(rate: Rate) -> Duration {
    // Rounded up, so that a second never holds one more.
    Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(rate.per_second.max(1))))
}

/// One rate for each asker. Memory: an entry for each asker that came lately, pruned as it grows.
#[derive(Debug)]
pub struct Shares {
    rate: Rate,
    /// One of the rate's seconds lasts so many.
    slowed: u32,
    paces: HashMap<Asker, Pace>,
    prune_at: usize,
}

impl Shares {
    /// No more than this many entries are looked through when pruning is of no use yet.
    const PRUNE_AT: usize = 1024;

    /// The same rate for everybody.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::slowed(rate, 1)
    }

    /// The same rate for everybody, one of whose seconds lasts `seconds`: for less than one in a second.
    #[must_use]
    pub fn slowed(rate: Rate, seconds: u32) -> Self {
        Self {
            rate,
            slowed: seconds.max(1),
            paces: HashMap::new(),
            prune_at: Self::PRUNE_AT,
        }
    }

    /// Lets one of this asker's pass; else how long to wait.
    pub fn take(&mut self, asker: &Asker, now: Duration) -> Result<(), Duration> {
        let now = now / self.slowed;
        if self.paces.len() >= self.prune_at {
            self.paces.retain(|_, pace| !pace.is_rested(now));
            self.prune_at = Self::PRUNE_AT.max(self.paces.len() * 2);
        }
        let pace = self.paces.entry(asker.clone()).or_default();
        if pace.take(self.rate, now) {
            Ok(())
        } else {
            Err(pace.ready_at(self.rate).saturating_sub(now) * self.slowed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testkit::asker;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_second_holds_more_than_burst_and_rate(
            gaps in proptest::collection::vec(0u64..120, 1..400), per_second in 1u32..30, burst in 1u32..8
        ) {
            let (rate, mut pace) = (Rate { per_second, burst }, Pace::default());
            let (mut now, mut passed) = (MS(5_000), Vec::new());
            for gap in gaps {
                now += MS(gap);
                if pace.take(rate, now) {
                    passed.push(now);
                }
            }
            for (at, start) in passed.iter().enumerate() {
                let count = passed[at..].iter().filter(|time| **time <= *start + MS(1_000)).count();
                prop_assert!(count <= (per_second + burst) as usize, "{} in a second", count);
            }
        }
    }

    #[test]
    fn each_asker_has_a_share_of_its_own() {
        let mut shares = Shares::new(Rate {
            per_second: 2,
            burst: 3,
        });
        let (flood, calm) = (asker("flood"), asker("calm"));
        let passed = (0..100)
            .filter(|_| shares.take(&flood, MS(0)).is_ok())
            .count();
        assert_eq!(passed, 3);
        assert_eq!(shares.take(&calm, MS(0)), Ok(()));
        assert_eq!(shares.take(&flood, MS(100)), Err(MS(400)));
        assert_eq!(shares.take(&flood, MS(500)), Ok(()));
    }

    #[test]
    fn a_share_may_be_less_than_one_in_a_second() {
        let rate = Rate {
            per_second: 1,
            burst: 2,
        };
        let mut shares = Shares::slowed(rate, 10);
        let pod = asker("pod");
        let mut take = |now| shares.take(&pod, MS(now));
        assert_eq!((take(0), take(0)), (Ok(()), Ok(())));
        assert_eq!(take(0), Err(MS(10_000)));
        assert_eq!(take(9_000), Err(MS(1_000)));
        assert_eq!(take(10_000), Ok(()));
        assert_eq!(take(10_000), Err(MS(10_000)));
    }

    #[test]
    fn memory_is_bounded_by_askers_of_late() {
        let mut shares = Shares::new(Rate {
            per_second: 2,
            burst: 3,
        });
        for n in 0..100_000u64 {
            let asker = asker(&n.to_string());
            assert!(shares.take(&asker, MS(n * 10)).is_ok());
        }
        assert!(shares.paces.len() <= 2 * Shares::PRUNE_AT);
    }
}
