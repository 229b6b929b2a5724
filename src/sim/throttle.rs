//! IMDS's own limits for each machine: 20 identity requests in any second, 5 at once.
//!
//! In: a machine's request and the instant. Out: a permit to hold while it is answered, or a refusal.
//! Source: the instance metadata service's documentation, "Rate limiting". Never blocks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const PER_SECOND: usize = 20;
const AT_ONCE: usize = 5;

/// One machine's window.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    recent: VecDeque<Instant>,
    running: usize,
}

/// Held while a request is answered.
#[derive(Debug)]
pub(super) struct Permit {
    throttle: Arc<Throttle>,
    /// Requests running on the machine, this one included.
    pub running: usize,
}

impl Throttle {
    /// A permit, or none when a limit is reached. `enforce` false counts and lets all pass.
    pub fn enter(self: &Arc<Self>, now: Instant, enforce: bool) -> Option<Permit> {
        let mut window = self.0.lock();
        if enforce {
            while window
                .recent
                .front()
                .is_some_and(|then| now.saturating_duration_since(*then) >= Duration::from_secs(1))
            {
                window.recent.pop_front();
            }
            if window.recent.len() >= PER_SECOND || window.running >= AT_ONCE {
                return None;
            }
            window.recent.push_back(now);
        }
        window.running += 1;
        Some(Permit {
            throttle: self.clone(),
            running: window.running,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.throttle.0.lock().running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides() {
        let throttle = Arc::new(Throttle::default());
        let start = Instant::now();
        for step in 0..20 {
            let at = start + Duration::from_millis(step * 10);
            assert!(throttle.enter(at, true).is_some());
        }
        assert!(
            throttle
                .enter(start + Duration::from_millis(999), true)
                .is_none()
        );
        assert!(
            throttle
                .enter(start + Duration::from_secs(1), true)
                .is_some(),
            "the first left it"
        );
        assert!(
            throttle
                .enter(start + Duration::from_secs(1), true)
                .is_none()
        );
    }

    #[test]
    fn five_at_once_and_a_dropped_permit_makes_room() {
        let throttle = Arc::new(Throttle::default());
        let now = Instant::now();
        let mut held: Vec<_> = (0..5).map(|_| throttle.enter(now, true).unwrap()).collect();
        assert!(throttle.enter(now, true).is_none());
        held.pop();
        assert!(throttle.enter(now, true).is_some());
        assert!(
            throttle.enter(now, false).is_some(),
            "switched off, nothing is refused"
        );
    }
}
