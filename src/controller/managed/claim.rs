//! What Kubernetes says about one `AzureIdentity` with `spec.managed`: all that decides about the
//! identity's life, as a value.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::managed::ManagedIdentity;
use crate::model::ids::ObjectName;

/// An `AzureIdentity` with `spec.managed`, and what else in the cluster bears on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with a meaning of its own"
)]
pub struct Claim {
    /// Namespace and name.
    pub name: ObjectName,
    /// Object UID: in the identity's name.
    pub uid: Arc<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`, as a number.
    pub version: u64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether our finalizer holds it.
    pub held: bool,
    /// UIDs of what it goes with.
    pub owners: Vec<Arc<str>>,
    /// What it says; or why that cannot be used, in words.
    pub spec: Result<Arc<ManagedIdentity>, Arc<str>>,
    /// Whether its tokens come from the exchange of service-account tokens at Entra ID.
    pub federated: bool,
    /// Whether a policy lets its namespace have identities in its resource group.
    pub admitted: bool,
    /// The service accounts that bindings name.
    pub accounts: BTreeSet<ObjectName>,
    /// Compute resources that still have it, by their `AzureAssignment`s; only while it is to go.
    pub assigned: BTreeSet<Arc<str>>,
}

/// What we wrote into the object ourselves: it counts until the watch shows that version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version that our write made.
    pub version: u64,
    /// Whether our finalizer holds it.
    pub held: bool,
    /// UIDs of what it goes with.
    pub owners: Vec<Arc<str>>,
}

/// Whether Lanyard stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    #[default]
    Serve,
    /// It is being removed from the cluster: identities stay in Azure, nothing holds their objects.
    Retain,
    /// It is being removed from the cluster, and the identities with it.
    Delete,
}

impl Claim {
    /// With what we wrote, as long as this is older.
    #[must_use]
    pub fn with(mut self, written: Option<&Written>) -> Self {
        if let Some(written) = written.filter(|written| written.version > self.version) {
            self.held = written.held;
            self.owners.clone_from(&written.owners);
        }
        self
    }

    /// Whether it differs from an earlier one in what a refusal may have been about.
    #[must_use]
    pub fn is_news(&self, before: &Self) -> bool {
        self.generation != before.generation
            || self.deleting != before.deleting
            || self.admitted != before.admitted
    }
}
