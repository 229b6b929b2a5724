//! A virtual machine or scale set as ARM shows it, and as IMDS knows it a little later.
//!
//! In: changes of its identities, the instant, IMDS's delay. Out: what is assigned, with the principals as they
//! were when it was assigned: an identity that was deleted and made again keeps its dead principal here. Pure.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::fold;
use crate::sim::keys::random_guid;
use crate::sim::world::SystemAssigned;

/// What kind of compute resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Kind {
    Vm,
    ScaleSet,
}

/// `properties.provisioningState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// At rest.
    Succeeded,
    /// Somebody's operation runs; writes are refused with 409.
    Updating,
    /// The last operation failed; writes are accepted.
    Failed,
    /// It is being deleted; writes are refused with 409.
    Deleting,
}

/// How long writes take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sim) enum Pace {
    /// As the world says.
    #[default]
    World,
    Takes(Duration),
    /// Until released by command.
    Held,
}

/// A user-assigned identity on a compute resource, with its ids of the time when it was assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) struct Assigned {
    /// Resource id as it was written.
    pub id: String,
    pub client_id: String,
    pub principal_id: String,
    /// From then on IMDS knows it.
    pub imds_from: Instant,
}

/// What a write changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::sim) struct Change {
    pub add: Vec<Assigned>,
    /// Resource ids.
    pub remove: Vec<String>,
    /// Every user-assigned identity goes.
    pub remove_all: bool,
    /// Whether there is a system-assigned identity afterwards; as before where absent.
    pub system: Option<bool>,
}

/// A virtual machine or scale set.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Compute {
    /// Resource id as it was written.
    pub id: String,
    pub kind: Kind,
    pub name: String,
    pub location: String,
    pub system: Option<SystemAssigned>,
    pub assigned: Vec<Assigned>,
    /// Removed, but IMDS still knows them until then.
    fading: Vec<(Assigned, Instant)>,
    /// Grows with each change; the `ETag`.
    pub version: u64,
    pub state: State,
    /// The operation that runs.
    pub running: Option<String>,
    pub pace: Pace,
}

impl Compute {
    pub fn new(kind: Kind, id: String, name: String, location: String) -> Self {
        Self {
            id,
            kind,
            name,
            location,
            system: None,
            assigned: Vec::new(),
            fading: Vec::new(),
            version: 1,
            state: State::Succeeded,
            running: None,
            pace: Pace::World,
        }
    }

    /// Whether an identity is assigned, by resource id without letter case.
    pub fn has(&self, id: &str) -> bool {
        self.assigned.iter().any(|one| fold(&one.id) == fold(id))
    }

    /// `"3"`, with the quotes that belong to it.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    /// `properties.provisioningState` at this moment.
    pub fn provisioning(&self) -> State {
        match (self.running.is_some(), self.state) {
            (_, State::Deleting) => State::Deleting,
            (true, _) => State::Updating,
            (false, state) => state,
        }
    }

    /// How many user-assigned identities are left after a change.
    pub fn left(&self, change: &Change) -> usize {
        if change.remove_all {
            return 0;
        }
        let gone = |id: &str| change.remove.iter().any(|other| fold(other) == fold(id));
        let kept = self.assigned.iter().filter(|one| !gone(&one.id)).count();
        let new = change.add.iter().filter(|one| !self.has(&one.id)).count();
        kept + new
    }

    /// Makes the change; IMDS knows of it after `delay`.
    pub fn apply(&mut self, change: &Change, now: Instant, delay: Duration) {
        let goes = |one: &Assigned| {
            let named = change.remove.iter().any(|id| fold(id) == fold(&one.id));
            change.remove_all || named
        };
        let (gone, kept) = std::mem::take(&mut self.assigned)
            .into_iter()
            .partition::<Vec<_>, _>(goes);
        self.assigned = kept;
        self.fading.retain(|(_, until)| *until > now);
        if !delay.is_zero() {
            let until = now + delay;
            self.fading.extend(gone.into_iter().map(|one| (one, until)));
        }
        for one in &change.add {
            if !self.has(&one.id) {
                let imds_from = now + delay;
                self.assigned.push(Assigned {
                    imds_from,
                    ..one.clone()
                });
            }
        }
        match change.system {
            Some(true) if self.system.is_none() => {
                self.system = Some(SystemAssigned {
                    client_id: random_guid(),
                    principal_id: random_guid(),
                });
            }
            Some(false) => self.system = None,
            _ => {}
        }
        self.version += 1;
    }

    /// What IMDS knows now, in the order of assignment.
    pub fn known(&self, now: Instant) -> Vec<Assigned> {
        let assigned = self.assigned.iter().filter(|one| one.imds_from <= now);
        let mut known: Vec<Assigned> = assigned.cloned().collect();
        for (one, until) in &self.fading {
            if *until > now && !known.iter().any(|other| fold(&other.id) == fold(&one.id)) {
                known.push(one.clone());
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, now: Instant) -> Assigned {
        Assigned {
            id: format!("/subscriptions/S/{name}"),
            client_id: format!("{name}-client"),
            principal_id: format!("{name}-principal"),
            imds_from: now,
        }
    }

    fn names(list: &[Assigned]) -> Vec<&str> {
        list.iter().map(|one| one.client_id.as_str()).collect()
    }

    #[test]
    fn imds_follows_after_the_delay_in_both_directions() {
        let start = Instant::now();
        let delay = Duration::from_secs(10);
        let mut compute = Compute::new(Kind::Vm, "/vm".into(), "vm".into(), "x".into());
        let add = Change {
            add: vec![one("a", start), one("b", start)],
            ..Change::default()
        };
        compute.apply(&add, start, delay);
        assert!(compute.known(start).is_empty());
        let later = start + delay;
        assert_eq!(names(&compute.known(later)), ["a-client", "b-client"]);
        let remove = Change {
            remove: vec!["/SUBSCRIPTIONS/s/A".into()],
            ..Change::default()
        };
        compute.apply(&remove, later, delay);
        assert_eq!(names(&compute.assigned), ["b-client"]);
        assert_eq!(names(&compute.known(later)), ["b-client", "a-client"]);
        assert_eq!(names(&compute.known(later + delay)), ["b-client"]);
        assert_eq!(compute.version, 3);
    }

    #[test]
    fn what_is_assigned_keeps_its_principal_when_it_is_named_again() {
        let now = Instant::now();
        let mut compute = Compute::new(Kind::Vm, "/vm".into(), "vm".into(), "x".into());
        let change = |one: Assigned| Change {
            add: vec![one],
            ..Change::default()
        };
        compute.apply(&change(one("a", now)), now, Duration::ZERO);
        let reborn = Assigned {
            principal_id: "new".into(),
            ..one("a", now)
        };
        assert_eq!(compute.left(&change(reborn.clone())), 1);
        compute.apply(&change(reborn), now, Duration::ZERO);
        assert_eq!(compute.assigned[0].principal_id, "a-principal");
    }
}
