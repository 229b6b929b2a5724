//! `AzureIdentity.spec.managed`: an identity whose life in Azure is this object's. The controller's
//! work; an agent only needs what it then finds in the status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::formats::{GROUP_ID, LOCATION, OBJECT_NAME};
use super::rules::{Format, Rule, Rules};

/// An identity that Lanyard creates in Azure and removes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[STAYS_WHERE_IT_IS]))]
pub struct ManagedIdentity {
    /// ARM id of the resource group to create it in, for example
    /// `/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop`. An
    /// `AzureIdentityPolicy` must list it under `managedResourceGroups`.
    #[schemars(transform = GROUP_ID.schema())]
    pub resource_group: String,
    /// Azure region to create it in, for example `westeurope`.
    #[schemars(transform = LOCATION.schema())]
    pub location: String,
    /// What becomes of the identity in Azure when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The workload that the identity belongs to, in this namespace: when it is deleted, this object
    /// is, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// What becomes of a created identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is removed from Azure, with its role assignments.
    #[default]
    Delete,
    /// It stays in Azure.
    Retain,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// API version of the workload, for example `apps/v1`.
    #[schemars(transform = API_VERSION.schema())]
    pub api_version: String,
    /// Kind of the workload, for example `Deployment`.
    #[schemars(transform = KIND.schema())]
    pub kind: String,
    /// Name of the workload, for example `payments`.
    #[schemars(transform = OBJECT_NAME.schema())]
    pub name: String,
}

const STAYS_WHERE_IT_IS: Rule = Rule::new(
    "self.resourceGroup == oldSelf.resourceGroup && self.location == oldSelf.location",
    "resourceGroup and location cannot change: Azure cannot move an identity; create another AzureIdentity",
);

const API_VERSION: Format = Format::new(
    "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?v[0-9][a-z0-9]*$",
    |text| {
        let (group, version) = match text.split_once('/') {
            Some((group, version)) => (Some(group), version),
            None => (None, text),
        };
        let rest = version.strip_prefix('v').unwrap_or_default();
        group.is_none_or(|group| OBJECT_NAME.holds(group))
            && rest.starts_with(|c: char| c.is_ascii_digit())
            && rest
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    },
    253,
    "must be an API version, as in apps/v1",
);

const KIND: Format = Format::new(
    "^[A-Z][A-Za-z0-9]*$",
    |text| {
        text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.bytes().all(|b| b.is_ascii_alphanumeric())
    },
    63,
    "must be a kind, as in Deployment",
);

impl ManagedIdentity {
    /// What the API server checks at admission.
    pub fn check(&self) -> Result<(), Malformed> {
        GROUP_ID.check("spec.managed.resourceGroup", &self.resource_group)?;
        LOCATION.check("spec.managed.location", &self.location)?;
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        API_VERSION.check("spec.managed.owner.apiVersion", &owner.api_version)?;
        KIND.check("spec.managed.owner.kind", &owner.kind)?;
        OBJECT_NAME.check("spec.managed.owner.name", &owner.name)
    }
}
