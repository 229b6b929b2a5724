//! Step 2: who asks → pod. O(1) by the published directory. A pod that is not known yet is
//! waited for, up to a bound; the wait ends the moment it appears.
//!
//! Holds invariant 3 (no wrong identity): an unknown, contested, ended or moved address gets "try
//! again", never a default. A pod that is served from inside is nobody at its address: a neighbour may
//! have forged it. Who shares the node's address is who his socket says, or nobody.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::NodeMode;
use super::directory::{Claim, Published};
use super::grants::PodGrants;
use super::origin::{Named, Origin};
use super::watch::Lookups;
use crate::model::facts::Mode;
use crate::model::fault::{Fault, FaultKind};

/// Requests that may wait for unknown pods at once: a flood from outside must not pile up.
const MAX_WAITING: usize = 1024;
/// Of one who asks: a few strangers must not keep all new pods from waiting.
const MAX_OF_PEER: usize = 32;
/// The longest wait for a pod that somebody names: he has heard of it from the API server, as we do.
const NAMED_WAIT: Duration = Duration::from_secs(3);

/// Finds pods.
pub struct Locator {
    directory: Arc<Published>,
    mode: NodeMode,
    wait: Duration,
    waiting: Mutex<Line>,
    lookups: OnceLock<Arc<Lookups>>,
}

/// How many wait, at all and of each who asks.
#[derive(Debug, Default)]
struct Line {
    all: usize,
    of_origin: HashMap<Origin, usize>,
}

impl Locator {
    /// Looks in `directory`, and waits up to `wait` for a pod that is not there yet.
    pub fn new(directory: Arc<Published>, mode: NodeMode, wait: Duration) -> Self {
        Self {
            directory,
            mode,
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

    /// The pod that asks, as known now.
    pub fn known(&self, origin: &Origin) -> Result<Arc<PodGrants>, Fault> {
        if self.directory.is_too_old() {
            return Err(too_old(origin));
        }
        let directory = self.directory.load();
        match origin {
            Origin::Inside(uid) | Origin::Host(uid) => {
                let found = directory.of_uid(uid);
                found.cloned().ok_or_else(|| nobody(None, origin))
            }
            // Before the first look at the cluster nobody is known to be elsewhere.
            Origin::Named(_) if self.directory.is_empty() => Err(nobody(None, origin)),
            Origin::Named(named) => {
                let found = directory.of_name(&named.pod);
                found.cloned().ok_or_else(|| not_here(named))
            }
            Origin::Nobody(..) => Err(nobody(None, origin)),
            Origin::Address(address) => match directory.claim(*address) {
                Some(Claim::Pod(grants)) if self.mode.of(grants.pod.mode) == Mode::InPod => {
                    Err(from_outside(origin))
                }
                Some(Claim::Pod(grants)) => Ok(grants.clone()),
                other => Err(nobody(other, origin)),
            },
        }
    }

    /// The pod that asks, waiting for it if need be.
    pub async fn locate(&self, origin: &Origin) -> Result<Arc<PodGrants>, Fault> {
        let first = match self.known(origin) {
            Ok(grants) => return Ok(grants),
            Err(fault) => fault,
        };
        if matches!(origin, Origin::Nobody(..)) {
            // No pod that comes changes that.
            return Err(first);
        }
        let _place = Waiting::enter(&self.waiting, origin).ok_or(first)?;
        let wait = match origin {
            Origin::Named(_) => self.wait.min(NAMED_WAIT),
            _ => self.wait,
        };
        let deadline = Instant::now() + wait;
        let mut changes = self.directory.subscribe();
        if let (Some(lookups), Origin::Address(address)) = (self.lookups.get(), origin) {
            lookups.ask(*address);
        }
        loop {
            match self.known(origin) {
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

    /// The pod that asks: as soon as `waits` does not hold for it any more, and as it then is
    /// after `hold`. Whoever finds no place to wait gets it at once.
    pub async fn wait_while(
        &self,
        origin: &Origin,
        hold: Duration,
        waits: impl Fn(&PodGrants) -> bool,
    ) -> Result<Arc<PodGrants>, Fault> {
        let Some(_place) = Waiting::enter(&self.waiting, origin) else {
            return self.known(origin);
        };
        let deadline = Instant::now() + hold;
        let mut changes = self.directory.subscribe();
        loop {
            let pod = self.known(origin)?;
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

fn nobody(claim: Option<&Claim>, origin: &Origin) -> Fault {
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
        Some(Claim::Pod(_)) | None => (FaultKind::PodUnknown, "no pod is known there"),
    };
    Fault::new(kind, "The calling pod is not known yet, try again")
        .with_detail(format!("{origin}: {detail}"))
        .with_retry_after(Duration::from_secs(1))
}

fn not_here(named: &Named) -> Fault {
    let public = "There is no such pod on this node";
    Fault::new(FaultKind::PodNotHere, public).with_detail(format!("pod {}", named.pod))
}

/// The pod may be the one itself, whose listener is about to come, or was taken away by it.
fn from_outside(origin: &Origin) -> Fault {
    Fault::new(
        FaultKind::AskedFromOutside,
        "The calling pod is served inside its own network, and this request came from outside of it: try again",
    )
    .with_detail(format!("{origin}: the pod with this address has the mode in-pod"))
    .with_retry_after(Duration::from_secs(1))
}

fn too_old(origin: &Origin) -> Fault {
    Fault::new(
        FaultKind::StateTooOld,
        "The agent has been without the cluster's API server for too long, try again",
    )
    .with_detail(format!(
        "{origin}: what is known is older than --max-staleness"
    ))
    .with_retry_after(Duration::from_secs(5))
}

/// One of the bounded places to wait in; left on drop, also when the client hangs up.
struct Waiting<'a> {
    line: &'a Mutex<Line>,
    origin: Origin,
}

impl<'a> Waiting<'a> {
    fn enter(line: &'a Mutex<Line>, origin: &Origin) -> Option<Self> {
        let mut now = line.lock();
        let of_origin = now.of_origin.get(origin).copied().unwrap_or_default();
        if now.all >= MAX_WAITING || of_origin >= MAX_OF_PEER {
            return None;
        }
        now.all += 1;
        now.of_origin.insert(origin.clone(), of_origin + 1);
        let origin = origin.clone();
        Some(Self { line, origin })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut now = self.line.lock();
        now.all -= 1;
        if let Some(count) = now.of_origin.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                now.of_origin.remove(&self.origin);
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

    fn peer(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    fn locator(wait: u64) -> (Arc<Published>, Arc<Locator>) {
        let published = Arc::new(Published::default());
        (
            published.clone(),
            Arc::new(Locator::new(
                published,
                NodeMode::Redirect,
                Duration::from_secs(wait),
            )),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_the_moment_the_pod_appears() {
        let (published, locator) = locator(10);
        let waiting = tokio::spawn({
            let locator = locator.clone();
            async move { (locator.locate(&peer(PEER)).await, Instant::now()) }
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
        let fault = locator.locate(&peer(PEER)).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert_eq!(fault.kind, FaultKind::PodUnknown);
        assert!(fault.retry_after.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_waiting_are_told_at_once() {
        let (_published, locator) = locator(10);
        locator.waiting.lock().all = MAX_WAITING;
        let start = Instant::now();
        assert!(locator.locate(&peer(PEER)).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(locator.waiting.lock().all, MAX_WAITING);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_take_all_the_places_to_wait_in() {
        let (_published, locator) = locator(10);
        let line = &locator.waiting;
        let peer = &peer(PEER);
        let held: Vec<_> = (0..MAX_OF_PEER)
            .map(|_| Waiting::enter(line, peer))
            .collect();
        assert!(held.iter().all(Option::is_some));
        let start = Instant::now();
        let mapped = &super::Origin::of("::ffff:10.0.0.1".parse().unwrap());
        assert!(locator.locate(mapped).await.is_err(), "the same address");
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(
            locator
                .locate(&Origin::of("10.0.0.2".parse().unwrap()))
                .await
                .is_err()
        );
        assert_eq!(start.elapsed(), Duration::from_secs(10), "it may wait");
        drop(held);
        assert_eq!(line.lock().all, 0);
        assert!(line.lock().of_origin.is_empty());
    }

    /// A neighbour on a bridge can make the node believe that an address is its own.
    #[test]
    fn a_pod_that_is_served_inside_is_nobody_at_its_address() {
        let inside = |mode: Option<&str>| {
            crate::agent::testkit::object(serde_json::json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "a", "name": "p", "uid": "u", "annotations": mode.map(|mode| serde_json::json!({"lanyard.dev/mode": mode}))},
                "spec": {"containers": []}, "status": {"phase": "Running", "podIP": PEER}}))
        };
        for (annotation, agents, served) in [
            (None, NodeMode::Mixed, true),
            (None, NodeMode::InPod, false),
            (Some("in-pod"), NodeMode::Mixed, false),
            (Some("in-pod"), NodeMode::Redirect, true),
            (Some("redirect"), NodeMode::InPod, true),
            // A word that is none is as no word.
            (Some("inpod"), NodeMode::Mixed, true),
            (Some("inpod"), NodeMode::InPod, false),
        ] {
            let published = Arc::new(Published::default());
            let locator = Locator::new(published.clone(), agents, Duration::ZERO);
            let object = inside(annotation);
            published.publish(Directory::of(&world([object]), |_, _| false));
            let found = locator.known(&peer(PEER));
            assert_eq!(found.is_ok(), served, "{annotation:?} {agents:?}");
            if let Err(fault) = found {
                assert_eq!(fault.kind, FaultKind::AskedFromOutside);
                assert!(fault.retry_after.is_some());
            }
        }
    }

    #[test]
    fn an_ipv4_peer_on_a_dual_stack_socket_is_the_same_pod() {
        let (published, locator) = locator(0);
        published.publish(Directory::of(
            &world([pod("a", "p", PEER, None)]),
            |_, _| false,
        ));
        assert!(locator.known(&peer("::ffff:10.0.0.1")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_named_is_one_of_this_node() {
        let (published, locator) = locator(10);
        let named = |name: &str| {
            Origin::Named(Arc::new(Named {
                pod: crate::model::ids::ObjectName::new("a", name),
                by: "somebody".into(),
            }))
        };
        // Nothing is known yet: "try again", and not "there is none".
        let fault = locator.locate(&named("p")).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::PodUnknown);
        published.publish(Directory::of(
            &world([pod("a", "p", PEER, None)]),
            |_, _| true,
        ));
        let found = locator.locate(&named("p")).await.unwrap();
        assert_eq!(&*found.pod.name.name, "p", "its address is not looked at");
        let start = Instant::now();
        let fault = locator.locate(&named("q")).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::PodNotHere);
        assert_eq!(start.elapsed(), NAMED_WAIT, "it may be about to come");
        published.set_too_old(true);
        let fault = locator.known(&named("p")).unwrap_err();
        assert_eq!(fault.kind, FaultKind::StateTooOld);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_of_no_pod_is_nobody_at_once_and_never_the_pod_at_that_address() {
        use super::super::host_network::Unnamed;
        let (published, locator) = locator(10);
        published.publish(Directory::of(
            &world([pod("a", "p", PEER, None)]),
            |_, _| false,
        ));
        let start = Instant::now();
        for why in [Unnamed::Gone, Unnamed::MeantUs, Unnamed::NoPod] {
            let origin = Origin::Nobody(format!("{PEER}:4711").parse().unwrap(), why);
            let fault = locator.locate(&origin).await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::PodUnknown);
            assert!(fault.retry_after.is_some());
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(locator.known(&Origin::Host("uid-p".into())).is_ok());
        assert!(locator.known(&Origin::Host("uid-q".into())).is_err());
    }

    #[test]
    fn whoever_asks_inside_is_that_pod_or_nobody() {
        let (published, locator) = locator(0);
        published.publish(Directory::of(
            &world([pod("a", "p", PEER, None)]),
            |_, _| false,
        ));
        let uid = |uid: &str| Origin::Inside(uid.into());
        let found = locator.known(&peer(PEER)).unwrap();
        assert!(locator.known(&uid(&found.pod.uid)).is_ok());
        let nobody = locator.known(&uid("another")).unwrap_err();
        assert_eq!(nobody.kind, FaultKind::PodUnknown);
    }
}
