//! Desire × record × what Azure shows → what to write down and what to ask of Azure. Pure: the plan is
//! a value that `--dry-run` prints and tests compare.
//!
//! Holds invariant 8: one PATCH for all changes of a compute resource; what Lanyard did not add and
//! what is `immutable` is never removed; removal waits for its grace time; nothing is asked that
//! Azure has already.

pub mod identity;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::identity::{Step, unwanted, wanted};
use super::desired::ComputeDesire;
use super::known::{Existence, Setback, Shown};
use super::record::Record;
use crate::model::ids::ArmId;

/// Identities that one record holds, by its schema.
pub const RECORD_LIMIT: usize = 1000;

/// Why a wanted identity is not in the record (see [`Plan::left_out`]).
pub const TOO_MANY: &str = "TooMany";

/// All that a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What is wanted.
    pub desire: &'a ComputeDesire,
    /// Those of the wanted identities, and of the record's, that an `AzureIdentity` says are immutable.
    pub immutable: &'a BTreeSet<ArmId>,
    /// Identities of the record that an `AzureIdentity` says are not immutable (any more).
    pub mutable: &'a BTreeSet<ArmId>,
    /// What was written down.
    pub record: &'a Record,
    /// What ARM shows; `None`: it was not read yet, or is too old.
    pub shown: Option<&'a Shown>,
    /// What is known of the identities; what is not there is unknown.
    pub existence: &'a BTreeMap<ArmId, Existence>,
    /// Identities that are set aside here.
    pub setbacks: &'a BTreeMap<ArmId, Setback>,
    /// How long an identity stays that no pod wants any more.
    pub grace: Duration,
    /// Now.
    pub now: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The compute resource must be read before anything else can be decided; the record is as it was.
    pub read: bool,
    /// The record to write down before the PATCH.
    pub record: Record,
    /// What to ask of Azure, all in one; `None`: nothing.
    pub patch: Option<Patch>,
    /// When to plan again although nothing changes (end of a grace time, of a setback).
    pub again: Option<Duration>,
    /// Wanted, but the record has no room for them ([`RECORD_LIMIT`], reason [`TOO_MANY`]): nothing
    /// is asked for them until others go.
    pub left_out: BTreeSet<ArmId>,
}

/// Changes of a compute resource's identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// To add.
    pub add: BTreeSet<ArmId>,
    /// To remove. An identity that was created anew is removed first and added by the next plan.
    pub remove: BTreeSet<ArmId>,
}

impl Patch {
    /// The changes in parts of at most `limit` identities, for one request each. What goes comes
    /// first, so that a compute resource at Azure's limit has room for what comes.
    #[must_use]
    pub fn chunks(&self, limit: usize) -> Vec<Self> {
        let removals = self.remove.iter().map(|id| (id, false));
        let additions = self.add.iter().map(|id| (id, true));
        let all: Vec<(&ArmId, bool)> = removals.chain(additions).collect();
        let part = |part: &[(&ArmId, bool)]| {
            let those = |add: bool| {
                let those = part.iter().filter(move |(_, adds)| *adds == add);
                those.map(|(id, _)| (*id).clone()).collect()
            };
            Self {
                add: those(true),
                remove: those(false),
            }
        };
        all.chunks(limit.max(1)).map(part).collect()
    }

    /// How many identities it changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.add.len() + self.remove.len()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// Plans.
#[must_use]
pub fn plan(situation: &Situation<'_>) -> Plan {
    let (desire, record) = (situation.desire, situation.record);
    if desire.wanted.is_empty() && record.entries.is_empty() {
        return Plan::default();
    }
    let Some(shown) = situation.shown else {
        return Plan {
            read: true,
            record: record.clone(),
            ..Plan::default()
        };
    };
    let mut plan = Plan::default();
    let mut patch = Patch::default();
    // What was written down stays first: a lost entry is a lost ownership.
    let new = desire.wanted.keys();
    let new = new.filter(|id| !record.entries.contains_key(*id));
    let ids = record.entries.keys().chain(new);
    let (last, first): (Vec<_>, Vec<_>) = ids.partition(|id| is_hopeless(id, shown, situation));
    for (id, yields) in first
        .iter()
        .map(|id| (*id, false))
        .chain(last.iter().map(|id| (*id, true)))
    {
        let before = record.entries.get(id);
        let is_new = before.is_none() || yields;
        if is_new && plan.record.entries.len() >= RECORD_LIMIT {
            plan.left_out.insert(id.clone());
            continue;
        }
        let step = if desire.wanted.contains_key(id) {
            wanted(id, before, shown, situation)
        } else if let Some(before) = before {
            unwanted(id, before, shown, situation)
        } else {
            Step::default()
        };
        if step.add {
            patch.add.insert(id.clone());
        }
        if step.remove {
            patch.remove.insert(id.clone());
        }
        if let Some(again) = step.again {
            plan.again = Some(plan.again.map_or(again, |other| other.min(again)));
        }
        if let Some(entry) = step.entry {
            plan.record.entries.insert(id.clone(), entry);
        }
    }
    plan.patch = (!patch.is_empty()).then_some(patch);
    plan
}

/// What Azure does not have, or refuses, and is not ours here: it takes room that is left. Else whoever
/// names enough identities that do not exist keeps all others off a compute resource.
fn is_hopeless(id: &ArmId, shown: &Shown, situation: &Situation<'_>) -> bool {
    let before = situation.record.entries.get(id);
    let is_there = before.is_some_and(|entry| entry.owned) || shown.identities.contains_key(id);
    let setback = situation.setbacks.get(id);
    let is_refused = situation.existence.get(id) == Some(&Existence::Missing)
        || setback.is_some_and(|setback| setback.until > situation.now);
    !is_there && is_refused
}

#[cfg(test)]
mod tests;
