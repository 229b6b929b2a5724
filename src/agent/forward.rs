//! Passing an opened metadata path on to IMDS, within limits: IMDS serves few requests a second to
//! the whole node, and tokens come first.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::obtain::rate::{Rate, Shares};
use crate::azure::imds::{ImdsClient, ImdsError, Metadata};
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Asker;

/// At most so many at once.
const CONCURRENCY: usize = 2;
/// Of each pod.
const PER_POD: Rate = Rate {
    per_second: 1,
    burst: 10,
};
/// From the request to its answer, waiting included.
const LIMIT: Duration = Duration::from_secs(5);

/// Forwards metadata requests.
#[derive(Debug)]
pub struct Forwarder {
    imds: ImdsClient,
    turns: Semaphore,
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
        let turn = tokio::time::timeout_at(deadline, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
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
}

fn unavailable(error: &ImdsError) -> Fault {
    let kind = match error {
        ImdsError::Invalid(_) => FaultKind::UpstreamInvalid,
        _ => FaultKind::UpstreamUnavailable,
    };
    Fault::new(kind, "The metadata service did not answer properly").with_detail(error.to_string())
}
