//! What a pod asks for.

use super::ids::{ArmId, Guid};

/// The identity that a request names, if any. At most one; compared as Azure compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// No selector: the pod's default identity.
    Default,
    /// `client_id`.
    ClientId(Guid),
    /// `object_id` or `principal_id`.
    ObjectId(Guid),
    /// `msi_res_id`, `mi_res_id` or `resource_id`.
    ResourceId(ArmId),
    /// A selector whose value is no GUID or ARM id: it can match nothing.
    Unmatchable,
}

/// A token request, after the wire's rules were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenQuery {
    /// The audience asked for, byte for byte after URL decoding.
    pub resource: String,
    /// Which identity.
    pub selector: Selector,
}
