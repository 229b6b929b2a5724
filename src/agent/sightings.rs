//! Local evidence for a pod's address: where the kernel reached it when the pod's status was read.
//! Pure memory beside the directory.
//!
//! Holds invariant 3: an address whose evidence changed under the same status is nobody's until a
//! newer status comes. A reused address shows this way before the watch tells.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

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

#[derive(Debug)]
struct Seen {
    version: Arc<str>,
    sighting: Sighting,
    moved: bool,
}

impl Sightings {
    /// Whether the address is elsewhere than when this status of the pod was first looked at.
    pub fn has_moved(&mut self, pod: &PodFacts, ip: IpAddr, now: Sighting) -> bool {
        let key = (pod.name.clone(), pod.uid.clone(), ip);
        let fresh = || Seen {
            version: pod.version.clone(),
            sighting: now,
            moved: false,
        };
        let seen = self.seen.entry(key).or_insert_with(fresh);
        if seen.version != pod.version {
            *seen = fresh();
        } else if !seen.moved {
            seen.moved = seen.sighting.contradicts(&now);
            // What was not known yet is learnt; what was known stays the measure.
            seen.sighting = seen.sighting.completed_by(&now);
        }
        seen.moved
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
