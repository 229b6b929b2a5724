//! The names of what changed, collected over a batch: each is looked at once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::controller::world::{Change, World};
use crate::model::ids::ObjectName;

/// What changed in the world since the ledger saw it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pods.
    pub pods: HashSet<ObjectName>,
    /// Nodes.
    pub nodes: HashSet<Arc<str>>,
    /// Namespaces' labels.
    pub namespaces: HashSet<Arc<str>>,
    /// `AzureIdentity`s.
    pub identities: HashSet<ObjectName>,
    /// `AzureIdentityBinding`s.
    pub bindings: HashSet<ObjectName>,
    /// Any `AzureIdentityPolicy`.
    pub policies: bool,
}

impl Touched {
    /// Everything that a world has, for a ledger that is new.
    #[must_use]
    pub fn all(world: &World) -> Self {
        Self {
            pods: world.pods.keys().cloned().collect(),
            nodes: world.nodes.keys().cloned().collect(),
            namespaces: world.namespaces.keys().cloned().collect(),
            identities: world.identities.keys().cloned().collect(),
            bindings: world.bindings.keys().cloned().collect(),
            policies: true,
        }
    }

    /// Notes a change. Exceptions and assignments bear on no desire.
    pub fn note(&mut self, change: &Change) {
        match change {
            Change::Pod(name, _) => drop(self.pods.insert(name.clone())),
            Change::Node(name, _) => drop(self.nodes.insert(name.clone())),
            Change::Namespace(name, _) => drop(self.namespaces.insert(name.clone())),
            Change::Identity(name, _) => drop(self.identities.insert(name.clone())),
            Change::Binding(name, _) => drop(self.bindings.insert(name.clone())),
            Change::Policy(..) => self.policies = true,
            Change::Exception(..) | Change::Assignment(..) => {}
        }
    }

    /// Whether nothing changed that bears on a desire.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
