//! Whether the controller may assign what an `AzureIdentity` names, and what that is. In: the object
//! and the policies. Out: a target, or why it is none. Pure.
//!
//! A policy must admit the identity as for agents, and by its ARM id: what an `AzureIdentity` states
//! as client id is nobody's proof that the ARM id beside it is that application's.

use crate::controller::world::{SeenIdentity, World};
use crate::model::account::is_accounts;
use crate::model::conditions::{IdentityView, refusing};
use crate::model::facts::SourceFacts;
use crate::model::ids::{ArmId, Guid, ObjectName};

/// What an `AzureIdentity` is to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The object.
    pub name: ObjectName,
    /// The identity's ARM id, where a policy admits it: ARM may be asked about it.
    pub resource_id: Option<ArmId>,
    /// Why it is not assigned to anything; `None`: it is assigned where pods use it.
    pub refusal: Option<Refusal>,
    /// It stays assigned for ever.
    pub immutable: bool,
}

/// Why an identity is assigned to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such `AzureIdentity`.
    NoIdentity,
    /// The object cannot be used, and why.
    Malformed(String),
    /// The object is being deleted.
    Deleting,
    /// No policy admits it for its namespace.
    NoPolicy,
    /// Policies admit it by its client id only.
    NoPrefix,
    /// Its tokens do not come from IMDS: nothing needs to be assigned.
    NotByImds,
    /// It states no ARM id: nothing can be assigned by client id.
    NoResourceId,
    /// It is managed, and Lanyard has not created it in Azure yet.
    NotCreated,
}

impl Refusal {
    /// One word, for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoIdentity => "NoIdentity",
            Self::Malformed(_) => "Malformed",
            Self::Deleting => "Deleting",
            Self::NoPolicy => "NoPolicy",
            Self::NoPrefix => "NoResourceIDPrefix",
            Self::NotByImds => "NothingToAssign",
            Self::NoResourceId => "NoResourceID",
            Self::NotCreated => "NotCreated",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed(problem) => return f.write_str(problem),
            Self::NoIdentity => "there is no such AzureIdentity: create it in the binding's namespace",
            Self::Deleting => "the AzureIdentity is being deleted",
            Self::NoPolicy => {
                "no AzureIdentityPolicy admits it for its namespace: ask the cluster's operators"
            }
            Self::NoPrefix => {
                "policies admit it by its client id only: for spec.resourceID to be assigned, an AzureIdentityPolicy must list a resourceIDPrefix of it"
            }
            Self::NotByImds => "its tokens do not come from IMDS: nothing needs to be assigned",
            Self::NoResourceId => {
                "it states no spec.resourceID: Azure assigns identities by their ARM id only"
            }
            Self::NotCreated => "Lanyard has not created it in Azure yet",
        })
    }
}

impl Target {
    /// Works out what the `AzureIdentity` of this name is.
    #[must_use]
    pub fn of(name: &ObjectName, world: &World) -> Self {
        let none = |refusal: Refusal| Self {
            name: name.clone(),
            resource_id: None,
            refusal: Some(refusal),
            immutable: false,
        };
        let Some(seen) = world.identities.get(name) else {
            return none(Refusal::NoIdentity);
        };
        let stated = match &seen.said {
            Ok(stated) => stated,
            Err(malformed) => return none(Refusal::Malformed(malformed.to_string())),
        };
        let told = Told::of(seen);
        let view = IdentityView {
            uid: &seen.meta.uid,
            client_id: stated.client_id.or(told.client),
            resource_id: stated.resource_id.as_ref().or(told.resource.as_ref()),
            tenant_id: stated.tenant_id.or(told.tenant),
            authority_host: stated.authority_host.as_deref(),
            sources: &stated.sources,
            is_accounts: is_accounts(name),
        };
        let by_id = IdentityView {
            client_id: None,
            ..view
        };
        let by_id = view.resource_id.is_some() && is_admitted(name, by_id, world);
        let by_imds = stated
            .sources
            .iter()
            .any(|source| matches!(source, SourceFacts::Imds));
        let refusal = if seen.meta.deleting {
            Some(Refusal::Deleting)
        } else if !by_id && !is_admitted(name, view, world) {
            Some(Refusal::NoPolicy)
        } else if !by_imds {
            Some(Refusal::NotByImds)
        } else if view.resource_id.is_none() && stated.managed.is_some() {
            Some(Refusal::NotCreated)
        } else if view.resource_id.is_none() {
            Some(Refusal::NoResourceId)
        } else {
            (!by_id).then_some(Refusal::NoPrefix)
        };
        Self {
            name: name.clone(),
            resource_id: view.resource_id.filter(|_| by_id).cloned(),
            refusal,
            immutable: stated.immutable,
        }
    }

    /// Whether there is such an object.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.refusal != Some(Refusal::NoIdentity)
    }

    /// What is to be assigned where pods use it.
    #[must_use]
    pub fn assignable(&self) -> Option<&ArmId> {
        let free = self.refusal.is_none();
        self.resource_id.as_ref().filter(|_| free)
    }
}

/// What the status tells of this spec.
#[derive(Default)]
struct Told {
    client: Option<Guid>,
    tenant: Option<Guid>,
    resource: Option<ArmId>,
}

impl Told {
    fn of(seen: &SeenIdentity) -> Self {
        let status = seen.status.as_deref();
        let current = |status: &&_| {
            let status: &crate::api::identity::AzureIdentityStatus = status;
            status.observed_generation == Some(seen.meta.generation)
        };
        let Some(status) = status.filter(current) else {
            return Self::default();
        };
        let managed = seen.said.as_ref().is_ok_and(|said| said.managed.is_some());
        let resource_id = status.resource_id.as_ref().filter(|_| managed);
        Self {
            client: status.client_id.as_ref().and_then(|id| id.parse().ok()),
            tenant: status.tenant_id.as_ref().and_then(|id| id.parse().ok()),
            resource: resource_id.and_then(|id| id.parse().ok()),
        }
    }
}

/// Whether any policy admits the identity for its own namespace.
fn is_admitted(name: &ObjectName, identity: IdentityView<'_>, world: &World) -> bool {
    let Some(labels) = world.namespaces.get(&name.namespace) else {
        return false;
    };
    let mut policies = world.policies.values();
    policies.any(|seen| {
        let said = seen.said.as_ref();
        said.is_ok_and(|policy| refusing(policy, identity, labels).next().is_none())
    })
}
