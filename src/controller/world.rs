//! What was observed in Kubernetes, as values: pods, nodes, namespaces and our kinds. No IO; changed
//! by [`Change`]s only, whatever they were read from.
//!
//! Of a pod the few fields that decide are kept, with labels shared between the pods of one template:
//! the controller knows every pod of the cluster.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::api::Malformed;
use crate::api::assignment::AzureAssignment;
use crate::api::identity::{AzureIdentityStatus, Stated};
use crate::api::kind::Kind;
use crate::model::compute::{Compute, NoCompute};
use crate::model::facts::{BindingFacts, ExceptionFacts, Labels, PolicyFacts};
use crate::model::ids::ObjectName;

/// A live pod that was given a node and has an address of its own. Others need no identity on a
/// compute resource: pending pods run nowhere yet, ended ones never again, and host-network pods
/// only where agents tell them apart from their node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's UID: another pod of the same name is another pod.
    pub uid: Arc<str>,
    /// Name of its node.
    pub node: Arc<str>,
    /// Its service account.
    pub account: Arc<str>,
    /// `metadata.labels`.
    pub labels: Arc<Labels>,
    /// The annotation `lanyard.dev/identity`, split at commas; `None` when absent.
    pub wanted: Option<Arc<[String]>>,
}

/// A node, by what its `spec.providerID` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its UID, for Events.
    pub uid: Arc<str>,
    /// The virtual machine or scale set behind it; nothing is assigned where there is none.
    pub compute: Result<Arc<Compute>, NoCompute>,
}

/// What every object of ours has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace (empty for cluster kinds) and name.
    pub name: Option<ObjectName>,
    /// Object UID.
    pub uid: Arc<str>,
    /// `metadata.generation`: changes with the spec and nothing else.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub version: Arc<str>,
    /// Whether it is being deleted and finalizers hold it.
    pub deleting: bool,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// `metadata.ownerReferences`, their UIDs.
    pub owners: Vec<Arc<str>>,
}

/// An object of ours: what it says, or why that cannot be used. A malformed one is reported on
/// itself and harms no other.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<Spec, Status = ()> {
    /// Its metadata.
    pub meta: Meta,
    /// Its spec.
    pub said: Result<Spec, Malformed>,
    /// Its status, as the API server has it.
    pub status: Status,
}

/// An `AzureIdentity`.
pub type SeenIdentity = Seen<Arc<Stated>, Option<Arc<AzureIdentityStatus>>>;

/// One object as it is now; `None` where it is gone.
#[derive(Clone, Debug)]
pub enum Change {
    /// A pod; `None` also where it does not count (see [`Pod`]).
    Pod(ObjectName, Option<Pod>),
    /// A node.
    Node(Arc<str>, Option<Node>),
    /// A namespace's labels.
    Namespace(Arc<str>, Option<Arc<Labels>>),
    /// An `AzureIdentity`.
    Identity(ObjectName, Option<Arc<SeenIdentity>>),
    /// An `AzureIdentityBinding`; its status' conditions are the report's.
    Binding(ObjectName, Option<Arc<Seen<BindingFacts>>>),
    /// An `AzureIdentityPolicy`.
    Policy(Arc<str>, Option<Arc<Seen<PolicyFacts>>>),
    /// An `AzureMetadataException`.
    Exception(Arc<str>, Option<Arc<Seen<ExceptionFacts>>>),
    /// An `AzureAssignment`, whole.
    Assignment(Arc<str>, Option<Arc<AzureAssignment>>),
}

/// Changes that were observed together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// With this batch everything was told at least once: before that nothing is planned, since what
    /// was not read yet would look like something that is not wanted.
    pub complete: bool,
}

/// All that was observed.
#[derive(Debug, Default)]
pub struct World {
    /// Pods that count.
    pub pods: HashMap<ObjectName, Pod>,
    /// Nodes.
    pub nodes: HashMap<Arc<str>, Node>,
    /// Labels of namespaces.
    pub namespaces: HashMap<Arc<str>, Arc<Labels>>,
    /// Identities.
    pub identities: BTreeMap<ObjectName, Arc<SeenIdentity>>,
    /// Bindings, by namespace and name.
    pub bindings: BTreeMap<ObjectName, Arc<Seen<BindingFacts>>>,
    /// Policies.
    pub policies: BTreeMap<Arc<str>, Arc<Seen<PolicyFacts>>>,
    /// Exceptions: the controller only reports on them.
    pub exceptions: BTreeMap<Arc<str>, Arc<Seen<ExceptionFacts>>>,
    /// Assignments as the API server has them.
    pub assignments: BTreeMap<Arc<str>, Arc<AzureAssignment>>,
}

/// Which kind a change is about, for what must be worked out again.
impl Change {
    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Pod(..) => Kind::Pods,
            Self::Node(..) => Kind::Nodes,
            Self::Namespace(..) => Kind::Namespaces,
            Self::Identity(..) => Kind::Identities,
            Self::Binding(..) => Kind::Bindings,
            Self::Policy(..) => Kind::Policies,
            Self::Exception(..) => Kind::Exceptions,
            Self::Assignment(..) => Kind::Assignments,
        }
    }
}

impl World {
    /// Takes a change in.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Pod(name, pod) => put(&mut self.pods, name, pod),
            Change::Node(name, node) => put(&mut self.nodes, name, node),
            Change::Namespace(name, labels) => put(&mut self.namespaces, name, labels),
            Change::Identity(name, seen) => place(&mut self.identities, name, seen),
            Change::Binding(name, seen) => place(&mut self.bindings, name, seen),
            Change::Policy(name, seen) => place(&mut self.policies, name, seen),
            Change::Exception(name, seen) => place(&mut self.exceptions, name, seen),
            Change::Assignment(name, seen) => place(&mut self.assignments, name, seen),
        }
    }

    /// The bindings of one namespace, by name.
    pub fn bindings_of(&self, namespace: &str) -> impl Iterator<Item = &Arc<Seen<BindingFacts>>> {
        let from = ObjectName::new(namespace, "");
        let all = self.bindings.range(from..);
        all.take_while(move |(name, _)| *name.namespace == *namespace)
            .map(|(_, seen)| seen)
    }
}

fn put<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn place<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
