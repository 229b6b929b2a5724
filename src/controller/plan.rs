//! Desire × record × what Azure shows → what to write down and what to ask of Azure. Pure: the plan is
//! a value that `--dry-run` prints and tests compare.
//!
//! Holds invariant 8: one PATCH for all changes of a compute resource; what Lanyard did not add and
//! what is `immutable` is never removed; removal waits for its grace time; nothing is asked that
//! Azure has already.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desired::ComputeDesire;
use super::known::{Existence, Setback, Shown};
use super::record::Record;
use crate::model::ids::ArmId;

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
}

/// Changes of a compute resource's identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// To add.
    pub add: BTreeSet<ArmId>,
    /// To remove. An identity that was created anew is removed first and added by the next plan.
    pub remove: BTreeSet<ArmId>,
}
