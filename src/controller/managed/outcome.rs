//! What became of a managed identity, for the `AzureIdentity`'s status.

use std::sync::Arc;

use crate::controller::known::Existence;
use crate::model::ids::ArmId;

/// How far an identity is that Lanyard is to create or to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedOutcome {
    /// UID of the `AzureIdentity` that this is about.
    pub uid: Arc<str>,
    /// The generation of its spec that this is about.
    pub generation: i64,
    /// The identity's ARM id, once it exists. `None` with [`Existence::Unknown`]: nothing was heard, what
    /// the status says stands; with [`Existence::Missing`]: it has none.
    pub resource_id: Option<ArmId>,
    /// Its ids.
    pub existence: Existence,
    /// Whether all is as the spec says.
    pub ready: bool,
    /// One word, for example `GroupNotAllowed`.
    pub reason: Arc<str>,
    /// What is missing, and what to do about it.
    pub message: Arc<str>,
}
