//! What exists in Azure: machines, scale sets, user-assigned identities, resource groups, running operations.
//!
//! In: the world at the start, then ARM's calls and commands. Out: what ARM shows and what IMDS knows at an instant.
//! Time passes by asking: each look first ends the operations whose time is over. One short lock, never held over IO.
//! Resource ids are compared without letter case and kept as they were written.

mod compute;
mod operation;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use compute::State;
pub(in crate::sim) use compute::{Assigned, Change, Compute, Kind, Pace};
pub use operation::Failure;
pub(in crate::sim) use operation::Operation;

use super::super::throttle::Throttle;
use super::super::token::Principal;
use super::super::world::{Identity as Written, ScaleSet, Vm, World};

/// A resource id for comparison.
pub(in crate::sim) fn fold(id: &str) -> String {
    id.trim_end_matches('/').to_ascii_lowercase()
}

/// The folded id of the resource group that a resource is in.
pub(in crate::sim) fn group_of(id: &str) -> Option<String> {
    let folded = fold(id);
    let mut parts = folded.split('/').skip(1);
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()?) {
        ("subscriptions", subscription, "resourcegroups", group) => Some(format!(
            "/subscriptions/{subscription}/resourcegroups/{group}"
        )),
        _ => None,
    }
}

/// A machine as IMDS sees it: an address, limits of its own, the compute resource whose identities it has.
pub(in crate::sim) struct Machine {
    pub vm: Vm,
    pub throttle: Arc<Throttle>,
    /// Folded id of the machine or its scale set.
    pub compute: String,
}

/// Why an identity cannot be assigned, though it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Poison {
    /// Requests with it are refused, and told which one it is.
    Named,
    /// Requests with it are refused with words that name none.
    Unnamed,
    /// Requests with it are accepted; the operation fails at its end and names it.
    Late,
}

/// A user-assigned identity.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Identity {
    /// Resource id as it was written.
    pub id: String,
    /// Name by which the world and Entra's registry speak of it.
    pub name: String,
    pub location: String,
    pub tags: BTreeMap<String, String>,
    pub client_id: String,
    pub principal_id: String,
    /// From then on IMDS knows it.
    pub known_from: Instant,
    pub poison: Option<Poison>,
    /// A federated credential of it is being written.
    pub writing: bool,
}

/// Everything that exists; reached through [`Estate::look`].
pub(in crate::sim) struct Holdings {
    pub computes: BTreeMap<String, Compute>,
    pub identities: BTreeMap<String, Identity>,
    /// Folded ids of resource groups.
    pub groups: BTreeSet<String>,
    pub operations: BTreeMap<String, Operation>,
    /// Ids of operations that have not ended.
    running: Vec<String>,
    pub machines: Vec<Arc<Machine>>,
    imds_delay: Duration,
}

/// The holdings behind their lock.
pub(in crate::sim) struct Estate {
    holdings: Mutex<Holdings>,
    /// Answers where no machine's networks hold the asker's address.
    first: Arc<Machine>,
}

impl Identity {
    pub fn written(identity: &Written, now: Instant) -> Self {
        Self {
            id: identity.resource_id.clone(),
            name: identity.name.clone(),
            location: "westeurope".to_owned(),
            tags: BTreeMap::new(),
            client_id: identity.client_id.clone(),
            principal_id: identity.principal_id.clone(),
            known_from: now,
            poison: None,
            writing: false,
        }
    }

    pub fn principal(&self) -> Principal {
        Principal {
            name: self.name.clone(),
            client_id: self.client_id.clone(),
            object_id: self.principal_id.clone(),
            resource_id: Some(self.id.clone()),
        }
    }

    fn assigned(&self, now: Instant) -> Assigned {
        Assigned {
            id: self.id.clone(),
            client_id: self.client_id.clone(),
            principal_id: self.principal_id.clone(),
            imds_from: now,
        }
    }
}

impl Machine {
    fn new(vm: Vm, compute: &str) -> Arc<Self> {
        Arc::new(Self {
            vm,
            throttle: Arc::default(),
            compute: fold(compute),
        })
    }

    /// The machines of a scale set: those listed, and one for all the rest of its networks.
    fn of_set(set: &ScaleSet) -> Vec<Arc<Self>> {
        let id = set.arm_id();
        let machine = |name: &str, sources: &[ipnet::IpNet], resource_id: String| {
            let vm = Vm {
                name: name.to_owned(),
                resource_id: Some(resource_id),
                sources: sources.to_vec(),
                location: set.location.clone(),
                identities: Vec::new(),
                system_assigned: None,
                user_data: String::new(),
                custom_data: String::new(),
                scale_set: Some(set.name.clone()),
            };
            Self::new(vm, &id)
        };
        let instances = set.instances.iter().enumerate();
        let mut machines: Vec<_> = instances
            .map(|(index, one)| {
                let resource_id = format!("{id}/virtualMachines/{index}");
                machine(&one.name, &one.sources, resource_id)
            })
            .collect();
        if machines.is_empty() || !set.sources.is_empty() {
            machines.push(machine(&set.name, &set.sources, id.clone()));
        }
        machines
    }
}

impl Estate {
    pub fn new(world: &World, now: Instant) -> Self {
        let identities = world.identities.iter();
        let identities =
            identities.map(|one| (fold(&one.resource_id), Identity::written(one, now)));
        let mut holdings = Holdings {
            computes: BTreeMap::new(),
            identities: identities.collect(),
            groups: world
                .arm
                .resource_groups
                .iter()
                .map(|id| fold(id))
                .collect(),
            operations: BTreeMap::new(),
            running: Vec::new(),
            machines: Vec::new(),
            imds_delay: world.imds.assignment_delay,
        };
        let ids = world.identities.iter().map(|one| &one.resource_id);
        holdings.groups.extend(ids.filter_map(|id| group_of(id)));
        for vm in &world.vms {
            holdings.add_vm(vm, now);
        }
        for set in &world.scale_sets {
            holdings.add_set(set, now);
        }
        // A checked world has at least one machine.
        let first = holdings.machines.first().cloned();
        let nobody = || Machine::of_set(&ScaleSet::nameless()).remove(0);
        Self {
            first: first.unwrap_or_else(nobody),
            holdings: Mutex::new(holdings),
        }
    }

    /// Looks at (or changes) what exists at `now`.
    pub fn look<T>(&self, now: Instant, look: impl FnOnce(&mut Holdings) -> T) -> T {
        let mut holdings = self.holdings.lock();
        holdings.settle(now);
        look(&mut holdings)
    }

    /// The machine that `source` is: the first whose networks hold it, else the first of all.
    pub fn machine(&self, source: IpAddr) -> Arc<Machine> {
        let source = source.to_canonical();
        let holds = |machine: &&Arc<Machine>| {
            let mut networks = machine.vm.sources.iter();
            networks.any(|network| network.contains(&source))
        };
        let holdings = self.holdings.lock();
        let found = holdings.machines.iter().find(holds);
        found.unwrap_or(&self.first).clone()
    }
}

impl Holdings {
    fn settle(&mut self, now: Instant) {
        let over = |id: &&String| {
            let operation = self.operations.get(*id);
            operation.is_none_or(|one| one.ends.is_some_and(|end| end <= now))
        };
        let over: Vec<String> = self.running.iter().filter(over).cloned().collect();
        for id in over {
            self.finish(&id, now);
        }
    }

    fn assigned_by_name(&self, names: &[String], now: Instant) -> Vec<Assigned> {
        let known = names.iter().filter_map(|name| self.identity_named(name));
        known.map(|identity| identity.assigned(now)).collect()
    }

    /// Adds a machine that is no scale set's; one with the same id is replaced.
    pub fn add_vm(&mut self, vm: &Vm, now: Instant) {
        let id = vm.arm_id();
        let (name, location) = (vm.name.clone(), vm.location.clone());
        let mut compute = Compute::new(Kind::Vm, id.clone(), name, location);
        compute.system.clone_from(&vm.system_assigned);
        compute.assigned = self.assigned_by_name(&vm.identities, now);
        self.add(compute, vec![Machine::new(vm.clone(), &id)]);
    }

    /// Adds a scale set with its machines; one with the same id is replaced.
    pub fn add_set(&mut self, set: &ScaleSet, now: Instant) {
        let (name, location) = (set.name.clone(), set.location.clone());
        let mut compute = Compute::new(Kind::ScaleSet, set.arm_id(), name, location);
        compute.system.clone_from(&set.system_assigned);
        compute.assigned = self.assigned_by_name(&set.identities, now);
        self.add(compute, Machine::of_set(set));
    }

    fn add(&mut self, compute: Compute, machines: Vec<Arc<Machine>>) {
        let key = fold(&compute.id);
        self.groups.extend(group_of(&compute.id));
        self.machines.retain(|machine| machine.compute != key);
        self.machines.extend(machines);
        self.computes.insert(key, compute);
    }

    /// Replaces the machines of a scale set: it is scaled.
    pub fn scale(&mut self, set: &ScaleSet) {
        let key = fold(&set.arm_id());
        self.machines.retain(|machine| machine.compute != key);
        self.machines.extend(Machine::of_set(set));
    }

    /// Takes a machine or scale set away, with all its machines.
    pub fn delete_compute(&mut self, key: &str) -> Option<Compute> {
        self.machines.retain(|machine| machine.compute != key);
        self.computes.remove(key)
    }

    /// The folded id of the compute resource with that name: its own, or a machine's of it.
    pub fn compute_named(&self, name: &str) -> Option<String> {
        let machine = self.machines.iter().find(|one| one.vm.name == name);
        let own = || {
            let mut all = self.computes.iter();
            all.find(|(key, one)| one.name == name || **key == fold(name))
        };
        let key = machine.map(|one| one.compute.clone());
        key.or_else(|| own().map(|(key, _)| key.clone()))
    }

    /// The identity of that name or resource id.
    pub fn identity_named(&self, name: &str) -> Option<&Identity> {
        let by_name = self.identities.values().find(|one| one.name == name);
        by_name.or_else(|| self.identities.get(&fold(name)))
    }

    /// The identity with its living principal, if IMDS knows it by now.
    fn alive(&self, assigned: &Assigned, now: Instant) -> Option<&Identity> {
        let identity = self.identities.get(&fold(&assigned.id))?;
        let same = identity.principal_id == assigned.principal_id;
        (same && identity.known_from <= now).then_some(identity)
    }

    /// The user-assigned identities that IMDS knows on a machine; those whose principal is gone are left out.
    pub fn user_assigned(&self, machine: &Machine, now: Instant) -> Vec<Principal> {
        let Some(compute) = self.computes.get(&machine.compute) else {
            return Vec::new();
        };
        let known = compute.known(now);
        let alive = known.iter().filter_map(|one| self.alive(one, now));
        alive.map(Identity::principal).collect()
    }

    /// The system-assigned identity of a machine; of a scale set it is shared by all its machines.
    pub fn system(&self, machine: &Machine) -> Option<Principal> {
        let compute = self.computes.get(&machine.compute)?;
        let system = compute.system.as_ref()?;
        Some(Principal {
            name: format!("{}/system", compute.name),
            client_id: system.client_id.clone(),
            object_id: system.principal_id.clone(),
            resource_id: Some(compute.id.clone()),
        })
    }

    /// What an identity is assigned as, now.
    pub fn assignable(&self, id: &str, now: Instant) -> Option<Assigned> {
        let identity = self.identities.get(&fold(id))?;
        Some(Assigned {
            id: id.to_owned(),
            ..identity.assigned(now)
        })
    }

    /// The name of the principal with that object id.
    pub fn name_of(&self, oid: &str) -> Option<String> {
        let mut identities = self.identities.values();
        let identity = identities.find(|one| one.principal_id.eq_ignore_ascii_case(oid));
        let system = || {
            let mut computes = self.computes.values();
            let same = |compute: &&Compute| {
                let system = compute.system.as_ref();
                system.is_some_and(|system| system.principal_id.eq_ignore_ascii_case(oid))
            };
            let compute = computes.find(same);
            compute.map(|compute| format!("{}/system", compute.name))
        };
        identity.map(|one| one.name.clone()).or_else(system)
    }

    /// Replaces what a compute resource carries, behind everybody's back; IMDS knows at once.
    pub fn replace(&mut self, key: &str, assigned: &[Assigned], now: Instant) {
        if let Some(compute) = self.computes.get_mut(key) {
            let keep = |id: &str| assigned.iter().any(|one| fold(&one.id) == fold(id));
            let gone = compute.assigned.iter().filter(|one| !keep(&one.id));
            let change = Change {
                remove: gone.map(|one| one.id.clone()).collect(),
                add: assigned.to_vec(),
                ..Change::default()
            };
            compute.apply(&change, now, Duration::ZERO);
            // In the order that was asked for.
            let place = |one: &Assigned| {
                assigned
                    .iter()
                    .position(|other| fold(&other.id) == fold(&one.id))
            };
            compute.assigned.sort_by_key(place);
        }
    }
}
