//! What Azure was last heard to say, with the time of reading: of compute resources and of identities.
//! Values only; times are durations since the Unix epoch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::azure::arm::{ComputeShown, IdentityShown};
use crate::model::ids::{ArmId, Guid};

/// What ARM showed of a compute resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// When it was read.
    pub at: Duration,
    /// Its identities with the principals that they had when they were assigned.
    pub identities: BTreeMap<ArmId, Option<Guid>>,
}

impl Shown {
    /// What was read at this time.
    #[must_use]
    pub fn of(read: &ComputeShown, at: Duration) -> Self {
        let identities = read.identities.iter();
        Self {
            at,
            identities: identities
                .map(|(id, principal)| (id.clone(), principal.principal_id))
                .collect(),
        }
    }
}

/// What is known of an identity itself (not of where it is assigned).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Existence {
    /// Nobody asked yet, or nobody could: it is taken to exist.
    #[default]
    Unknown,
    /// It exists.
    Exists {
        /// Client id.
        client_id: Option<Guid>,
        /// Object (principal) id: another one is another identity of the same name.
        principal_id: Option<Guid>,
        /// Its tenant.
        tenant_id: Option<Guid>,
    },
    /// There is none of that id.
    Missing,
}

impl Existence {
    /// That of an identity that was read.
    #[must_use]
    pub const fn of(read: &IdentityShown) -> Self {
        Self::Exists {
            client_id: read.client_id,
            principal_id: read.principal_id,
            tenant_id: read.tenant_id,
        }
    }
}

/// Why an identity is set aside on a compute resource, and until when: the others go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// How often in a row.
    pub failures: u32,
    /// Not before this it is tried again.
    pub until: Duration,
    /// One word, for example `LinkedAuthorizationFailed`.
    pub reason: Arc<str>,
    /// Azure's words and the way out.
    pub message: Arc<str>,
}
