//! What `lanyard uninstall --cluster` and the agents say to each other: a `ConfigMap`, the marker, asks
//! every agent to remove its rules; in a second one each writes its answer under its node's name.
//!
//! Both ends take the names and words from here: an answer that the other side does not know would
//! count as silence.

/// How an acknowledgement begins; anything else is a reason why not.
pub const REMOVED: &str = "removed";

/// The name of the `ConfigMap` with the acknowledgements, by the marker's.
#[must_use]
pub fn acks_name(marker: &str) -> String {
    format!("{marker}-acks")
}

/// The marker's key that says what is to become of managed identities: [`RETAIN`] or [`DELETE`].
pub const MANAGED_IDENTITIES: &str = "managedIdentities";

/// They stay in Azure, and nothing holds their objects any more.
pub const RETAIN: &str = "retain";

/// They are removed from Azure.
pub const DELETE: &str = "delete";

/// What holds an `AzureIdentity` with `spec.managed` until its identity is gone from Azure.
pub const FINALIZER: &str = "lanyard.dev/managed-identity";
