//! How long to wait after a failure: twice as long each time, up to a bound. Pure.

use std::time::Duration;

/// The first pause, and the longest.
pub type Bounds = (Duration, Duration);

/// The pause after `failures` earlier ones in a row (0 for the first).
#[must_use]
pub fn pause((first, longest): Bounds, failures: u32) -> Duration {
    // Ten doublings reach every bound here, and none overflows.
    first.saturating_mul(1 << failures.min(10)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_stay_there() {
        let bounds = (Duration::from_millis(50), Duration::from_secs(2));
        let millis = |failures| pause(bounds, failures).as_millis();
        assert_eq!([0, 1, 2, 5].map(millis), [50, 100, 200, 1600]);
        assert_eq!([6, 31, u32::MAX].map(millis), [2000; 3]);
    }
}
