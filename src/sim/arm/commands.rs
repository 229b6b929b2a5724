//! What happens to Azure outside of ARM calls: things come and go behind a controller's back, operations hang, rights
//! are granted.
//!
//! In: names as the world and its commands use them. Out: changed holdings, or which name means nothing. Never waits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::estate::{Compute, Failure, Holdings, Identity, Machine, Pace, Poison, State, fold};
use super::patch::Type;
use crate::sim::azure::Azure;
use crate::sim::world::{Instance, RoleAssignment, ScaleSet, Vm};

/// Why a command cannot be carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No machine and no scale set of that name.
    #[error("no VM or scale set is named `{0}`")]
    NoCompute(String),
    /// No identity of that name or resource id.
    #[error("no identity is named `{0}`")]
    NoIdentity(String),
    /// No operation runs.
    #[error("no operation runs on `{0}`")]
    Idle(String),
    /// The name is taken.
    #[error("`{0}` is there already")]
    Taken(String),
    /// It means nobody.
    #[error("`{0}` is neither an identity, an application nor an object id")]
    Nobody(String),
    /// There is no such role assignment, or no such group.
    #[error("there is no {0}")]
    Absent(&'static str),
}

/// How long writes to a machine or scale set take from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "pace", deny_unknown_fields)]
pub enum Operations {
    /// As the world says.
    World,
    /// This long.
    Take {
        /// Whole milliseconds.
        milliseconds: u64,
    },
    /// Until they are released.
    Hold,
}

/// A machine or scale set, as a test looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownCompute {
    /// Resource id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `identity.type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Resource id → principal id, as assigned.
    pub identities: BTreeMap<String, String>,
    /// `properties.provisioningState`.
    pub state: State,
    /// Names of its machines.
    pub machines: Vec<String>,
}

/// An identity, as a test looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownIdentity {
    /// Resource id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Application (client) id.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Object id of its service principal.
    #[serde(rename = "principalID")]
    pub principal_id: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// Everything that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Machines and scale sets.
    pub computes: Vec<ShownCompute>,
    /// User-assigned identities.
    pub identities: Vec<ShownIdentity>,
}

/// Commands about what ARM holds.
pub struct Commands<'a>(pub(in crate::sim) &'a Azure);

type Outcome<T> = Result<T, CommandError>;

fn key_of(holdings: &Holdings, name: &str) -> Outcome<String> {
    let key = holdings.compute_named(name);
    key.ok_or_else(|| CommandError::NoCompute(name.to_owned()))
}

/// Refuses machine names that belong to another compute resource.
fn check_names<'n>(
    holdings: &Holdings,
    compute: &str,
    mut names: impl Iterator<Item = &'n str>,
) -> Outcome<()> {
    let taken = |name: &&str| {
        let mut machines = holdings.machines.iter();
        machines.any(|one| one.vm.name == *name && one.compute != compute)
    };
    match names.find(taken) {
        Some(name) => Err(CommandError::Taken(name.to_owned())),
        None => Ok(()),
    }
}

impl Commands<'_> {
    fn look<T>(&self, look: impl FnOnce(&mut Holdings, Instant) -> T) -> T {
        let now = Instant::now();
        let estate = &self.0.arm.estate;
        estate.look(now, |holdings| look(holdings, now))
    }

    /// Everything that exists, at this moment.
    pub fn resources(&self) -> Resources {
        self.look(|holdings, _| Resources {
            computes: holdings
                .computes
                .iter()
                .map(|(key, one)| shown(holdings, key, one))
                .collect(),
            identities: holdings.identities.values().map(shown_identity).collect(),
        })
    }

    /// Adds a machine; one with the same resource id is replaced. `identities` are names.
    pub fn add_vm(&self, vm: &Vm) -> Outcome<()> {
        self.look(|holdings, now| {
            check_names(
                holdings,
                &fold(&vm.arm_id()),
                [vm.name.as_str()].into_iter(),
            )?;
            check_identities(holdings, &vm.identities)?;
            holdings.add_vm(vm, now);
            Ok(())
        })
    }

    /// Adds a scale set; one with the same resource id is replaced.
    pub fn add_scale_set(&self, set: &ScaleSet) -> Outcome<()> {
        self.look(|holdings, now| {
            let instances = set.instances.iter().map(|one| one.name.as_str());
            let names = instances.chain([set.name.as_str()]);
            check_names(holdings, &fold(&set.arm_id()), names)?;
            check_identities(holdings, &set.identities)?;
            holdings.add_set(set, now);
            Ok(())
        })
    }

    /// Replaces the machines of a scale set; what it carries stays, and new ones have it at once.
    pub fn scale(&self, name: &str, instances: Vec<Instance>) -> Outcome<()> {
        self.look(|holdings, _| {
            let key = key_of(holdings, name)?;
            check_names(
                holdings,
                &key,
                instances.iter().map(|one| one.name.as_str()),
            )?;
            if let Some(compute) = holdings.computes.get(&key) {
                let set = ScaleSet {
                    name: compute.name.clone(),
                    resource_id: Some(compute.id.clone()),
                    location: compute.location.clone(),
                    instances,
                    ..ScaleSet::nameless()
                };
                holdings.scale(&set);
            }
            Ok(())
        })
    }

    /// Deletes a machine or scale set; an operation on it is canceled.
    pub fn delete_compute(&self, name: &str) -> Outcome<()> {
        self.look(|holdings, now| {
            let key = key_of(holdings, name)?;
            let running = holdings.delete_compute(&key).and_then(|one| one.running);
            if let Some(id) = running {
                holdings.finish(&id, now);
            }
            Ok(())
        })
    }

    /// Deletes a resource group with all that is in it, by its resource id.
    pub fn delete_group(&self, id: &str) -> Outcome<()> {
        let gone = self.look(|holdings, now| {
            let inside = format!("{}/", fold(id));
            let computes: Vec<String> = holdings
                .computes
                .keys()
                .filter(|key| key.starts_with(&inside))
                .cloned()
                .collect();
            for key in computes {
                let running = holdings.delete_compute(&key).and_then(|one| one.running);
                if let Some(id) = running {
                    holdings.finish(&id, now);
                }
            }
            let identities = holdings
                .identities
                .extract_if(.., |key, _| key.starts_with(&inside));
            let names: Vec<String> = identities.map(|(_, one)| one.name).collect();
            holdings.groups.remove(&fold(id)).then_some(names)
        });
        let names = gone.ok_or(CommandError::Absent("such resource group"))?;
        for name in names {
            self.0.entra.registry.remove(&name);
        }
        Ok(())
    }

    /// Sets how long writes to it take from now on.
    pub fn set_operations(&self, name: &str, operations: Operations) -> Outcome<()> {
        self.change(name, |compute| {
            compute.pace = match operations {
                Operations::World => Pace::World,
                Operations::Take { milliseconds } => {
                    Pace::Takes(Duration::from_millis(milliseconds))
                }
                Operations::Hold => Pace::Held,
            };
        })
    }

    /// Ends the operation that runs on it: well, or with that failure.
    pub fn release(&self, name: &str, failure: Option<Failure>) -> Outcome<()> {
        self.look(|holdings, now| {
            let key = key_of(holdings, name)?;
            let running = holdings
                .computes
                .get(&key)
                .and_then(|one| one.running.clone());
            let id = running.ok_or_else(|| CommandError::Idle(name.to_owned()))?;
            if let (Some(failure), Some(operation)) = (failure, holdings.operations.get_mut(&id)) {
                operation.failure = Some(failure);
            }
            holdings.finish(&id, now);
            Ok(())
        })
    }

    /// Sets its provisioning state: somebody else is at work on it, or was.
    pub fn set_state(&self, name: &str, state: State) -> Outcome<()> {
        self.change(name, |compute| {
            compute.state = state;
            compute.version += 1;
        })
    }

    /// Takes an identity off it behind everybody's back; IMDS forgets it at once.
    pub fn unassign(&self, name: &str, identity: &str) -> Outcome<()> {
        self.look(|holdings, now| {
            let key = key_of(holdings, name)?;
            let named = holdings.identity_named(identity).map(|one| one.id.clone());
            let id = fold(&named.unwrap_or_else(|| identity.to_owned()));
            let compute = holdings.computes.get(&key);
            let mut assigned = compute.map(|one| one.assigned.clone()).unwrap_or_default();
            let before = assigned.len();
            assigned.retain(|one| fold(&one.id) != id);
            if assigned.len() == before {
                return Err(CommandError::NoIdentity(identity.to_owned()));
            }
            holdings.replace(&key, &assigned, now);
            Ok(())
        })
    }

    /// Makes an identity with new ids, known everywhere at once. Returns its name.
    pub fn put_identity(&self, id: &str, name: Option<&str>) -> Outcome<String> {
        let identity = self.look(|holdings, now| {
            let taken = holdings.identities.contains_key(&fold(id));
            if taken || name.is_some_and(|name| holdings.identity_named(name).is_some()) {
                return Err(CommandError::Taken(id.to_owned()));
            }
            let made = ("westeurope".to_owned(), BTreeMap::new());
            Ok(holdings.create(id, name, made, now))
        })?;
        let registry = &self.0.entra.registry;
        registry.add_managed(identity.principal(), Instant::now());
        Ok(identity.name)
    }

    /// Deletes an identity; it stays on machines, dead.
    pub fn delete_identity(&self, name: &str) -> Outcome<()> {
        let gone = self.look(|holdings, _| {
            let key = holdings.identity_named(name).map(|one| fold(&one.id));
            key.and_then(|key| holdings.identities.remove(&key))
        });
        let gone = gone.ok_or_else(|| CommandError::NoIdentity(name.to_owned()))?;
        self.0.entra.registry.remove(&gone.name);
        Ok(())
    }

    /// Deletes an identity and makes one of the same name and resource id, with new ids and no federated credentials.
    pub fn recreate_identity(&self, name: &str) -> Outcome<ShownIdentity> {
        let id = self.look(|holdings, _| holdings.identity_named(name).map(|one| one.id.clone()));
        let id = id.ok_or_else(|| CommandError::NoIdentity(name.to_owned()))?;
        self.delete_identity(&id)?;
        let known = Some(name).filter(|name| !name.starts_with('/'));
        self.put_identity(&id, known)?;
        let shown = self.look(|holdings, _| holdings.identity_named(&id).map(shown_identity));
        shown.ok_or_else(|| CommandError::NoIdentity(name.to_owned()))
    }

    /// Makes an identity one that cannot be assigned, or (none) one like all others.
    pub fn poison(&self, name: &str, poison: Option<Poison>) -> Outcome<()> {
        self.look(|holdings, _| {
            let key = holdings.identity_named(name).map(|one| fold(&one.id));
            let identity = key.and_then(|key| holdings.identities.get_mut(&key));
            let identity = identity.ok_or_else(|| CommandError::NoIdentity(name.to_owned()))?;
            identity.poison = poison;
            Ok(())
        })
    }

    /// Grants a role; from the first one on, ARM refuses what is not granted.
    pub fn grant(&self, assignment: RoleAssignment) -> Outcome<()> {
        let who = &assignment.principal;
        let managed = self.look(|holdings, _| {
            holdings
                .identity_named(who)
                .map(|one| one.principal_id.clone())
        });
        let application = self.0.world.principal_id(who).map(str::to_owned);
        let guid = (who.len() == 36 && who.bytes().filter(|byte| *byte == b'-').count() == 4)
            .then(|| who.clone());
        let oid = managed.or(application).or(guid);
        let oid = oid.ok_or_else(|| CommandError::Nobody(who.clone()))?;
        self.0.arm.roles.add(assignment, oid);
        Ok(())
    }

    /// Takes a role away that was granted in the same words.
    pub fn revoke(&self, assignment: &RoleAssignment) -> Outcome<()> {
        if self.0.arm.roles.remove(assignment) {
            return Ok(());
        }
        Err(CommandError::Absent("such role assignment"))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Compute)) -> Outcome<()> {
        self.look(|holdings, _| {
            let key = key_of(holdings, name)?;
            if let Some(compute) = holdings.computes.get_mut(&key) {
                change(compute);
            }
            Ok(())
        })
    }
}

fn check_identities(holdings: &Holdings, names: &[String]) -> Outcome<()> {
    let unknown = names
        .iter()
        .find(|name| holdings.identity_named(name).is_none());
    unknown.map_or(Ok(()), |name| Err(CommandError::NoIdentity(name.clone())))
}

fn shown(holdings: &Holdings, key: &str, compute: &Compute) -> ShownCompute {
    let kind = Type::of(compute.system.is_some(), !compute.assigned.is_empty());
    let own = |machine: &&std::sync::Arc<Machine>| machine.compute == key;
    ShownCompute {
        id: compute.id.clone(),
        name: compute.name.clone(),
        kind: kind.text().to_owned(),
        identities: compute
            .assigned
            .iter()
            .map(|one| (one.id.clone(), one.principal_id.clone()))
            .collect(),
        state: compute.provisioning(),
        machines: holdings
            .machines
            .iter()
            .filter(own)
            .map(|one| one.vm.name.clone())
            .collect(),
    }
}

fn shown_identity(identity: &Identity) -> ShownIdentity {
    ShownIdentity {
        id: identity.id.clone(),
        name: identity.name.clone(),
        client_id: identity.client_id.clone(),
        principal_id: identity.principal_id.clone(),
        tags: identity.tags.clone(),
    }
}
