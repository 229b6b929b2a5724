//! Asks the API server for a pod that the watch has not shown yet: once for an address, few in all.
//!
//! In: an address nobody is known at. Out: a page of pods to whoever follows pods, who compares it
//! with what the watch has told since. Never blocks whoever asks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::kind::{self, read};
use super::metrics::{Looked, WatchMetrics};
use crate::agent::rate::{Pace, Rate};
use crate::api::kind::Kind;
use crate::api::object::Object;
use crate::kubernetes::watch::{Asked, Version};
use crate::kubernetes::{Cluster, Failure, PAGE};

/// Calls of this node: a stranger's packets must not become a flood at the API server.
const RATE: Rate = Rate {
    per_second: 5,
    burst: 10,
};
/// For how long an address is not asked for again.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Addresses remembered; more are not asked for until some are forgotten.
const MOST_REMEMBERED: usize = 1024;
/// The answer is of no use when it comes after the watch's.
const DEADLINE: Duration = Duration::from_secs(3);

/// What the API server said about an address.
pub type Answer = Asked<Object>;

/// Asks.
pub struct Lookups {
    cluster: Cluster,
    node: String,
    answers: mpsc::Sender<Answer>,
    metrics: WatchMetrics,
    memory: Mutex<Memory>,
    start: Instant,
}

#[derive(Default)]
struct Memory {
    asked: HashMap<IpAddr, Instant>,
    pace: Pace,
}

impl Memory {
    /// Whether this address may be asked for now.
    fn admit(&mut self, ip: IpAddr, now: Instant, start: Instant) -> Result<(), Looked> {
        if self.asked.len() >= MOST_REMEMBERED {
            self.asked
                .retain(|_, asked| now.duration_since(*asked) < REMEMBERED);
        }
        let asked = self.asked.get(&ip);
        if asked.is_some_and(|asked| now.duration_since(*asked) < REMEMBERED) {
            // Asked already: nothing to count.
            return Err(Looked::Nothing);
        }
        let full = self.asked.len() >= MOST_REMEMBERED;
        if full || !self.pace.take(RATE, now.duration_since(start)) {
            return Err(Looked::Limited);
        }
        self.asked.insert(ip, now);
        Ok(())
    }
}

impl Lookups {
    /// Asks for pods of `node`; `answers` go to whoever follows pods.
    pub fn new(
        cluster: Cluster,
        node: String,
        answers: mpsc::Sender<Answer>,
        metrics: WatchMetrics,
    ) -> Self {
        Self {
            cluster,
            node,
            answers,
            metrics,
            memory: Mutex::default(),
            start: Instant::now(),
        }
    }

    /// Nobody is known at this address: asks, unless that was done lately.
    pub fn ask(self: &Arc<Self>, ip: IpAddr) {
        let admitted = self.memory.lock().admit(ip, Instant::now(), self.start);
        match admitted {
            Ok(()) => {
                let lookups = self.clone();
                tokio::spawn(async move { lookups.look(ip).await });
            }
            Err(Looked::Limited) => self.metrics.looked(Looked::Limited),
            Err(_) => {}
        }
    }

    async fn look(&self, ip: IpAddr) {
        let outcome = match self.fetch(ip).await {
            Ok(answer) if answer.objects.is_empty() => Looked::Nothing,
            Ok(answer) => {
                // Whoever follows pods may be listing all of them just now: no need for this one.
                let _ = self.answers.try_send(answer);
                Looked::Found
            }
            Err(failure) => {
                tracing::debug!(%ip, %failure, "the pod at this address cannot be asked for");
                Looked::Failed
            }
        };
        self.metrics.looked(outcome);
    }

    async fn fetch(&self, ip: IpAddr) -> Result<Answer, Failure> {
        let mut pods = kind::collection(Kind::Pods, &self.node);
        // An IPv6 address has colons, which a query may hold.
        pods.selector = format!("{}%2Cstatus.podIP%3D{ip}", pods.selector);
        let page = self.cluster.page(&pods, "", PAGE, DEADLINE).await?;
        let items = page.items()?;
        let objects = items.items.iter();
        let objects = objects.filter_map(|item| read(Kind::Pods, item).ok());
        Ok(Answer {
            version: Version::of(&items.metadata.resource_version),
            objects: objects.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_is_asked_for_once_and_all_of_them_together_seldom() {
        let start = Instant::now();
        let mut memory = Memory::default();
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        assert_eq!(memory.admit(ip(1), start, start), Ok(()));
        for _ in 0..1000 {
            assert_eq!(memory.admit(ip(1), start, start), Err(Looked::Nothing));
        }
        let admitted = (2..250).filter(|last| memory.admit(ip(*last), start, start).is_ok());
        assert_eq!(admitted.count(), 9, "a burst of ten");
        let later = start + REMEMBERED;
        assert_eq!(memory.admit(ip(1), later, start), Ok(()), "asked for again");
    }
}
