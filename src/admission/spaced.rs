//! Log lines that anybody who reaches the port can cause: one of each kind in a second. The rest are in the metrics.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const SPACE: Duration = Duration::from_secs(1);

/// One kind of line.
#[derive(Debug)]
pub(super) struct Spaced(Mutex<Option<Instant>>);

impl Spaced {
    /// Nothing was said yet.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether it may be said now.
    pub(super) fn passes(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock();
        let passes = last.is_none_or(|last| now - last >= SPACE);
        if passes {
            *last = Some(now);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_in_a_second_passes() {
        let line = Spaced::new();
        let mut passed = 0;
        for _ in 0..250 {
            passed += usize::from(line.passes());
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert_eq!(passed, 3);
    }
}
