//! The sums of all pods' shares. In: shares that come and go, nodes that join and leave. Out: counts,
//! desires, and which compute resources' desires changed. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::share::Share;
use crate::controller::desired::{ComputeDesire, Want};
use crate::model::compute::Compute;
use crate::model::ids::{ArmId, ObjectName};

/// Counts by binding, by identity and by compute resource; what is at zero is not there.
#[derive(Debug, Default)]
pub(super) struct Tally {
    bindings: HashMap<ObjectName, usize>,
    identities: HashMap<ObjectName, Uses>,
    computes: BTreeMap<ArmId, Wants>,
    changed: BTreeSet<ArmId>,
}

/// One identity's.
#[derive(Debug, Default)]
struct Uses {
    pods: usize,
    computes: BTreeMap<ArmId, usize>,
}

/// One compute resource's.
#[derive(Debug, Default)]
struct Wants {
    /// By name, so that which spelling of its id counts does not depend on who came first.
    nodes: BTreeMap<Arc<str>, Arc<Compute>>,
    wanted: BTreeMap<ArmId, Counted>,
}

/// One identity's on one compute resource.
#[derive(Debug, Default)]
struct Counted {
    pods: usize,
    identities: BTreeMap<ObjectName, usize>,
}

impl Tally {
    /// Adds a pod's share.
    pub fn add(&mut self, share: &Share) {
        for binding in &share.bindings {
            increase(&mut self.bindings, binding);
        }
        let compute = share.compute.as_ref().map(|compute| &compute.id);
        for target in &share.targets {
            let uses = self.identities.entry(target.name.clone()).or_default();
            uses.pods += 1;
            if let Some(compute) = compute {
                *uses.computes.entry(compute.clone()).or_default() += 1;
            }
        }
        let Some(compute) = compute else { return };
        for (id, names) in share.resources() {
            let wants = self.computes.entry(compute.clone()).or_default();
            let counted = wants.wanted.entry(id.clone()).or_default();
            counted.pods += 1;
            for name in names {
                let count = counted.identities.entry(name.clone()).or_default();
                *count += 1;
                if *count == 1 {
                    self.changed.insert(compute.clone());
                }
            }
        }
    }

    /// Takes a share away that was added.
    pub fn retract(&mut self, share: &Share) {
        for binding in &share.bindings {
            if let Some(count) = self.bindings.get_mut(binding) {
                *count -= 1;
                if *count == 0 {
                    self.bindings.remove(binding);
                }
            }
        }
        let compute = share.compute.as_ref().map(|compute| &compute.id);
        for target in &share.targets {
            if let Some(uses) = self.identities.get_mut(&target.name) {
                uses.pods -= 1;
                if let Some(compute) = compute {
                    decrease(&mut uses.computes, compute);
                }
                if uses.pods == 0 {
                    self.identities.remove(&target.name);
                }
            }
        }
        let Some(compute) = compute else { return };
        let Some(wants) = self.computes.get_mut(compute) else {
            return;
        };
        for (id, names) in share.resources() {
            let Some(counted) = wants.wanted.get_mut(id) else {
                continue;
            };
            counted.pods -= 1;
            for name in names {
                if decrease(&mut counted.identities, name) {
                    self.changed.insert(compute.clone());
                }
            }
            if counted.pods == 0 {
                wants.wanted.remove(id);
            }
        }
        self.tidy(&compute.clone());
    }

    /// A node is a compute resource's.
    pub fn join(&mut self, node: &Arc<str>, compute: &Arc<Compute>) {
        let wants = self.computes.entry(compute.id.clone()).or_default();
        wants.nodes.insert(node.clone(), compute.clone());
        self.changed.insert(compute.id.clone());
    }

    /// A node is a compute resource's no longer.
    pub fn leave(&mut self, node: &Arc<str>, compute: &Compute) {
        if let Some(wants) = self.computes.get_mut(&compute.id) {
            wants.nodes.remove(node);
            self.changed.insert(compute.id.clone());
            self.tidy(&compute.id);
        }
    }

    fn tidy(&mut self, compute: &ArmId) {
        let empty = |wants: &Wants| wants.nodes.is_empty() && wants.wanted.is_empty();
        if self.computes.get(compute).is_some_and(empty) {
            self.computes.remove(compute);
        }
    }

    /// All compute resources are to be looked at again.
    pub fn touch_all(&mut self) {
        self.changed.extend(self.computes.keys().cloned());
    }

    /// The compute resources that changed since this was asked last.
    pub fn changed(&mut self) -> BTreeSet<ArmId> {
        std::mem::take(&mut self.changed)
    }

    /// What is wanted of a compute resource.
    pub fn desire(&self, compute: &Arc<Compute>) -> ComputeDesire {
        let wants = self.computes.get(&compute.id);
        let wanted = wants.into_iter().flat_map(|wants| &wants.wanted);
        let first = wants.and_then(|wants| wants.nodes.values().next());
        ComputeDesire {
            compute: first.unwrap_or(compute).clone(),
            nodes: wants.map_or(0, |wants| wants.nodes.len()),
            wanted: wanted
                .map(|(id, counted)| (id.clone(), counted.want()))
                .collect(),
        }
    }

    /// The compute resources that have nodes.
    pub fn computes(&self) -> impl Iterator<Item = &Arc<Compute>> {
        let all = self.computes.values();
        all.filter_map(|wants| wants.nodes.values().next())
    }

    /// How many pods a binding counts for.
    pub fn matched(&self, binding: &ObjectName) -> usize {
        self.bindings.get(binding).copied().unwrap_or_default()
    }

    /// How many pods use an identity, in all and by compute resource.
    pub fn used(&self, identity: &ObjectName) -> (usize, BTreeMap<ArmId, usize>) {
        let uses = self.identities.get(identity);
        uses.map_or_else(Default::default, |uses| (uses.pods, uses.computes.clone()))
    }

    /// Whether any pod uses an identity.
    pub fn is_used(&self, identity: &ObjectName) -> bool {
        self.identities.contains_key(identity)
    }
}

impl Counted {
    fn want(&self) -> Want {
        Want {
            pods: self.pods,
            identities: self.identities.keys().cloned().collect(),
        }
    }
}

fn increase(counts: &mut HashMap<ObjectName, usize>, name: &ObjectName) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.clone(), 1)),
    }
}

/// Takes one away; whether none is left.
fn decrease<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else {
        return false;
    };
    *count -= 1;
    let none = *count == 0;
    if none {
        counts.remove(key);
    }
    none
}
