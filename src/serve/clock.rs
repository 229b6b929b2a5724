//! The wall clock, read in one place, so that every pure step takes `now` as a value.
//!
//! Monotonic time (deadlines, latencies) is tokio's `Instant` and may be read anywhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day as an instant in UTC.
pub fn now() -> jiff::Timestamp {
    // A clock outside jiff's years (-9999 to 9999) is taken as the epoch: everything is expired then.
    jiff::Timestamp::try_from(system_now()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// The time since 1970-01-01T00:00:00Z; zero where the clock stands before it.
pub fn since_epoch() -> Duration {
    system_now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn system_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_readings_tell_the_same_time_and_it_is_after_this_was_written() {
        let (instant, since) = (now(), since_epoch());
        assert!(since > Duration::from_secs(1_790_000_000), "{since:?}");
        assert!(since.as_secs().abs_diff(instant.as_second().unsigned_abs()) <= 1);
    }
}
