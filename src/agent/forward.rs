//! Passing an opened metadata path on to IMDS, within limits: IMDS serves few requests a second to
//! the whole node, and tokens come first.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::rate::{Pace, Rate, Shares};
use crate::azure::imds::{ImdsClient, ImdsError, Metadata};
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Asker;

/// At most so many at once: with the four that fetch tokens five, which is what IMDS allows.
const CONCURRENCY: usize = 1;
/// Of all pods. With the 18 calls that may fetch tokens a second never holds more than 20.
const PER_NODE: Rate = Rate {
    per_second: 1,
    burst: 1,
};
/// Of each pod, so that one that asks often leaves room to others.
const PER_POD: Rate = Rate {
    per_second: 1,
    burst: 3,
};
/// From the request to its answer, waiting included.
const LIMIT: Duration = Duration::from_secs(5);

/// Forwards metadata requests.
#[derive(Debug)]
pub struct Forwarder {
    imds: ImdsClient,
    turns: Semaphore,
    pace: Mutex<Pace>,
    pods: Mutex<Shares>,
    start: Instant,
}

impl Forwarder {
    /// Forwards to `imds`.
    pub fn new(imds: ImdsClient) -> Arc<Self> {
        let (turns, pods) = (
            Semaphore::new(CONCURRENCY),
            Mutex::new(Shares::new(PER_POD)),
        );
        Arc::new(Self {
            imds,
            turns,
            pace: Mutex::default(),
            pods,
            start: Instant::now(),
        })
    }

    /// Asks IMDS for a path that was found open.
    pub async fn forward(
        &self,
        asker: &Asker,
        path: &str,
        api_version: &str,
        format: Option<&str>,
    ) -> Result<Metadata, Fault> {
        self.pods
            .lock()
            .take(asker, self.start.elapsed())
            .map_err(|wait| {
                Fault::new(
                    FaultKind::PodThrottled,
                    "Too many metadata requests from this pod",
                )
                .with_retry_after(wait)
            })?;
        let deadline = Instant::now() + LIMIT;
        let turn = tokio::time::timeout_at(deadline, self.turn()).await;
        let Ok(Some(_turn)) = turn else {
            return Err(Fault::new(
                FaultKind::Overloaded,
                "Too many metadata requests on this node",
            ));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        self.imds
            .metadata(path, api_version, format, left)
            .await
            .map_err(|error| unavailable(&error))
    }

    /// Waits for a turn, in the order of asking.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.turns.acquire().await.ok()?;
        loop {
            let (now, ready) = (self.start.elapsed(), self.pace.lock().ready_at(PER_NODE));
            if ready <= now {
                self.pace.lock().take(PER_NODE, now);
                return Some(turn);
            }
            tokio::time::sleep_until(self.start + ready).await;
        }
    }
}

fn unavailable(error: &ImdsError) -> Fault {
    let kind = match error {
        ImdsError::Invalid(_) => FaultKind::UpstreamInvalid,
        _ => FaultKind::UpstreamUnavailable,
    };
    Fault::new(kind, "The metadata service did not answer properly").with_detail(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testkit::asker;

    /// Nobody answers at this endpoint: what counts is how many calls are begun.
    fn forwarder() -> Arc<Forwarder> {
        Forwarder::new(ImdsClient::new("http://127.0.0.1:1").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_holds_two_calls_whoever_asks() {
        let (forwarder, start) = (forwarder(), Instant::now());
        let mut begun = Vec::new();
        for _ in 0..6 {
            drop(forwarder.turn().await.unwrap());
            begun.push(start.elapsed());
        }
        for pair in begun.windows(3) {
            assert!(pair[2] > pair[0] + Duration::from_secs(1), "{begun:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_runs_at_a_time_and_who_waits_too_long_is_told() {
        let forwarder = forwarder();
        let _running = forwarder.turn().await.unwrap();
        let path = "/metadata/instance/compute/location";
        let asker = asker("p");
        let outcome = forwarder.forward(&asker, path, "2021-02-01", None);
        assert_eq!(outcome.await.unwrap_err().kind, FaultKind::Overloaded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_over_its_share_waits_in_no_line() {
        let (forwarder, flood) = (forwarder(), asker("flood"));
        for _ in 0..PER_POD.burst {
            forwarder.pods.lock().take(&flood, Duration::ZERO).unwrap();
        }
        let outcome = forwarder.forward(&flood, "/metadata/x", "2021-02-01", None);
        assert_eq!(outcome.await.unwrap_err().kind, FaultKind::PodThrottled);
    }
}
