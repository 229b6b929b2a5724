//! All objects that decide, indexed the way grants are worked out: one value, no IO. Apply, delete
//! and nothing else changes it, so that a folder and the Kubernetes API fill it alike.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::touched::Touched;
use crate::api::is_enforced;
use crate::api::kind::Kind;
use crate::api::object::{Object, ObjectKey};
use crate::model::account::AccountFacts;
use crate::model::facts::{
    AssignmentFacts, BindingFacts, ExceptionFacts, IdentityFacts, Labels, NodeAssignments,
    PodFacts, PolicyFacts,
};
use crate::model::ids::ObjectName;

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is there, like this.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectKey),
    /// Assignments count, and the `AzureAssignment` of this name is this node's.
    Compute(Arc<str>),
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

impl KnownIdentity {
    /// Whether these facts are about the same identity.
    fn is_same(&self, facts: &IdentityFacts) -> bool {
        self.facts.client_id == facts.client_id && self.facts.uid == facts.uid
    }
}

/// A service account that names an identity.
#[derive(Clone, Debug)]
pub struct KnownAccount {
    /// The account.
    pub facts: AccountFacts,
    /// The identity that it names.
    pub identity: KnownIdentity,
}

/// The objects.
#[derive(Debug, Default)]
pub struct World {
    pods: BTreeMap<ObjectName, Arc<PodFacts>>,
    namespaces: HashMap<String, Labels>,
    identities: HashMap<ObjectName, KnownIdentity>,
    /// Service accounts, only those that name an identity.
    accounts: HashMap<ObjectName, KnownAccount>,
    /// By namespace: a pod looks at its own and at those its annotation names.
    bindings: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<BindingFacts>>>,
    policies: BTreeMap<Arc<str>, PolicyFacts>,
    exceptions: BTreeMap<Arc<str>, Arc<ExceptionFacts>>,
    assignments: BTreeMap<Arc<str>, Arc<AssignmentFacts>>,
    /// The name of this node's `AzureAssignment`, where assignments count.
    compute: Option<Arc<str>>,
}

impl World {
    /// Takes a change in, at `now` (since the epoch), and notes what it may bear on: nothing where the
    /// object is as it was.
    pub fn change(&mut self, change: Change, now: Duration, touched: &mut Touched) {
        match change {
            Change::Apply(object) => self.apply(object, now, touched),
            Change::Delete(key) => self.delete(&key, touched),
            Change::Compute(name) => {
                touched.beside_grants |= self.compute.as_ref() != Some(&name);
                self.compute = Some(name);
            }
        }
    }

    fn apply(&mut self, object: Object, now: Duration, touched: &mut Touched) {
        match object {
            Object::Pod(pod) => {
                if self
                    .pods
                    .get(&pod.name)
                    .is_none_or(|before| **before != pod)
                {
                    touched.pods.insert(pod.name.clone());
                    self.pods.insert(pod.name.clone(), Arc::new(pod));
                }
            }
            Object::Namespace(name, labels) => {
                let before = self.namespaces.get(&name);
                if before != Some(&labels) {
                    touched.beside_grants |=
                        before.is_some_and(is_enforced) != is_enforced(&labels);
                    touched.namespaces.insert(name.as_str().into());
                    self.namespaces.insert(name, labels);
                }
            }
            Object::Identity(facts) => self.apply_identity(facts, now, touched),
            Object::ServiceAccount(facts) => self.apply_account(facts, now, touched),
            Object::Binding(binding) => {
                let namespace = &binding.name.namespace;
                let of_namespace = self.bindings.entry(namespace.clone()).or_default();
                let before = of_namespace.get(&binding.name.name);
                if before.is_none_or(|before| **before != binding) {
                    touched.namespaces.insert(namespace.clone());
                    of_namespace.insert(binding.name.name.clone(), Arc::new(binding));
                }
            }
            Object::Policy(policy) => {
                if self.policies.get(&policy.name) != Some(&policy) {
                    touched.everything = true;
                    self.policies.insert(policy.name.clone(), policy);
                }
            }
            Object::Exception(exception) => {
                let before = self.exceptions.get(&exception.name);
                if before.is_none_or(|before| **before != exception) {
                    touched.beside_grants = true;
                    self.exceptions
                        .insert(exception.name.clone(), Arc::new(exception));
                }
            }
            Object::Assignment(assignment) => {
                let before = self.assignments.get(&assignment.name);
                if before.is_none_or(|before| **before != assignment) {
                    touched.beside_grants = true;
                    self.assignments
                        .insert(assignment.name.clone(), Arc::new(assignment));
                }
            }
        }
    }

    fn apply_identity(&mut self, facts: IdentityFacts, now: Duration, touched: &mut Touched) {
        let before = self.identities.get(&facts.name);
        if before.is_some_and(|before| *before.facts == facts) {
            return;
        }
        touched.namespaces.insert(facts.name.namespace.clone());
        let same = before.filter(|known| known.is_same(&facts));
        let known = KnownIdentity {
            first_seen: same.map_or(now, |known| known.first_seen),
            facts: Arc::new(facts),
        };
        self.identities.insert(known.facts.name.clone(), known);
    }

    fn apply_account(&mut self, facts: AccountFacts, now: Duration, touched: &mut Touched) {
        let before = self.accounts.get(&facts.name);
        if before.is_some_and(|before| before.facts == facts) {
            return;
        }
        touched.namespaces.insert(facts.name.namespace.clone());
        let identity = facts.identity();
        let same = before.filter(|known| known.identity.is_same(&identity));
        let identity = KnownIdentity {
            first_seen: same.map_or(now, |known| known.identity.first_seen),
            facts: Arc::new(identity),
        };
        let known = KnownAccount { facts, identity };
        self.accounts.insert(known.facts.name.clone(), known);
    }

    fn delete(&mut self, key: &ObjectKey, touched: &mut Touched) {
        let ObjectName { namespace, name } = &key.name;
        match key.kind {
            Kind::Pods => {
                if self.pods.remove(&key.name).is_some() {
                    touched.pods.insert(key.name.clone());
                }
            }
            Kind::Namespaces => {
                if let Some(labels) = self.namespaces.remove(&**name) {
                    touched.beside_grants |= is_enforced(&labels);
                    touched.namespaces.insert(name.clone());
                }
            }
            Kind::Identities => {
                if self.identities.remove(&key.name).is_some() {
                    touched.namespaces.insert(namespace.clone());
                }
            }
            Kind::ServiceAccounts => {
                if self.accounts.remove(&key.name).is_some() {
                    touched.namespaces.insert(namespace.clone());
                }
            }
            Kind::Bindings => {
                let Some(of_namespace) = self.bindings.get_mut(namespace) else {
                    return;
                };
                if of_namespace.remove(name).is_some() {
                    touched.namespaces.insert(namespace.clone());
                }
                if of_namespace.is_empty() {
                    self.bindings.remove(namespace);
                }
            }
            Kind::Policies => touched.everything |= self.policies.remove(name).is_some(),
            Kind::Assignments => touched.beside_grants |= self.assignments.remove(name).is_some(),
            Kind::Exceptions => touched.beside_grants |= self.exceptions.remove(name).is_some(),
            // The controller's: an agent knows its own node by name.
            Kind::Nodes => {}
        }
    }

    /// Takes over since when identities are known that an earlier state has, too.
    pub fn remember_first_sight(&mut self, earlier: &Self) {
        for known in self.identities.values_mut() {
            let before = earlier.identities.get(&known.facts.name);
            if let Some(before) = before.filter(|before| before.is_same(&known.facts)) {
                known.first_seen = known.first_seen.min(before.first_seen);
            }
        }
        for account in self.accounts.values_mut() {
            let known = &mut account.identity;
            let before = earlier.account(&account.facts.name);
            let before = before.map(|before| &before.identity);
            if let Some(before) = before.filter(|before| before.is_same(&known.facts)) {
                known.first_seen = known.first_seen.min(before.first_seen);
            }
        }
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Arc<PodFacts>> {
        self.pods.get(name)
    }

    /// The identities of a namespace, with the time since when they are known.
    pub fn known_identities(&self, namespace: &str) -> impl Iterator<Item = &KnownIdentity> {
        let all = self.identities.values();
        all.filter(move |known| *known.facts.name.namespace == *namespace)
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

    /// A service account that names an identity.
    #[must_use]
    pub fn account(&self, name: &ObjectName) -> Option<&KnownAccount> {
        self.accounts.get(name)
    }

    /// All identities, in no order.
    pub fn all_identities(&self) -> impl Iterator<Item = &Arc<IdentityFacts>> {
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

    /// The assignments to this node.
    #[must_use]
    pub fn assignments(&self) -> NodeAssignments {
        self.own_assignment()
            .map_or(NodeAssignments::Ignored, |(_, own)| {
                NodeAssignments::Required(own)
            })
    }

    /// Where assignments count: the name of this node's `AzureAssignment`, and what it says.
    #[must_use]
    pub fn own_assignment(&self) -> Option<(Arc<str>, Option<Arc<AssignmentFacts>>)> {
        let own = self.compute.clone()?;
        let facts = self.assignments.get(&own).cloned();
        Some((own, facts))
    }

    /// How many bindings there are.
    #[must_use]
    pub fn binding_count(&self) -> usize {
        self.bindings.values().map(BTreeMap::len).sum()
    }
}
