//! How far an identity is on the compute resources that are to have it. Pure.

use std::collections::BTreeMap;

use super::facts::Index;
use crate::api::assignment::AssignmentState;
use crate::controller::board::Told;
use crate::controller::desire::Use;
use crate::controller::record::Entry;
use crate::model::ids::ArmId;

/// Names of `AzureAssignment`s in a status.
const NAMED: usize = 32;

/// How far an identity is.
#[derive(Debug, Default)]
pub(super) struct Reach<'a> {
    /// Nodes that are to have it.
    pub wanted: usize,
    /// Those of them that have it.
    pub assigned: usize,
    /// Names of the `AzureAssignment`s where it is Assigned, also where no pod wants it any more.
    pub assigned_to: Vec<String>,
    /// Where it Failed.
    pub failed: Vec<(&'a Told, &'a Entry)>,
    /// Where it is on its way and something was told.
    pub pending: Vec<(&'a Told, Option<&'a Entry>)>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(
        resource: Option<&ArmId>,
        used: &Use,
        index: &Index<'a>,
        computes: &'a BTreeMap<ArmId, Told>,
    ) -> Self {
        let mut reach = Self::default();
        let entries = resource.and_then(|id| index.entries.get(id));
        let entries = entries.map(Vec::as_slice).unwrap_or_default();
        for (told, entry) in entries {
            if entry.state == AssignmentState::Assigned {
                reach.assigned_to.push(told.compute.assignment_name());
            }
        }
        reach.assigned_to.sort();
        reach.assigned_to.truncate(NAMED);
        let wanted = used.computes.keys().filter(|_| used.refusal.is_none());
        for compute in wanted {
            let nodes = index.nodes.get(compute).copied().unwrap_or_default();
            reach.wanted += nodes;
            let here = entries.iter().find(|(told, _)| told.compute.id == *compute);
            match here {
                Some((_, entry)) if entry.state == AssignmentState::Assigned => {
                    reach.assigned += nodes;
                }
                Some((told, entry)) if entry.state == AssignmentState::Failed => {
                    reach.failed.push((told, entry));
                }
                Some((told, entry)) => reach.pending.push((told, Some(entry))),
                None => {
                    let told = computes.get(compute);
                    reach.pending.extend(told.map(|told| (told, None)));
                }
            }
        }
        reach
    }

    /// `on 3 of 5 nodes`.
    pub(super) fn words(&self) -> String {
        let nodes = if self.wanted == 1 { "node" } else { "nodes" };
        format!("on {} of {} {nodes}", self.assigned, self.wanted)
    }
}
