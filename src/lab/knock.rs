//! Continuous asking: the load under which agents are killed, restarted and replaced.
//!
//! In: a namespace, an address, a request. Out: a running tally of what came back. Runs on a thread
//! of its own, one new connection after the other, a few milliseconds apart: bounded by its pace.
//! Invariant: every attempt is counted once, by its status or as failed.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{Get, LabError, Namespace};

const PACE: Duration = Duration::from_millis(3);

/// What came back until now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Attempts without an answer, by the kind of error (`connection refused`).
    pub failed: BTreeMap<String, u64>,
}

/// A pod that asks again and again until stopped or dropped.
#[derive(Debug)]
pub struct Knocking {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    work: JoinHandle<Result<(), LabError>>,
}

impl Namespace {
    /// Starts asking from inside the namespace.
    #[must_use]
    pub fn knock(&self, to: SocketAddrV4, request: Get) -> Knocking {
        let (tally, stop) = (Arc::<Mutex<Tally>>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (tally.clone(), stop.clone());
        let work = tokio::spawn(self.run(async move || {
            while !stopped.load(Ordering::Relaxed) {
                let outcome = request.send(to).await;
                counted.lock().count(outcome.map(|reply| reply.status));
                tokio::time::sleep(PACE).await;
            }
        }));
        Knocking { tally, stop, work }
    }
}

impl Knocking {
    /// What came back until now.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.lock().clone()
    }

    /// Stops after the request under way and gives the final tally.
    pub async fn stop(mut self) -> Result<Tally, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        let lost = |_| LabError::io("asking from a pod")(std::io::Error::other("the task died"));
        (&mut self.work).await.map_err(lost)??;
        Ok(self.tally())
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    /// Answers with that status.
    #[must_use]
    pub fn status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or_default()
    }

    /// Attempts without an answer.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// All attempts.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.by_status.values().sum::<u64>() + self.failures()
    }

    fn count(&mut self, outcome: std::io::Result<u16>) {
        match outcome {
            Ok(status) => *self.by_status.entry(status).or_default() += 1,
            Err(error) => *self.failed.entry(error.kind().to_string()).or_default() += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_counts_once() {
        let mut tally = Tally::default();
        tally.count(Ok(200));
        tally.count(Ok(503));
        tally.count(Err(std::io::ErrorKind::ConnectionRefused.into()));
        assert_eq!((tally.status(200), tally.status(404)), (1, 0));
        assert_eq!((tally.failures(), tally.attempts()), (1, 3));
        assert_eq!(
            tally.failed.keys().collect::<Vec<_>>(),
            ["connection refused"]
        );
    }
}
