//! Which identities each compute resource is to have: bindings × policies × pods, kept up to date by
//! what changed. In: the world and the names of what changed in it. Out: desires as values, the
//! numbers that statuses tell, and which compute resources' desires differ now. Pure.
//!
//! Holds that a change costs what it bears on, not what the cluster has: a pod's event looks at that
//! pod only. What a pod may use is decided by [`crate::model::conditions`], as in the agent.
//!
//! Identities of service accounts do not appear: they are federated, nothing is assigned for them.

pub mod admission;
mod share;
mod tally;
mod touched;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub use self::admission::{Refusal, Target};
use self::share::{Share, counts};
use self::tally::Tally;
pub use self::touched::Touched;
use super::desired::ComputeDesire;
use super::world::World;
use crate::model::compute::Compute;
use crate::model::ids::{ArmId, ObjectName};

/// How one `AzureIdentity` is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Pods that bindings give it to and that ask for it.
    pub pods: usize,
    /// The compute resources that they run on, with their number there.
    pub computes: BTreeMap<ArmId, usize>,
    /// Its ARM id, where a policy lets the controller act on it.
    pub resource_id: Option<ArmId>,
    /// Why it is assigned nowhere.
    pub refusal: Option<Refusal>,
}

/// What is wanted everywhere, and what of it comes from which pod.
#[derive(Debug, Default)]
pub struct Ledger {
    nodes: HashMap<Arc<str>, Arc<Compute>>,
    targets: BTreeMap<ObjectName, Arc<Target>>,
    pods: HashMap<ObjectName, Share>,
    tally: Tally,
    named: BTreeSet<ArmId>,
    immutable: BTreeSet<ArmId>,
    mutable: BTreeSet<ArmId>,
}

impl Ledger {
    /// Takes over what changed; the world is as it is afterwards. Gives the compute resources whose
    /// desire differs now: in its identities, in the objects that name them, or in its nodes. Where
    /// only the number of pods differs, a compute resource is not among them: nothing is to be done
    /// there.
    pub fn update(&mut self, world: &World, touched: &Touched) -> BTreeSet<ArmId> {
        let moved = self.move_nodes(world, &touched.nodes);
        let replaced = self.admit(world, touched);
        let scan = Scan {
            world,
            touched,
            moved: &moved,
            replaced: &replaced,
        };
        let affected = scan.affected(&self.pods);
        let mut before = Vec::with_capacity(affected.len());
        // First what is there now, then what is not there any more: a pod that was replaced by
        // another one changes nothing in between.
        for name in affected {
            let now = world
                .pods
                .get(&name)
                .map(|pod| Share::of(&name, pod, world, &self.nodes, &mut self.targets));
            if let Some(now) = &now {
                self.tally.add(now);
            }
            before.extend(match now {
                Some(now) => self.pods.insert(name, now),
                None => self.pods.remove(&name),
            });
        }
        for share in &before {
            self.tally.retract(share);
        }
        self.forget_unused();
        self.tally.changed()
    }

    /// What is wanted of a compute resource.
    #[must_use]
    pub fn desire(&self, compute: &Arc<Compute>) -> ComputeDesire {
        self.tally.desire(compute)
    }

    /// The compute resources that have nodes, by ARM id.
    pub fn computes(&self) -> impl Iterator<Item = &Arc<Compute>> {
        self.tally.computes()
    }

    /// How many pods a binding gives its identity to: its subjects name them, and they do not ask for
    /// others by their annotation (pods of other namespaces: they ask for this one).
    #[must_use]
    pub fn matched_pods(&self, binding: &ObjectName) -> usize {
        self.tally.matched(binding)
    }

    /// How an `AzureIdentity` is used.
    #[must_use]
    pub fn identity(&self, name: &ObjectName) -> Use {
        let target = self.targets.get(name);
        let (pods, computes) = self.tally.used(name);
        Use {
            pods,
            computes,
            resource_id: target.and_then(|target| target.resource_id.clone()),
            refusal: target.map_or(Some(Refusal::NoIdentity), |target| target.refusal.clone()),
        }
    }

    /// The identities to ask ARM about: those that `AzureIdentity`s name and a policy admits by ARM
    /// id, whether pods use them or not.
    #[must_use]
    pub const fn named(&self) -> &BTreeSet<ArmId> {
        &self.named
    }

    /// Identities that an admitted `AzureIdentity` says are immutable.
    #[must_use]
    pub const fn immutable(&self) -> &BTreeSet<ArmId> {
        &self.immutable
    }

    /// Identities that admitted `AzureIdentity`s name, none of which says that they are immutable.
    #[must_use]
    pub const fn mutable(&self) -> &BTreeSet<ArmId> {
        &self.mutable
    }

    /// Takes over nodes; those that are another compute resource's now.
    fn move_nodes(&mut self, world: &World, nodes: &HashSet<Arc<str>>) -> HashSet<Arc<str>> {
        let mut moved = HashSet::new();
        for name in nodes {
            let now = world.nodes.get(name);
            let now = now.and_then(|node| node.compute.as_ref().ok().cloned());
            let before = match &now {
                Some(now) => self.nodes.insert(name.clone(), now.clone()),
                None => self.nodes.remove(name),
            };
            if before == now {
                continue;
            }
            if let Some(now) = &now {
                self.tally.join(name, now);
            }
            if let Some(before) = before {
                let stays = now.as_ref().is_some_and(|now| now.id == before.id);
                if stays {
                    continue;
                }
                self.tally.leave(name, &before);
            }
            moved.insert(name.clone());
        }
        moved
    }

    /// Works the touched identities out again; those that differ now.
    fn admit(&mut self, world: &World, touched: &Touched) -> HashSet<ObjectName> {
        let mut names: BTreeSet<ObjectName> = touched.identities.iter().cloned().collect();
        if touched.policies {
            names.extend(self.targets.keys().cloned());
            names.extend(world.identities.keys().cloned());
        } else if !touched.namespaces.is_empty() {
            let of = |name: &&ObjectName| touched.namespaces.contains(&name.namespace);
            names.extend(self.targets.keys().filter(of).cloned());
        }
        let mut replaced = HashSet::new();
        for name in names {
            let target = Target::of(&name, world);
            if self.targets.get(&name).is_some_and(|old| **old == target) {
                continue;
            }
            if !target.exists() && !self.targets.contains_key(&name) {
                continue;
            }
            self.targets.insert(name.clone(), Arc::new(target));
            replaced.insert(name);
        }
        if !replaced.is_empty() {
            self.index();
        }
        replaced
    }

    /// What is said of resource ids, whoever says it.
    fn index(&mut self) {
        let targets = self.targets.values();
        let named = targets.filter_map(|target| Some((target.resource_id.as_ref()?, target)));
        let (mut all, mut immutable) = (BTreeSet::new(), BTreeSet::new());
        for (id, target) in named {
            all.insert(id.clone());
            if target.immutable {
                immutable.insert(id.clone());
            }
        }
        let mutable: BTreeSet<ArmId> = all.difference(&immutable).cloned().collect();
        if immutable != self.immutable || self.mutable != mutable {
            self.tally.touch_all();
        }
        (self.named, self.immutable, self.mutable) = (all, immutable, mutable);
    }

    /// Names without an object are kept as long as pods wait for them.
    fn forget_unused(&mut self) {
        self.targets
            .retain(|name, target| target.exists() || self.tally.is_used(name));
    }
}

/// A change's way to the pods that it bears on.
struct Scan<'a> {
    world: &'a World,
    touched: &'a Touched,
    moved: &'a HashSet<Arc<str>>,
    replaced: &'a HashSet<ObjectName>,
}

impl Scan<'_> {
    fn affected(&self, known: &HashMap<ObjectName, Share>) -> Vec<ObjectName> {
        let touched = self.touched;
        let mut affected: Vec<ObjectName> = touched.pods.iter().cloned().collect();
        let beyond = !self.moved.is_empty()
            || !self.replaced.is_empty()
            || !touched.bindings.is_empty()
            || !touched.namespaces.is_empty();
        if beyond {
            // Pods that are gone are touched themselves.
            let others = known.iter().filter(|(name, share)| {
                !touched.pods.contains(*name) && self.bears_on(name, share)
            });
            affected.extend(others.map(|(name, _)| name.clone()));
        }
        affected
    }

    fn bears_on(&self, name: &ObjectName, share: &Share) -> bool {
        let Some(pod) = self.world.pods.get(name) else {
            return true;
        };
        let bindings = || {
            self.touched.bindings.iter().any(|binding| {
                share.bindings.contains(binding)
                    || self
                        .world
                        .bindings
                        .get(binding)
                        .is_some_and(|seen| counts(seen, name, pod, self.world))
            })
        };
        self.touched.namespaces.contains(&name.namespace)
            || self.moved.contains(&pod.node)
            || (!self.replaced.is_empty()
                && share
                    .targets
                    .iter()
                    .any(|target| self.replaced.contains(&target.name)))
            || bindings()
    }
}

#[cfg(test)]
mod tests;
