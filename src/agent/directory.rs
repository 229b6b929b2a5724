//! What the request path looks things up in: a published, immutable snapshot. O(1) by address, no
//! lock, no rebuild while serving.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::grants::{PodGrants, grants};
use super::world::World;
use crate::api::is_enforced;
use crate::model::facts::{ExceptionFacts, NodeAssignments, PodFacts, PodLife};
use crate::model::ids::ObjectName;

/// Who an address belongs to.
#[derive(Clone, Debug)]
pub enum Claim {
    /// This live pod, and nobody else.
    Pod(Arc<PodGrants>),
    /// Several live pods say it is theirs.
    Several,
    /// Only pods that have ended: it may be somebody else's by now.
    Ended,
    /// This pod, but the address is not where it was when the pod was seen.
    Moved,
}

/// The snapshot.
#[derive(Debug, Default)]
pub struct Directory {
    claims: HashMap<IpAddr, Claim>,
    /// Live pods, also those without an address, in the order of their names.
    live: Vec<Arc<PodGrants>>,
    /// The same by UID; `None`: several say that it is theirs.
    by_uid: HashMap<Arc<str>, Option<Arc<PodGrants>>>,
    /// Metadata paths that are forwarded.
    pub exceptions: Vec<Arc<ExceptionFacts>>,
    /// Which identities are on this node, where that counts.
    pub assignments: NodeAssignments,
    /// How many pods and bindings are known.
    pub known: Known,
    /// Identities granted to live pods.
    pub granted: HashSet<ObjectName>,
    /// Namespaces whose pods are refused although the agent observes.
    pub enforced: HashSet<Arc<str>>,
}

/// Sizes, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Live pods with an address of their own.
    pub pods: usize,
    /// Bindings.
    pub bindings: usize,
}

impl Directory {
    /// Works the snapshot out. `has_moved` says whether local evidence contradicts the claim of a
    /// pod on an address.
    pub fn of(world: &World, has_moved: impl FnMut(&PodFacts, IpAddr) -> bool) -> Self {
        Self::with(world, |pod| Arc::new(grants(pod, world)), has_moved)
    }

    /// The same with grants that were worked out before.
    pub fn with(
        world: &World,
        mut grants_of: impl FnMut(&Arc<PodFacts>) -> Arc<PodGrants>,
        mut has_moved: impl FnMut(&PodFacts, IpAddr) -> bool,
    ) -> Self {
        let mut claims: HashMap<IpAddr, Claim> = HashMap::new();
        let (mut live, mut by_uid) = (Vec::new(), HashMap::new());
        let mut granted = HashSet::new();
        let mut pods = 0;
        for pod in world.pods() {
            if pod.life == PodLife::Ended {
                for ip in &pod.ips {
                    claims.entry(*ip).or_insert(Claim::Ended);
                }
                continue;
            }
            let of_pod = grants_of(pod);
            by_uid
                .entry(pod.uid.clone())
                .and_modify(|several| *several = None)
                .or_insert_with(|| Some(of_pod.clone()));
            live.push(of_pod.clone());
            pods += usize::from(!pod.ips.is_empty());
            granted.extend(
                of_pod
                    .granted
                    .iter()
                    .map(|grant| grant.identity.name.clone()),
            );
            for ip in &pod.ips {
                let claim = if has_moved(pod, *ip) {
                    Claim::Moved
                } else {
                    Claim::Pod(of_pod.clone())
                };
                claims
                    .entry(*ip)
                    .and_modify(|claimed| {
                        *claimed = if matches!(claimed, Claim::Ended) {
                            claim.clone()
                        } else {
                            Claim::Several
                        };
                    })
                    .or_insert(claim);
            }
        }
        let known = Known {
            pods,
            bindings: world.binding_count(),
        };
        Self {
            claims,
            live,
            by_uid,
            exceptions: world.exceptions().cloned().collect(),
            assignments: world.assignments(),
            enforced: world
                .namespaces()
                .filter(|(_, labels)| is_enforced(labels))
                .map(|(name, _)| name.into())
                .collect(),
            known,
            granted,
        }
    }

    /// Who the address belongs to; `None` when no pod is known there.
    #[must_use]
    pub fn claim(&self, ip: IpAddr) -> Option<&Claim> {
        self.claims.get(&ip)
    }

    /// The live pod of this UID.
    #[must_use]
    pub fn of_uid(&self, uid: &str) -> Option<&Arc<PodGrants>> {
        self.by_uid.get(uid)?.as_ref()
    }

    /// The live pod of this name.
    #[must_use]
    pub fn of_name(&self, name: &ObjectName) -> Option<&Arc<PodGrants>> {
        let found = self.live.binary_search_by(|of| of.pod.name.cmp(name));
        found.ok().and_then(|at| self.live.get(at))
    }

    /// The grants of every pod that may ask now or soon.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodGrants>> {
        self.live.iter()
    }
}

/// The current snapshot, and a way to hear of the next.
#[derive(Debug)]
pub struct Published {
    current: ArcSwap<Directory>,
    too_old: AtomicBool,
    generation: watch::Sender<u64>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            too_old: AtomicBool::new(false),
            generation: watch::Sender::new(0),
        }
    }
}

impl Published {
    /// The current snapshot.
    pub fn load(&self) -> Guard<Arc<Directory>> {
        self.current.load()
    }

    /// Puts a new snapshot in its place and wakes whoever waits for it.
    pub fn publish(&self, directory: Directory) {
        self.current.store(Arc::new(directory));
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Says whether what the snapshots were made of is too old to be believed; whether that is news.
    pub fn set_too_old(&self, is: bool) -> bool {
        self.too_old.swap(is, Ordering::Relaxed) != is
    }

    /// Whether it is.
    pub fn is_too_old(&self) -> bool {
        self.too_old.load(Ordering::Relaxed)
    }

    /// Whether nothing was published yet.
    pub fn is_empty(&self) -> bool {
        *self.generation.borrow() == 0
    }

    /// How many wait for the next.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.generation.receiver_count()
    }

    /// Changes with every snapshot. Subscribe before the first look, so that none is missed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{pod, world};
    use super::*;

    fn directory(pods: impl IntoIterator<Item = crate::api::object::Object>) -> Directory {
        Directory::of(&world(pods), |_, _| false)
    }

    fn claim(directory: &Directory) -> Option<&Claim> {
        directory.claim("10.0.0.1".parse().unwrap())
    }

    fn ended(namespace: &str, name: &str) -> crate::api::object::Object {
        super::super::testkit::object(serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name}, "spec": {"containers": []},
            "status": {"phase": "Succeeded", "podIP": "10.0.0.1"}}))
    }

    #[test]
    fn an_address_belongs_to_the_one_live_pod_that_has_it() {
        let one = directory([pod("a", "p", "10.0.0.1", None)]);
        assert!(matches!(claim(&one), Some(Claim::Pod(grants)) if &*grants.pod.name.name == "p"));
        assert!(one.claim("10.0.0.2".parse().unwrap()).is_none());
    }

    #[test]
    fn two_live_pods_with_one_address_get_neither() {
        let clash = directory([
            pod("a", "p", "10.0.0.1", None),
            pod("a", "q", "10.0.0.1", None),
        ]);
        assert!(matches!(claim(&clash), Some(Claim::Several)));
    }

    #[test]
    fn an_ended_pod_owns_its_address_no_more_in_either_order() {
        assert!(matches!(
            claim(&directory([ended("a", "a")])),
            Some(Claim::Ended)
        ));
        for name in ["a", "z"] {
            let reused = directory([ended("a", name), pod("a", "p", "10.0.0.1", None)]);
            assert!(matches!(claim(&reused), Some(Claim::Pod(_))), "{name}");
        }
    }

    #[test]
    fn a_live_pod_is_found_by_its_uid_also_before_it_has_an_address() {
        let named = |name: &str, phase: &str, ip: Option<&str>| {
            super::super::testkit::object(serde_json::json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "a", "name": name, "uid": format!("uid-{name}")}, "spec": {"containers": []},
                "status": {"phase": phase, "podIP": ip}}))
        };
        let known = directory([
            named("early", "Pending", None),
            named("runs", "Running", Some("10.0.0.1")),
            named("done", "Succeeded", Some("10.0.0.2")),
        ]);
        let found = |uid: &str| known.of_uid(uid).map(|of| of.pod.name.name.to_string());
        assert_eq!(found("uid-early").as_deref(), Some("early"));
        assert_eq!(found("uid-runs").as_deref(), Some("runs"));
        assert_eq!(found("uid-done"), None);
        assert_eq!((known.pods().count(), known.known.pods), (2, 1));
    }

    #[test]
    fn a_live_pod_is_found_by_its_name() {
        let known = directory([
            pod("b", "p", "10.0.0.1", None),
            pod("a", "q", "10.0.0.2", None),
            ended("a", "r"),
            pod("a", "p", "10.0.0.3", None),
        ]);
        let found = |namespace: &str, name: &str| {
            let found = known.of_name(&ObjectName::new(namespace, name));
            found.map(|of| of.pod.name.to_string())
        };
        for (namespace, name) in [("a", "p"), ("a", "q"), ("b", "p")] {
            let own = format!("{namespace}/{name}");
            assert_eq!(found(namespace, name), Some(own));
        }
        for (namespace, name) in [("b", "q"), ("a", "r"), ("c", "p"), ("a", "")] {
            assert_eq!(found(namespace, name), None, "{namespace}/{name}");
        }
    }

    #[test]
    fn a_uid_that_several_pods_have_is_nobodys() {
        let twin = |name: &str| {
            super::super::testkit::object(serde_json::json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "a", "name": name, "uid": "one"}, "spec": {"containers": []}}))
        };
        let known = directory([twin("p"), twin("q"), twin("r")]);
        assert!(known.of_uid("one").is_none());
        assert_eq!(known.pods().count(), 3, "what they are granted is in use");
    }

    #[test]
    fn a_contradicted_address_is_nobodys() {
        let moved = Directory::of(&world([pod("a", "p", "10.0.0.1", None)]), |_, _| true);
        assert!(matches!(claim(&moved), Some(Claim::Moved)));
    }
}
