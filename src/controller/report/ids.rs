//! The ids of an identity for its status: as Azure says, as the spec states, or as they were found out
//! before. Pure.
//!
//! Agents use what the status says where the spec says nothing, so an id is never of another identity:
//! what was found out before counts as long as the ARM id is the same.

use std::str::FromStr;

use super::facts::Facts;
use crate::api::identity::{AzureIdentityStatus, Stated};
use crate::controller::known::Existence;
use crate::controller::managed::ManagedOutcome;
use crate::controller::world::SeenIdentity;
use crate::model::ids::{ArmId, Guid};

/// The ids of an identity, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub resource: Option<ArmId>,
    pub client: Option<Guid>,
    pub principal: Option<Guid>,
    pub tenant: Option<Guid>,
    /// What Azure says of it.
    pub existence: Existence,
}

pub(super) fn ids(
    seen: &SeenIdentity,
    stated: &Stated,
    outcome: Option<&ManagedOutcome>,
    facts: &Facts<'_>,
) -> Ids {
    let before = seen.status.as_deref();
    let resource = match outcome {
        None if stated.managed.is_none() => stated.resource_id.clone(),
        Some(outcome) if outcome.resource_id.is_some() => outcome.resource_id.clone(),
        Some(outcome) if outcome.existence == Existence::Missing => None,
        // Nothing was heard: what the status says stands.
        _ => before.and_then(|before| parsed(before.resource_id.as_ref())),
    };
    let told = outcome.map(|outcome| outcome.existence.clone());
    let told = told.filter(|existence| *existence != Existence::Unknown);
    let asked = || Some(facts.existences.get(resource.as_ref()?)?.clone());
    let existence = told.or_else(asked).unwrap_or_default();
    let same = resource.is_some()
        && before.is_some_and(|before| parsed(before.resource_id.as_ref()) == resource);
    let before = before.filter(|_| same && existence != Existence::Missing);
    let found = found(&existence);
    let kept = |id: fn(&AzureIdentityStatus) -> Option<&String>| {
        before.and_then(|before| parsed::<Guid>(id(before)))
    };
    Ids {
        client: found[0]
            .or(stated.client_id)
            .or_else(|| kept(|before| before.client_id.as_ref())),
        principal: found[1]
            .or(stated.object_id)
            .or_else(|| kept(|before| before.principal_id.as_ref())),
        tenant: found[2]
            .or(stated.tenant_id)
            .or_else(|| kept(|before| before.tenant_id.as_ref())),
        resource,
        existence,
    }
}

/// Client id, principal id, tenant.
pub(super) const fn found(existence: &Existence) -> [Option<Guid>; 3] {
    match existence {
        Existence::Exists {
            client_id,
            principal_id,
            tenant_id,
        } => [*client_id, *principal_id, *tenant_id],
        Existence::Unknown | Existence::Missing => [None; 3],
    }
}

fn parsed<T: FromStr>(text: Option<&String>) -> Option<T> {
    text.and_then(|text| text.parse().ok())
}
