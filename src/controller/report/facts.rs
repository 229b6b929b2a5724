//! What the report is made of, as borrowed values. No IO.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::controller::board::{Told, Trouble};
use crate::controller::known::Existence;
use crate::controller::managed::ManagedOutcome;
use crate::controller::record::Entry;
use crate::controller::world::World;
use crate::model::ids::{ArmId, ObjectName};

/// Why an identity is assigned nowhere, whatever pods may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No policy admits it for its namespace.
    NoPolicy,
    /// It states no ARM id, and only that can be assigned.
    NoResourceId,
    /// Its tokens do not come from the node's IMDS: nothing needs to be assigned.
    NotByImds,
    /// The object is being deleted.
    Deleting,
}

/// What pods want of one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// How many pods may use it.
    pub pods: usize,
    /// How many of them are on each compute resource; the rest is on nodes that have none.
    pub computes: BTreeMap<ArmId, usize>,
    /// Why it is assigned nowhere.
    pub refusal: Option<Refusal>,
}

/// What desire knows, object by object.
pub trait Demand {
    /// How many pods a binding's subjects match.
    fn matched_pods(&self, binding: &ObjectName) -> usize;
    /// What pods want of an identity.
    fn used(&self, identity: &ObjectName) -> Used;
}

/// All that the report is made of.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// What was observed.
    pub world: &'a World,
    /// What is wanted.
    pub demand: &'a dyn Demand,
    /// How far compute resources are.
    pub computes: &'a BTreeMap<ArmId, Told>,
    /// What is known of identities.
    pub existences: &'a BTreeMap<ArmId, Existence>,
    /// Why Azure could not be asked about an identity.
    pub troubles: &'a BTreeMap<ArmId, Trouble>,
    /// What became of managed identities, by the object's UID.
    pub managed: &'a BTreeMap<Arc<str>, ManagedOutcome>,
}

/// What is looked up many times in one report.
pub(super) struct Index<'a> {
    /// Nodes of each compute resource.
    pub nodes: HashMap<&'a ArmId, usize>,
    /// Names of nodes that are no compute resource of Azure's, in order.
    pub strangers: Vec<&'a Arc<str>>,
    /// Where an identity has an entry.
    pub entries: HashMap<&'a ArmId, Vec<(&'a Told, &'a Entry)>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(facts: &Facts<'a>) -> Self {
        let mut nodes: HashMap<&ArmId, usize> = HashMap::new();
        let mut strangers = Vec::new();
        for (name, node) in &facts.world.nodes {
            match &node.compute {
                Ok(compute) => *nodes.entry(&compute.id).or_default() += 1,
                Err(_) => strangers.push(name),
            }
        }
        strangers.sort();
        let mut entries: HashMap<&ArmId, Vec<(&Told, &Entry)>> = HashMap::new();
        for told in facts.computes.values() {
            for (id, entry) in &told.record.entries {
                entries.entry(id).or_default().push((told, entry));
            }
        }
        Self {
            nodes,
            strangers,
            entries,
        }
    }
}
