//! All objects that decide, indexed the way grants are worked out: one value, no IO. Apply, delete
//! and nothing else changes it, so that a folder and the Kubernetes API fill it alike.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::api::object::{Object, ObjectKey};
use crate::model::facts::{
    AssignmentFacts, BindingFacts, ExceptionFacts, IdentityFacts, Labels, PodFacts, PolicyFacts,
};
use crate::model::ids::ObjectName;

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is there, like this.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectKey),
}

/// Changes that a source found together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// All documents that cannot be used now (not only new ones); `None` where the source counts them
    /// by itself.
    pub malformed: Option<usize>,
    /// With this batch everything that decides was told at least once. Before that nobody is
    /// answered: a grant that was not read yet would look like one that is not there.
    pub complete: bool,
}

/// An identity with the time since when we know it.
#[derive(Clone, Debug)]
pub struct KnownIdentity {
    /// The identity.
    pub facts: Arc<IdentityFacts>,
    /// When this agent first saw it with this client id (since the epoch).
    pub first_seen: Duration,
}

/// The objects.
#[derive(Debug, Default)]
pub struct World {
    pods: BTreeMap<ObjectName, Arc<PodFacts>>,
    namespaces: HashMap<String, Labels>,
    identities: HashMap<ObjectName, KnownIdentity>,
    /// By namespace: a pod looks at its own and at those its annotation names.
    bindings: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<BindingFacts>>>,
    policies: BTreeMap<Arc<str>, PolicyFacts>,
    exceptions: BTreeMap<Arc<str>, Arc<ExceptionFacts>>,
    assignments: BTreeMap<Arc<str>, AssignmentFacts>,
}

impl World {
    /// Takes a change in; `now` since the epoch.
    pub fn change(&mut self, change: Change, now: Duration) {
        match change {
            Change::Apply(object) => self.apply(object, now),
            Change::Delete(key) => self.delete(&key),
        }
    }

    fn apply(&mut self, object: Object, now: Duration) {
        match object {
            Object::Pod(pod) => {
                self.pods.insert(pod.name.clone(), Arc::new(pod));
            }
            Object::Namespace(name, labels) => {
                self.namespaces.insert(name, labels);
            }
            Object::Identity(facts) => {
                let same = self.identities.get(&facts.name).filter(|known| {
                    known.facts.client_id == facts.client_id && known.facts.uid == facts.uid
                });
                let first_seen = same.map_or(now, |known| known.first_seen);
                let known = KnownIdentity {
                    first_seen,
                    facts: Arc::new(facts),
                };
                self.identities.insert(known.facts.name.clone(), known);
            }
            Object::Binding(binding) => {
                let of_namespace = self
                    .bindings
                    .entry(binding.name.namespace.clone())
                    .or_default();
                of_namespace.insert(binding.name.name.clone(), Arc::new(binding));
            }
            Object::Policy(policy) => {
                self.policies.insert(policy.name.clone(), policy);
            }
            Object::Exception(exception) => {
                self.exceptions
                    .insert(exception.name.clone(), Arc::new(exception));
            }
            Object::Assignment(assignment) => {
                self.assignments.insert(assignment.name.clone(), assignment);
            }
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        match key.kind {
            "Pod" => drop(self.pods.remove(&key.name)),
            "Namespace" => drop(self.namespaces.remove(&*key.name.name)),
            "AzureIdentity" => drop(self.identities.remove(&key.name)),
            "AzureIdentityBinding" => {
                if let Some(of_namespace) = self.bindings.get_mut(&key.name.namespace) {
                    of_namespace.remove(&key.name.name);
                }
            }
            "AzureIdentityPolicy" => drop(self.policies.remove(&key.name.name)),
            "AzureAssignment" => drop(self.assignments.remove(&key.name.name)),
            _ => drop(self.exceptions.remove(&key.name.name)),
        }
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodFacts>> {
        self.pods.values()
    }

    /// A namespace's labels; `None` while it is not known. Such a namespace matches no selector:
    /// `NotIn` and `DoesNotExist` must not hold because labels are missing on our side.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// An identity.
    #[must_use]
    pub fn identity(&self, name: &ObjectName) -> Option<&KnownIdentity> {
        self.identities.get(name)
    }

    /// All identities, in no order.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<IdentityFacts>> {
        self.identities.values().map(|known| &known.facts)
    }

    /// All namespaces that are known, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &Labels)> {
        self.namespaces
            .iter()
            .map(|(name, labels)| (name.as_str(), labels))
    }

    /// The bindings of all namespaces, in no order of namespaces.
    pub fn all_bindings(&self) -> impl Iterator<Item = &Arc<BindingFacts>> {
        self.bindings.values().flat_map(BTreeMap::values)
    }

    /// The bindings of a namespace, by name.
    pub fn bindings(&self, namespace: &str) -> impl Iterator<Item = &Arc<BindingFacts>> {
        self.bindings
            .get(namespace)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// The policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyFacts> {
        self.policies.values()
    }

    /// The exceptions, by name.
    pub fn exceptions(&self) -> impl Iterator<Item = &Arc<ExceptionFacts>> {
        self.exceptions.values()
    }

    /// How many bindings there are.
    #[must_use]
    pub fn binding_count(&self) -> usize {
        self.bindings.values().map(BTreeMap::len).sum()
    }
}
