//! What bindings and pods want of each compute resource: the values that desire works out and plan
//! works with. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::compute::Compute;
use crate::model::ids::{ArmId, ObjectName};

/// What is wanted of one compute resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputeDesire {
    /// Which.
    pub compute: Arc<Compute>,
    /// How many nodes it is; 0: all of them are gone, and what is left in its record is to go, too.
    pub nodes: usize,
    /// The identities that pods of its nodes may use, by ARM id.
    pub wanted: BTreeMap<ArmId, Want>,
}

/// One identity that is wanted somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// How many pods (by UID) may use it there.
    pub pods: usize,
    /// The `AzureIdentity`s that name it.
    pub identities: BTreeSet<ObjectName>,
}
