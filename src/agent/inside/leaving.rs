//! The end of serving inside pods while the agent goes on: what was laid is about to be taken away for good.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What is under way in pods takes milliseconds, or ends at its deadlines.
const LIMIT: Duration = Duration::from_secs(15);

/// Asked for by who leaves the node, done by who serves.
#[derive(Clone, Debug, Default)]
pub struct Leaving {
    asked: CancellationToken,
    done: CancellationToken,
}

impl Leaving {
    /// Has everything inside pods stop; returns when nothing is laid any more, or after some seconds.
    pub async fn leave(&self) {
        self.asked.cancel();
        if tokio::time::timeout(LIMIT, self.done.cancelled())
            .await
            .is_err()
        {
            tracing::warn!(
                "listeners inside pods do not end; taking away what they laid all the same"
            );
        }
    }

    /// Until it is asked for.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// Nothing is laid any more.
    pub fn done(&self) {
        self.done.cancel();
    }
}
