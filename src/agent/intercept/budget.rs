//! How often rules may be repaired: at once, until somebody keeps undoing it.
//!
//! In: when repairs happened (`now` is given). Out: how long to wait before the next. Pure.
//! After [`LIMIT`] repairs within [`WINDOW`] the way in (`nat`) is repaired every
//! [`SLOW`] only, while the door (`filter`) is put back within a second, always: whatever fights
//! over the rules, pods meet a closed door rather than the node's identity.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Repairs within a window that still count as normal life.
pub const LIMIT: usize = 5;
/// The window.
pub const WINDOW: Duration = Duration::from_mins(1);
/// Pause between repairs of `nat` once the limit is reached.
pub const SLOW: Duration = Duration::from_secs(10);
/// Pause between repairs of `filter` once the limit is reached.
pub const URGENT: Duration = Duration::from_millis(800);

/// The repairs of the last window.
#[derive(Debug, Default)]
pub struct Budget {
    repairs: VecDeque<Instant>,
    nat: Option<Instant>,
    filter: Option<Instant>,
}

impl Budget {
    /// A repair of these tables happened.
    pub fn record(&mut self, now: Instant, nat: bool, filter: bool) {
        self.repairs.push_back(now);
        self.nat = if nat { Some(now) } else { self.nat };
        self.filter = if filter { Some(now) } else { self.filter };
    }

    /// Repairs within the window before `now`.
    pub fn recent(&mut self, now: Instant) -> usize {
        while self
            .repairs
            .front()
            .is_some_and(|at| now.duration_since(*at) >= WINDOW)
        {
            self.repairs.pop_front();
        }
        self.repairs.len()
    }

    /// Whether the limit is reached: time for the alarm.
    pub fn is_over(&mut self, now: Instant) -> bool {
        self.recent(now) >= LIMIT
    }

    /// How long until a table (`nat`, or one that closes the door) may be repaired; zero: now.
    pub fn wait(&mut self, now: Instant, table: &str) -> Duration {
        if !self.is_over(now) {
            return Duration::ZERO;
        }
        let (last, pause) = if table == "nat" {
            (self.nat, SLOW)
        } else {
            (self.filter, URGENT)
        };
        last.map_or(Duration::ZERO, |last| {
            (last + pause).saturating_duration_since(now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slows_the_way_in_but_never_the_door() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        for second in 0..5 {
            let now = start + Duration::from_secs(second);
            assert_eq!(budget.wait(now, "nat"), Duration::ZERO);
            budget.record(now, true, true);
        }
        let now = start + Duration::from_secs(5);
        assert!(budget.is_over(now));
        assert_eq!(budget.wait(now, "nat"), Duration::from_secs(9));
        assert_eq!(budget.wait(now, "filter"), Duration::ZERO);
        budget.record(now, false, true);
        assert!(budget.wait(now, "filter") < Duration::from_secs(1));
        assert_eq!(
            budget.wait(start + Duration::from_secs(14), "nat"),
            Duration::ZERO
        );
    }

    #[test]
    fn a_quiet_minute_ends_the_alarm() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        (0..9).for_each(|_| budget.record(start, true, false));
        assert!(budget.is_over(start + Duration::from_secs(59)));
        assert!(!budget.is_over(start + WINDOW));
        assert_eq!(budget.wait(start + WINDOW, "nat"), Duration::ZERO);
    }
}
