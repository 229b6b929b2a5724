//! Which identities a pod may use: bindings × policies, worked out when objects change, so that a
//! request only looks up. Pure.
//!
//! A grant needs three parties: the team's `AzureIdentity`, the team's `AzureIdentityBinding` that
//! names the pod, and the operator's `AzureIdentityPolicy` that admits the identity for its
//! namespace. A grant from another namespace counts only where the pod's annotation names it.
//!
//! Where a policy says `workloadIdentity: true`, the service account's own annotations stand in for the
//! first two, for pods that ask by their label and have no annotation of ours.

use std::sync::Arc;

use super::conditions::{binds, refusing};
use super::world::World;
use crate::api::account;
use crate::model::account::identity_name;
use crate::model::facts::{BindingFacts, IdentityFacts, PodFacts, PolicyScope};
use crate::model::grant::{Asker, Grant};
use crate::model::ids::ObjectName;

/// What a pod may have, and what it asked for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodGrants {
    /// The pod.
    pub pod: Arc<PodFacts>,
    /// The same as whoever obtains tokens knows it.
    pub asker: Asker,
    /// Granted identities: own namespace first, then by name. Where the pod has an annotation, only
    /// the ones it names; else its service account's own last.
    pub granted: Vec<Grant>,
    /// What the annotation names, in its order; `None` without an annotation.
    pub wanted: Option<Vec<Wanted>>,
    /// Without an annotation: the first identity that a binding gives to the pod (else: that its service
    /// account names) and that is not granted all the same. Requests that name no identity are then
    /// never answered by the service account's in its place.
    pub near: Option<(ObjectName, Missing)>,
}

/// One name of the annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The identity.
    pub identity: ObjectName,
    /// Why it is not granted; `None` when it is.
    pub missing: Option<Missing>,
}

/// Why an identity is not granted to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// There is no such `AzureIdentity`.
    NoIdentity,
    /// No `AzureIdentityBinding` of its namespace names the pod.
    NoBinding,
    /// No `AzureIdentityPolicy` admits it for its namespace.
    NoPolicy,
    /// No `AzureIdentityPolicy` lets the service account's annotations count for this identity.
    NoWorkloadPolicy,
}

impl Missing {
    /// The sentence for log lines and `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoIdentity => "there is no such AzureIdentity",
            Self::NoBinding => "no AzureIdentityBinding of its namespace names this pod",
            Self::NoPolicy => "no AzureIdentityPolicy admits it for its namespace",
            Self::NoWorkloadPolicy => {
                "no AzureIdentityPolicy with workloadIdentity: true admits it for its namespace"
            }
        }
    }
}

/// Works out a pod's grants.
#[must_use]
pub fn grants(pod: &Arc<PodFacts>, world: &World) -> PodGrants {
    let own = &pod.name.namespace;
    let Some(names) = &pod.wanted else {
        let (mut granted, mut near): (Vec<Grant>, _) = (Vec::new(), None);
        for binding in world
            .bindings(own)
            .filter(|binding| binds(binding, pod, world))
        {
            let identity = ObjectName::new(own.clone(), binding.identity.clone());
            if granted.iter().any(|grant| grant.identity.name == identity) {
                continue;
            }
            match grant(pod, &identity, world) {
                Ok(grant) => granted.push(grant),
                Err(missing) => near = near.or(Some((identity, missing))),
            }
        }
        granted.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
        match by_account(pod, world) {
            Some(Ok(grant)) => granted.push(grant),
            Some(Err(identity)) => near = near.or(Some((identity, Missing::NoWorkloadPolicy))),
            None => {}
        }
        return PodGrants {
            pod: pod.clone(),
            asker: Asker::from(&**pod),
            granted,
            wanted: None,
            near,
        };
    };
    let mut granted: Vec<Grant> = Vec::new();
    let mut wanted = Vec::new();
    for name in names {
        let (namespace, name) = name.split_once('/').unwrap_or((own, name));
        let identity = ObjectName::new(namespace, name);
        let missing = match grant(pod, &identity, world) {
            Ok(grant) => {
                if granted.iter().all(|other| other.identity.name != identity) {
                    granted.push(grant);
                }
                None
            }
            Err(missing) => Some(missing),
        };
        wanted.push(Wanted { identity, missing });
    }
    granted.sort_by_key(|grant| {
        (
            grant.identity.name.namespace != *own,
            grant.identity.name.clone(),
        )
    });
    PodGrants {
        pod: pod.clone(),
        asker: Asker::from(&**pod),
        granted,
        wanted: Some(wanted),
        near: None,
    }
}

/// The grant of one identity to one pod, or what is missing for it.
fn grant(pod: &PodFacts, name: &ObjectName, world: &World) -> Result<Grant, Missing> {
    let known = world.identity(name).ok_or(Missing::NoIdentity)?;
    let named =
        |binding: &&Arc<BindingFacts>| binding.identity == name.name && binds(binding, pod, world);
    let mut bindings = world.bindings(&name.namespace).filter(named);
    let first = bindings.next().ok_or(Missing::NoBinding)?;
    let default = first.default || bindings.any(|binding| binding.default);
    let scopes = admitting(&known.facts, world);
    if scopes.is_empty() {
        return Err(Missing::NoPolicy);
    }
    Ok(Grant {
        identity: known.facts.clone(),
        binding: first.name.clone(),
        default,
        scopes: scopes.into(),
        first_seen: known.first_seen,
    })
}

/// The grant of what the pod's service account names, or that identity's name where no policy lets
/// that count; `None` where the pod does not ask for it or the account names nothing.
fn by_account(pod: &PodFacts, world: &World) -> Option<Result<Grant, ObjectName>> {
    if !account::is_asked_for(pod) {
        return None;
    }
    let known = world.account(&account::of_pod(pod))?;
    let scopes = admitting(&known.identity.facts, world);
    if scopes.is_empty() {
        return Some(Err(identity_name(&known.facts.name)));
    }
    Some(Ok(Grant {
        identity: known.identity.facts.clone(),
        binding: known.identity.facts.name.clone(),
        default: false,
        scopes: scopes.into(),
        first_seen: known.identity.first_seen,
    }))
}

/// The limits of all policies that admit the identity for its own namespace.
fn admitting(identity: &IdentityFacts, world: &World) -> Vec<Arc<PolicyScope>> {
    let Some(labels) = world.namespace(&identity.name.namespace) else {
        return Vec::new();
    };
    let policies = world
        .policies()
        .filter(|policy| refusing(policy, identity, labels).next().is_none());
    policies.map(|policy| policy.scope.clone()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_in_result, reason = "a test says so by panicking")]
mod tests;
