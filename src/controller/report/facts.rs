//! What the report is made of, as borrowed values. No IO.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::controller::board::{Board, Told};
use crate::controller::desire::Ledger;
use crate::controller::known::Existence;
use crate::controller::record::Entry;
use crate::controller::world::World;
use crate::model::ids::ArmId;

/// All that the report is made of.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    /// What was observed.
    pub world: &'a World,
    /// What is wanted.
    pub ledger: &'a Ledger,
    /// How far managed identities are.
    pub board: &'a Board,
    /// How far compute resources are.
    pub computes: &'a BTreeMap<ArmId, Told>,
    /// What is known of identities.
    pub existences: &'a BTreeMap<ArmId, Existence>,
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
