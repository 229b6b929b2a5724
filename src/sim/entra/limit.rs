//! Entra's throttling: a token bucket for each application.
//!
//! In: the client id and the instant. Out: pass, or not. Applications do not share: one that asks too much does not
//! hurt another. Never blocks. Off unless the world says so: Entra publishes no numbers.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;

use crate::sim::world::Throttle;

/// What each application has left, and when that was counted.
#[derive(Debug, Default)]
pub(super) struct Limits(Mutex<HashMap<String, (f64, Instant)>>);

impl Limits {
    /// Whether one more request of this application passes.
    pub fn pass(&self, client: &str, rate: Throttle, now: Instant) -> bool {
        let mut buckets = self.0.lock();
        let full = f64::from(rate.burst);
        let bucket = buckets.entry(client.to_ascii_lowercase());
        let (left, counted) = bucket.or_insert((full, now));
        let gained = now.saturating_duration_since(*counted).as_secs_f64() * rate.per_second;
        *counted = now;
        *left = (*left + gained).min(full);
        let pass = *left >= 1.0;
        if pass {
            *left -= 1.0;
        }
        pass
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_and_each_application_has_its_own() {
        let limits = Limits::default();
        let rate = Throttle {
            per_second: 2.0,
            burst: 3,
            retry_after: 1,
        };
        let start = Instant::now();
        let passed = (0..5).filter(|_| limits.pass("a", rate, start)).count();
        assert_eq!(passed, 3);
        assert!(limits.pass("b", rate, start));
        let later = start + Duration::from_millis(500);
        assert!(limits.pass("A", rate, later) && !limits.pass("a", rate, later));
    }
}
