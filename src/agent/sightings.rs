//! Local evidence for a pod's address: where the kernel reached it when the pod's status was read.
//! Pure memory beside the directory.
//!
//! Holds invariant 3: an address whose evidence changed under the same status is nobody's until a
//! newer status comes. A reused address shows this way before the watch tells. An address that nobody could
//! have seen go while no agent looked is nobody's until the API server has had time to tell.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::evidence::Sighting;
use super::world::World;
use crate::model::facts::PodFacts;
use crate::model::ids::ObjectName;

type PodAddress = (ObjectName, Arc<str>, IpAddr);

/// What was seen of each pod's address.
#[derive(Debug, Default)]
pub struct Sightings {
    seen: HashMap<PodAddress, Seen>,
}

/// A pod's address as it is kept for another process on the same node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The pod.
    pub pod: ObjectName,
    /// Its UID.
    pub uid: Arc<str>,
    /// The address.
    pub ip: IpAddr,
    /// The status that it was seen under.
    pub version: Arc<str>,
    /// The interface that led to it.
    pub ifindex: Option<u32>,
    /// Its link-layer address.
    pub mac: Option<[u8; 6]>,
    /// The bridge's port.
    pub port: Option<u32>,
    /// The link of its own that it was last behind.
    pub link: Option<u32>,
    /// Whether it was contradicted already.
    pub moved: bool,
}

#[derive(Debug)]
struct Seen {
    version: Arc<str>,
    sighting: Sighting,
    belief: Belief,
}

/// How far an address is believed to be where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    /// Nothing contradicts it.
    There,
    /// Nobody looked for a while, and there was nothing to tell by that it went.
    Unwatched,
    /// It was seen elsewhere, or to have gone.
    Moved,
}

impl Sightings {
    /// Whether the address is elsewhere than when this status of the pod was first looked at.
    pub fn has_moved(&mut self, pod: &PodFacts, ip: IpAddr, now: Sighting) -> bool {
        let key = (pod.name.clone(), pod.uid.clone(), ip);
        let fresh = || Seen {
            version: pod.version.clone(),
            sighting: now,
            belief: Belief::There,
        };
        let seen = self.seen.entry(key).or_insert_with(fresh);
        if seen.version != pod.version {
            *seen = fresh();
        } else if seen.belief != Belief::Moved {
            if seen.sighting.contradicts(&now) {
                seen.belief = Belief::Moved;
            }
            // What was not known yet is learnt; what was known stays the measure. Of an address that nobody
            // watched it may be another pod's.
            if seen.belief != Belief::Unwatched {
                seen.sighting = seen.sighting.completed_by(&now);
            }
        }
        seen.belief != Belief::There
    }

    /// The API server has told everything since somebody looks again, and would have told by now that a pod went
    /// before; whether anything is believed that was not.
    pub fn settle(&mut self) -> bool {
        let mut unwatched = self.seen.values_mut();
        let mut any = false;
        for seen in unwatched
            .by_ref()
            .filter(|seen| seen.belief == Belief::Unwatched)
        {
            seen.belief = Belief::There;
            any = true;
        }
        any
    }

    /// What another process on this node is to know of these addresses. `link_of` tells the link of its
    /// own that an address was last behind.
    pub fn keep(&self, link_of: impl Fn(IpAddr) -> Option<u32>) -> Vec<Kept> {
        let kept = |((pod, uid, ip), seen): (&PodAddress, &Seen)| Kept {
            pod: pod.clone(),
            uid: uid.clone(),
            ip: *ip,
            version: seen.version.clone(),
            ifindex: seen.sighting.ifindex,
            mac: seen.sighting.mac,
            port: seen.sighting.port,
            link: link_of(*ip),
            moved: seen.belief == Belief::Moved,
        };
        self.seen.iter().map(kept).collect()
    }

    /// What another process on this node knew. An address that was behind no link of its own is not
    /// believed before [`Self::settle`]: nothing would have told of its departure while nobody looked.
    #[must_use]
    pub fn recalled(kept: &[Kept]) -> Self {
        let seen = |kept: &Kept| {
            let address = (kept.pod.clone(), kept.uid.clone(), kept.ip);
            let sighting = Sighting {
                ifindex: kept.ifindex,
                mac: kept.mac,
                port: kept.port,
                // Whatever departs from now on departed later.
                departed: 0,
            };
            let seen = Seen {
                version: kept.version.clone(),
                sighting,
                belief: match (kept.moved, kept.link) {
                    (true, _) => Belief::Moved,
                    (false, Some(_)) => Belief::There,
                    (false, None) => Belief::Unwatched,
                },
            };
            (address, seen)
        };
        Self {
            seen: kept.iter().map(seen).collect(),
        }
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, world: &World) {
        let known: HashSet<_> = world
            .pods()
            .map(|pod| (pod.name.clone(), pod.uid.clone()))
            .collect();
        self.seen
            .retain(|(name, uid, _), _| known.contains(&(name.clone(), uid.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{pod, pod_at, world};
    use super::*;

    fn at(ifindex: u32) -> Sighting {
        Sighting {
            ifindex: Some(ifindex),
            ..Sighting::default()
        }
    }

    #[test]
    fn a_changed_interface_is_believed_only_with_a_newer_status() {
        let ip = "10.0.0.1";
        let world = world([pod("a", "p", ip, None)]);
        let mut old = (*pod_at(&world, ip)).clone();
        let ip = ip.parse().unwrap();
        let mut sightings = Sightings::default();
        assert!(
            !sightings.has_moved(&old, ip, Sighting::default()),
            "nothing known yet"
        );
        assert!(!sightings.has_moved(&old, ip, at(7)), "learnt");
        assert!(!sightings.has_moved(&old, ip, at(7)));
        assert!(sightings.has_moved(&old, ip, at(8)));
        assert!(
            sightings.has_moved(&old, ip, at(7)),
            "suspicion stays, also when it comes back"
        );
        old.version = "2".into();
        assert!(!sightings.has_moved(&old, ip, at(8)));
    }

    #[test]
    fn what_another_process_knew_is_believed_only_as_far_as_it_can_be_checked() {
        let ip = "10.0.0.1";
        let pod = (*pod_at(&world([pod("a", "p", ip, None)]), ip)).clone();
        let ip = ip.parse().unwrap();
        let mut before = Sightings::default();
        before.has_moved(&pod, ip, at(7));
        let kept = |before: &Sightings, link: Option<u32>| before.keep(|_| link);
        let recalled = |link| Sightings::recalled(&kept(&before, link));
        assert!(
            !recalled(Some(7)).has_moved(&pod, ip, at(7)),
            "where it was"
        );
        assert!(recalled(Some(7)).has_moved(&pod, ip, at(8)), "elsewhere");
        let departed = Sighting {
            departed: 1,
            ..at(7)
        };
        assert!(
            recalled(Some(7)).has_moved(&pod, ip, departed),
            "its link went"
        );
        assert!(
            recalled(None).has_moved(&pod, ip, at(7)),
            "nothing to check by"
        );
        let mut unwatched = recalled(None);
        assert!(unwatched.settle());
        assert!(
            !unwatched.has_moved(&pod, ip, at(7)),
            "the API server would have told"
        );
        let mut unwatched = recalled(None);
        assert!(unwatched.has_moved(&pod, ip, at(8)) && !unwatched.settle());
        assert!(unwatched.has_moved(&pod, ip, at(7)), "elsewhere meanwhile");
        before.has_moved(&pod, ip, at(8));
        let mut again = Sightings::recalled(&kept(&before, Some(7)));
        assert!(again.has_moved(&pod, ip, at(7)), "contradicted before");
        assert!(!again.settle() && again.has_moved(&pod, ip, at(7)));
    }

    #[test]
    fn another_pod_of_the_same_name_starts_afresh_and_the_gone_one_is_forgotten() {
        let world_ = world([pod("a", "p", "10.0.0.1", None)]);
        let first = pod_at(&world_, "10.0.0.1");
        let ip = first.ips[0];
        let mut sightings = Sightings::default();
        sightings.has_moved(&first, ip, at(7));
        let second = PodFacts {
            uid: "other".into(),
            ..(*first).clone()
        };
        assert!(!sightings.has_moved(&second, ip, at(8)));
        sightings.retain(&world_);
        assert_eq!(sightings.seen.len(), 1);
        sightings.retain(&World::default());
        assert!(sightings.seen.is_empty());
    }
}
