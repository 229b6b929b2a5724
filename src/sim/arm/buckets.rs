//! ARM's and Compute's limits: token buckets for each subscription and caller, and for each resource.
//!
//! In: who asks for what, and the instant. Out: how many requests are left, or how long to wait. Sources: "Understand how
//! Azure Resource Manager throttles requests" (a bucket refilled each second) and "Compute throttling limits" (refilled
//! each minute). Never blocks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub capacity: u32,
    /// What each period adds.
    pub refill: u32,
    pub period: Duration,
}

const fn each_second(capacity: u32, refill: u32) -> Limit {
    Limit {
        capacity,
        refill,
        period: Duration::from_secs(1),
    }
}

const fn each_minute(capacity: u32, refill: u32) -> Limit {
    Limit {
        capacity,
        refill,
        period: Duration::from_mins(1),
    }
}

/// ARM, for each subscription, caller and kind of operation.
pub(super) const READS: Limit = each_second(250, 25);
pub(super) const WRITES: Limit = each_second(200, 10);
pub(super) const DELETES: Limit = each_second(200, 10);
/// Compute, for each machine or scale set.
pub(super) const UPDATE_RESOURCE: Limit = each_minute(12, 4);
pub(super) const GET_RESOURCE: Limit = each_minute(36, 12);
/// Compute, for each subscription.
pub(super) const UPDATE_SUBSCRIPTION: Limit = each_minute(1500, 500);
pub(super) const GET_VM_SUBSCRIPTION: Limit = each_minute(24_000, 8000);
pub(super) const GET_SET_SUBSCRIPTION: Limit = each_minute(2400, 800);
/// Compute, for each operation whose status is asked.
pub(super) const GET_OPERATION: Limit = each_minute(45, 15);

/// Buckets kept; a load of made-up resources must not fill the memory.
const KEPT: usize = 20_000;

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// When it was last refilled.
    since: Instant,
}

/// All buckets, by name.
#[derive(Debug, Default)]
pub(in crate::sim) struct Buckets(Mutex<HashMap<String, Bucket>>);

impl Buckets {
    /// Takes a token out of the bucket of that name: how many are left, or the seconds until there is one.
    pub fn take(&self, name: String, limit: Limit, now: Instant) -> Result<u32, u64> {
        let mut buckets = self.0.lock();
        if buckets.len() >= KEPT {
            buckets.clear();
        }
        let bucket = buckets.entry(name).or_insert(Bucket {
            tokens: limit.capacity,
            since: now,
        });
        bucket.refill(limit, now);
        if let Some(left) = bucket.tokens.checked_sub(1) {
            bucket.tokens = left;
            return Ok(left);
        }
        let wait = (bucket.since + limit.period).saturating_duration_since(now);
        Err(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}

impl Bucket {
    fn refill(&mut self, limit: Limit, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let periods = passed.as_nanos() / limit.period.as_nanos();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.tokens = limit.capacity.min(
            self.tokens
                .saturating_add(limit.refill.saturating_mul(periods)),
        );
        self.since += limit.period.saturating_mul(periods);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_writes_then_four_a_minute() {
        let buckets = Buckets::default();
        let start = Instant::now();
        let take = |seconds| {
            let now = start + Duration::from_secs(seconds);
            buckets.take("set".to_owned(), UPDATE_RESOURCE, now)
        };
        for left in (0..12).rev() {
            assert_eq!(take(0), Ok(left));
        }
        assert_eq!(take(18), Err(42));
        for left in (0..4).rev() {
            assert_eq!(take(60), Ok(left));
        }
        assert_eq!(take(60), Err(60));
        assert_eq!(take(600), Ok(11), "never more than full");
    }

    #[test]
    fn buckets_of_different_names_are_different() {
        let buckets = Buckets::default();
        let now = Instant::now();
        for _ in 0..12 {
            buckets.take("a".to_owned(), UPDATE_RESOURCE, now).unwrap();
        }
        assert!(buckets.take("a".to_owned(), UPDATE_RESOURCE, now).is_err());
        assert!(buckets.take("b".to_owned(), UPDATE_RESOURCE, now).is_ok());
    }
}
