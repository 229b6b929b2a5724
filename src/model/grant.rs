//! What selection decided: which identity, by which binding and policy. It feeds the cache key,
//! the audit line and `explain`.

use std::sync::Arc;
use std::time::Duration;

use super::facts::{IdentityFacts, PolicyScope};
use super::ids::ObjectName;

/// An identity that a pod may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which identity.
    pub identity: Arc<IdentityFacts>,
    /// The binding that grants it.
    pub binding: ObjectName,
    /// Whether that binding is marked default.
    pub default: bool,
    /// The limits of the policies that admit it: obtain holds the token's claims against them.
    pub scopes: Arc<[Arc<PolicyScope>]>,
    /// When this agent first saw the identity (since the epoch): Azure may need minutes from then on.
    pub first_seen: Duration,
}

/// Who asks, for limits and eviction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asker(pub Arc<str>);
