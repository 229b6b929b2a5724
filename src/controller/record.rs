//! What an `AzureAssignment` says, as values: intent and ownership (its spec), and what became of it
//! (its status). The record is written before Azure is asked, so that a crash loses no ownership.
//! Times are durations since the Unix epoch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::assignment::AssignmentState;
use crate::model::ids::{ArmId, Guid};

/// The record of one compute resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its identities.
    pub entries: BTreeMap<ArmId, Entry>,
}

/// One identity of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whether Lanyard added it, or is about to: only such a one is ever removed.
    pub owned: bool,
    /// Whether it stays for ever.
    pub immutable: bool,
    /// Since no pod wants it: when it goes.
    pub remove_after: Option<Duration>,
    /// How far it is.
    pub state: AssignmentState,
    /// Since when it is in this state.
    pub since: Duration,
    /// Its client id, as the compute resource or the identity itself tells it.
    pub client_id: Option<Guid>,
    /// Its principal id, as the compute resource has it.
    pub principal_id: Option<Guid>,
    /// Why, in one word; only where there is something to say.
    pub reason: Option<Arc<str>>,
    /// Why in Azure's or our words, and what to do.
    pub message: Option<Arc<str>>,
}
