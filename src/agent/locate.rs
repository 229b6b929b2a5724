//! Step 2: peer address → pod. O(1) by the published directory. A pod that is not known yet is
//! waited for, up to a bound; the wait ends the moment it appears.
//!
//! Holds invariant 3 (no wrong identity): an unknown, contested, ended or moved address gets "try
//! again", never a default.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::directory::{Claim, Published};
use super::grants::PodGrants;
use super::watch::Lookups;
use crate::model::fault::{Fault, FaultKind};

/// Requests that may wait for unknown pods at once: a flood from outside must not pile up.
const MAX_WAITING: usize = 1024;
/// Of one address: a few strangers must not keep all new pods from waiting.
const MAX_OF_PEER: usize = 32;

/// Finds pods.
pub struct Locator {
    directory: Arc<Published>,
    wait: Duration,
    waiting: Mutex<Line>,
    lookups: OnceLock<Arc<Lookups>>,
}

/// How many wait, at all and of each address.
#[derive(Debug, Default)]
struct Line {
    all: usize,
    of_peer: HashMap<IpAddr, usize>,
}

impl Locator {
    /// Looks in `directory`, and waits up to `wait` for a pod that is not there yet.
    pub fn new(directory: Arc<Published>, wait: Duration) -> Self {
        Self {
            directory,
            wait,
            waiting: Mutex::default(),
            lookups: OnceLock::new(),
        }
    }

    /// From now on whoever is not known is asked for, too.
    pub fn ask_with(&self, lookups: Arc<Lookups>) {
        // Only the first counts: there is one source of pods.
        let _ = self.lookups.set(lookups);
    }

    /// The pod at an address, as known now.
    pub fn known(&self, peer: IpAddr) -> Result<Arc<PodGrants>, Fault> {
        if self.directory.is_too_old() {
            return Err(too_old(peer));
        }
        match self.directory.load().claim(canonical(peer)) {
            Some(Claim::Pod(grants)) => Ok(grants.clone()),
            other => Err(nobody(other, peer)),
        }
    }

    /// The pod at an address, waiting for it if need be.
    pub async fn locate(&self, peer: IpAddr) -> Result<Arc<PodGrants>, Fault> {
        let first = match self.known(peer) {
            Ok(grants) => return Ok(grants),
            Err(fault) => fault,
        };
        let _place = Waiting::enter(&self.waiting, canonical(peer)).ok_or(first)?;
        let deadline = Instant::now() + self.wait;
        let mut changes = self.directory.subscribe();
        if let Some(lookups) = self.lookups.get() {
            lookups.ask(canonical(peer));
        }
        loop {
            match self.known(peer) {
                Ok(grants) => return Ok(grants),
                Err(fault) => {
                    let woken = tokio::time::timeout_at(deadline, changes.changed()).await;
                    if !matches!(woken, Ok(Ok(()))) {
                        return Err(fault);
                    }
                }
            }
        }
    }

    /// The pod at an address: as soon as `waits` does not hold for it any more, and as it then is
    /// after `hold`. Whoever finds no place to wait gets it at once.
    pub async fn wait_while(
        &self,
        peer: IpAddr,
        hold: Duration,
        waits: impl Fn(&PodGrants) -> bool,
    ) -> Result<Arc<PodGrants>, Fault> {
        let Some(_place) = Waiting::enter(&self.waiting, canonical(peer)) else {
            return self.known(peer);
        };
        let deadline = Instant::now() + hold;
        let mut changes = self.directory.subscribe();
        loop {
            let pod = self.known(peer)?;
            if !waits(&pod) {
                return Ok(pod);
            }
            let woken = tokio::time::timeout_at(deadline, changes.changed()).await;
            if !matches!(woken, Ok(Ok(()))) {
                return Ok(pod);
            }
        }
    }
}

/// An IPv4 peer of a dual-stack listener comes as `::ffff:a.b.c.d`.
fn canonical(peer: IpAddr) -> IpAddr {
    peer.to_canonical()
}

fn nobody(claim: Option<&Claim>, peer: IpAddr) -> Fault {
    let (kind, detail) = match claim {
        Some(Claim::Several) => (
            FaultKind::PodAmbiguous,
            "several live pods have this address",
        ),
        Some(Claim::Ended) => (
            FaultKind::PodUnknown,
            "the pod known at this address has ended",
        ),
        Some(Claim::Moved) => (
            FaultKind::PodMoved,
            "the address is not where the pod was seen",
        ),
        Some(Claim::Pod(_)) | None => (FaultKind::PodUnknown, "no pod is known at this address"),
    };
    Fault::new(kind, "The calling pod is not known yet, try again")
        .with_detail(format!("{peer}: {detail}"))
        .with_retry_after(Duration::from_secs(1))
}

fn too_old(peer: IpAddr) -> Fault {
    Fault::new(
        FaultKind::StateTooOld,
        "The agent has been without the cluster's API server for too long, try again",
    )
    .with_detail(format!(
        "{peer}: what is known is older than --max-staleness"
    ))
    .with_retry_after(Duration::from_secs(5))
}

/// One of the bounded places to wait in; left on drop, also when the client hangs up.
struct Waiting<'a> {
    line: &'a Mutex<Line>,
    peer: IpAddr,
}

impl<'a> Waiting<'a> {
    fn enter(line: &'a Mutex<Line>, peer: IpAddr) -> Option<Self> {
        let mut now = line.lock();
        let of_peer = now.of_peer.get(&peer).copied().unwrap_or_default();
        if now.all >= MAX_WAITING || of_peer >= MAX_OF_PEER {
            return None;
        }
        now.all += 1;
        now.of_peer.insert(peer, of_peer + 1);
        Some(Self { line, peer })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut now = self.line.lock();
        now.all -= 1;
        if let Some(count) = now.of_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                now.of_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::Directory;
    use super::super::testkit::{pod, world};
    use super::*;

    const PEER: &str = "10.0.0.1";

    fn locator(wait: u64) -> (Arc<Published>, Arc<Locator>) {
        let published = Arc::new(Published::default());
        (
            published.clone(),
            Arc::new(Locator::new(published, Duration::from_secs(wait))),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_the_moment_the_pod_appears() {
        let (published, locator) = locator(10);
        let waiting = tokio::spawn({
            let locator = locator.clone();
            async move { (locator.locate(PEER.parse().unwrap()).await, Instant::now()) }
        });
        tokio::time::sleep(Duration::from_secs(3)).await;
        published.publish(Directory::of(
            &world([pod("a", "other", "10.0.0.2", None)]),
            |_, _| false,
        ));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished(), "another pod is not the one");
        let appeared = Instant::now();
        published.publish(Directory::of(
            &world([pod("a", "p", PEER, None)]),
            |_, _| false,
        ));
        let (found, at) = waiting.await.unwrap();
        assert_eq!(&*found.unwrap().pod.name.name, "p");
        assert_eq!(at, appeared);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_bounded_and_then_says_try_again() {
        let (_published, locator) = locator(10);
        let start = Instant::now();
        let fault = locator.locate(PEER.parse().unwrap()).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert_eq!(fault.kind, FaultKind::PodUnknown);
        assert!(fault.retry_after.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_waiting_are_told_at_once() {
        let (_published, locator) = locator(10);
        locator.waiting.lock().all = MAX_WAITING;
        let start = Instant::now();
        assert!(locator.locate(PEER.parse().unwrap()).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(locator.waiting.lock().all, MAX_WAITING);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_take_all_the_places_to_wait_in() {
        let (_published, locator) = locator(10);
        let line = &locator.waiting;
        let peer = PEER.parse().unwrap();
        let held: Vec<_> = (0..MAX_OF_PEER)
            .map(|_| Waiting::enter(line, peer))
            .collect();
        assert!(held.iter().all(Option::is_some));
        let start = Instant::now();
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(locator.locate(mapped).await.is_err(), "the same address");
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(locator.locate("10.0.0.2".parse().unwrap()).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(10), "it may wait");
        drop(held);
        assert_eq!(line.lock().all, 0);
        assert!(line.lock().of_peer.is_empty());
    }

    #[test]
    fn an_ipv4_peer_on_a_dual_stack_socket_is_the_same_pod() {
        let (published, locator) = locator(0);
        published.publish(Directory::of(
            &world([pod("a", "p", PEER, None)]),
            |_, _| false,
        ));
        assert!(locator.known("::ffff:10.0.0.1".parse().unwrap()).is_ok());
    }
}
