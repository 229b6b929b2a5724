//! Bounded waits that name what they wait for.
//!
//! In: a condition. Out: the moment it holds, or an error with its name. Blocks only in tokio's
//! timer. The only way in which labs, demos and tests wait: no bare sleeps.

use std::time::Duration;

use tokio::time::Instant;

use super::LabError;

const PAUSE: Duration = Duration::from_millis(10);

/// Asks `condition` again and again until it holds; an error names `what` after `limit`.
pub async fn until(
    limit: Duration,
    what: impl Into<String>,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<(), LabError> {
    let start = Instant::now();
    let asked = tokio::time::timeout(limit, async {
        while !condition().await {
            tokio::time::sleep(PAUSE).await;
        }
    });
    asked.await.map_err(|_| LabError::TimedOut {
        what: what.into(),
        seconds: (Instant::now() - start).as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut asked = 0;
        let waited = until(Duration::from_secs(1), "the third time", async || {
            asked += 1;
            asked == 3
        });
        waited.await.unwrap();
        assert_eq!(asked, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_never_holds_is_named() {
        let error = until(Duration::from_secs(2), "rain", async || false)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "waited 2.0 s in vain for rain");
    }
}
