//! `AzureIdentity`: who, and where its tokens come from. Written by teams, in their namespace.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Malformed, parse_optional};
use crate::model::facts::{IdentityFacts, SourceFacts};
use crate::model::ids::{Guid, ObjectName};

/// A managed identity that pods of this namespace may be granted by an `AzureIdentityBinding`, as
/// far as an `AzureIdentityPolicy` admits it.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureIdentity",
    namespaced
)]
#[kube(plural = "azureidentities", shortname = "azid", derive = "PartialEq")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureIdentitySpec {
    /// The identity's client id (application id), a GUID.
    #[serde(rename = "clientID")]
    pub client_id: Option<String>,
    /// The identity's tenant, a GUID.
    #[serde(rename = "tenantID")]
    pub tenant_id: Option<String>,
    /// The identity's object id (principal id), a GUID.
    #[serde(rename = "objectID")]
    pub object_id: Option<String>,
    /// The identity's ARM id:
    /// `/subscriptions/…/resourceGroups/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/…`.
    #[serde(rename = "resourceID")]
    pub resource_id: Option<String>,
    /// Where tokens come from, in the order to try; the next is tried only when the one before is
    /// not possible on this node, never after a refusal. Absent: the node's IMDS.
    pub token_sources: Option<Vec<TokenSource>>,
    /// Audiences (`resource` of the request) that the identity may be used for; absent: any.
    pub allowed_resources: Option<Vec<String>>,
}

/// One source of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum TokenSource {
    /// The node's IMDS, by client id: the identity must sit on the node's VM or scale set.
    Imds(ImdsSource),
}

/// The node's IMDS. No settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImdsSource {}

impl AzureIdentity {
    /// The facts that selection works with.
    pub fn facts(&self, name: ObjectName) -> Result<IdentityFacts, Malformed> {
        let spec = &self.spec;
        let client_id: Guid = parse_optional("spec.clientID", spec.client_id.as_ref())?
            .ok_or_else(|| {
                Malformed::at(
                    "spec.clientID",
                    "is required where no controller fills it in",
                )
            })?;
        let sources = match &spec.token_sources {
            None => vec![SourceFacts::Imds],
            Some(sources) if sources.is_empty() => {
                return Err(Malformed::at(
                    "spec.tokenSources",
                    "is empty; leave it out for the node's IMDS",
                ));
            }
            Some(sources) => sources
                .iter()
                .map(|TokenSource::Imds(_)| SourceFacts::Imds)
                .collect(),
        };
        Ok(IdentityFacts {
            name,
            uid: self.metadata.uid.as_deref().unwrap_or_default().into(),
            generation: self.metadata.generation.unwrap_or_default(),
            client_id,
            tenant_id: parse_optional("spec.tenantID", spec.tenant_id.as_ref())?,
            object_id: parse_optional("spec.objectID", spec.object_id.as_ref())?,
            resource_id: parse_optional("spec.resourceID", spec.resource_id.as_ref())?,
            sources,
            allowed_resources: spec.allowed_resources.clone().unwrap_or_default(),
        })
    }
}
