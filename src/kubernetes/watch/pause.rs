//! Pauses between attempts: growing, and each with chance in it, so that the nodes of a cluster do not
//! all come back at once.

use std::time::Duration;

use tokio::sync::watch;

use super::timing::Timing;

/// How long to wait next.
pub struct Pause {
    timing: Timing,
    next: Duration,
}

impl Pause {
    /// The first pause is the shortest.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            next: timing.first_pause,
        }
    }

    /// It worked: the next pause is the shortest again.
    pub fn reset(&mut self) {
        self.next = self.timing.first_pause;
    }

    /// Waits, and not longer than until `back` changes.
    pub async fn wait(&mut self, back: &mut watch::Receiver<u64>) {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.timing.longest_pause);
        if let Ok(Ok(())) = tokio::time::timeout(pause, back.changed()).await {
            // All followers of all nodes hear of it at once.
            tokio::time::sleep(self.timing.first_pause.mul_f64(fastrand::f64())).await;
        }
    }
}
