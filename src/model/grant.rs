//! What selection decided: which identity, by which binding and policy. It feeds the cache key,
//! the audit line and `explain`.

use std::sync::Arc;
use std::time::Duration;

use super::facts::{IdentityFacts, PodFacts, PolicyScope};
use super::ids::ObjectName;

/// An identity that a pod may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which identity.
    pub identity: Arc<IdentityFacts>,
    /// The binding that grants it; of a service account's own identity its name again.
    pub binding: ObjectName,
    /// Whether that binding is marked default.
    pub default: bool,
    /// The limits of the policies that admit it: obtain holds the token's claims against them.
    pub scopes: Arc<[Arc<PolicyScope>]>,
    /// When this agent first saw the identity (since the epoch): Azure may need minutes from then on.
    pub first_seen: Duration,
}

/// Who asks: for limits and eviction, and for credentials that are the pod's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The pod's UID.
    pub uid: Arc<str>,
    /// Its namespace and name.
    pub pod: ObjectName,
    /// Its service account.
    pub service_account: Arc<str>,
}

impl From<&PodFacts> for Asker {
    fn from(pod: &PodFacts) -> Self {
        Self {
            uid: pod.uid.clone(),
            pod: pod.name.clone(),
            service_account: pod.service_account.clone(),
        }
    }
}
