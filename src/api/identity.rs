//! `AzureIdentity`: who, and where its tokens come from. Written by teams, in their namespace. The
//! status is the controller's: it fills in what the spec leaves out.
//!
//! The schema has the whole design, so that later versions need no other one; what this version
//! cannot serve is refused by [`AzureIdentity::facts`] with the field named, never ignored.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::formats::{AUDIENCE, AUTHORITY, GUID, IDENTITY_ID};
use super::managed::ManagedIdentity;
use super::rules::{Keyed, List, Rule, Rules};
use super::source::{self, TokenSource};
use super::{Malformed, parse_optional};
use crate::model::facts::{IdentityFacts, SourceFacts};
use crate::model::ids::{ArmId, Guid, ObjectName};

/// Who the identity is, and where its tokens come from.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureIdentity",
    plural = "azureidentities",
    shortname = "azid",
    category = "azure",
    category = "lanyard",
    namespaced,
    status = "AzureIdentityStatus",
    derive = "PartialEq",
    doc = "A managed identity of Azure that pods may be given. It takes three: this object says who the identity is, an AzureIdentityBinding says which pods get it, and an AzureIdentityPolicy of the cluster's operators admits it for this namespace."
)]
#[kube(
    printcolumn = r#"{"name": "Client ID", "type": "string", "jsonPath": ".spec.clientID", "description": "Client id, as the spec states it."}"#,
    printcolumn = r#"{"name": "Principal ID", "type": "string", "jsonPath": ".status.principalID", "description": "Principal (object) id, as the controller found it in Azure: role assignments are made for it."}"#,
    printcolumn = r#"{"name": "Assigned", "type": "integer", "jsonPath": ".status.assignedNodes", "description": "Nodes that have the identity, of those where pods may use it."}"#,
    printcolumn = r#"{"name": "Wanted", "type": "integer", "jsonPath": ".status.wantedNodes", "description": "Nodes that are to have the identity."}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "description": "Whether pods can get its tokens, as far as the controller knows."}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "description": "Why it is or is not ready."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Sources", "type": "string", "jsonPath": ".spec.tokenSources", "priority": 1, "description": "Where tokens come from; empty: the node's IMDS."}"#,
    printcolumn = r#"{"name": "Resource ID", "type": "string", "jsonPath": ".spec.resourceID", "priority": 1, "description": "ARM id, as the spec states it."}"#,
    printcolumn = r#"{"name": "Found client ID", "type": "string", "jsonPath": ".status.clientID", "priority": 1, "description": "Client id, as the controller found it in Azure."}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1, "description": "What is missing, and what to do about it."}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[
    NAMES_NOBODY,
    NAMES_TWICE,
    APPLICATION_IN_FULL,
    AUTHORITY_UNUSED,
    MANAGED_STAYS,
]))]
pub struct AzureIdentitySpec {
    /// Client id (application id) of the identity, for example
    /// `11111111-1111-4111-8111-111111111111`. Needed where no controller fills it in.
    #[serde(rename = "clientID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = GUID.schema())]
    pub client_id: Option<String>,
    /// Tenant (directory) of the identity, a GUID. `az account show --query tenantId` tells it.
    #[serde(rename = "tenantID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = GUID.schema())]
    pub tenant_id: Option<String>,
    /// Object id (principal id) of the identity, a GUID. Programs may ask for the identity by it.
    #[serde(rename = "objectID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = GUID.schema())]
    pub object_id: Option<String>,
    /// ARM id of the identity, for example
    /// `/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments`.
    /// Policies are held against it, and programs may ask for the identity by it.
    #[serde(
        rename = "resourceID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(transform = IDENTITY_ID.schema())]
    pub resource_id: Option<String>,
    /// Where tokens come from, in the order to try. The next is tried only where the one before is
    /// not possible at all, never after a refusal. Left out: the node's IMDS, `[{imds: {}}]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = source::LIST.schema(), transform = Rules(&[source::TWICE]))]
    pub token_sources: Option<Vec<TokenSource>>,
    /// Lets Lanyard create the identity in Azure and remove it with this object. Then `clientID`,
    /// `objectID` and `resourceID` are left out: the status tells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedIdentity>,
    /// Never take the identity off a virtual machine or scale set again, even when no pod uses it
    /// any more. For identities that others rely on, too. Counts where Lanyard's controller assigns
    /// identities.
    #[serde(default)]
    pub immutable: bool,
    /// The audiences that tokens may be asked for, for example `[https://vault.azure.net]`. Left out:
    /// any. A trailing slash makes no difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = AUDIENCES.schema())]
    pub allowed_resources: Option<Vec<String>>,
    /// Where Entra ID is, for the sources `federated` and `servicePrincipal`, for example
    /// `https://login.microsoftonline.us`. Left out: that of the cloud Lanyard was installed for. A
    /// policy must allow another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = AUTHORITY.schema())]
    pub authority_host: Option<String>,
}

/// What the controller found out about the identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureIdentityStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Client id, looked up in Azure where the spec does not state it.
    #[serde(rename = "clientID", default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Tenant, looked up in Azure where the spec does not state it.
    #[serde(rename = "tenantID", default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Principal (object) id, looked up in Azure where the spec does not state it: role assignments are
    /// made for it.
    #[serde(
        rename = "principalID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub principal_id: Option<String>,
    /// ARM id, as the spec states it, or of the identity that Lanyard created where the spec says
    /// `managed`.
    #[serde(
        rename = "resourceID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub resource_id: Option<String>,
    /// Names of the `AzureAssignment`s where the identity is assigned, 32 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assigned_to: Vec<String>,
    /// How many of the wanted nodes have the identity. All nodes of a scale set have what the scale set
    /// has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_nodes: Option<i32>,
    /// How many nodes are to have the identity: those of the virtual machines and scale sets with pods
    /// that may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_nodes: Option<i32>,
    /// Where the identity stands. `Ready` is true when pods can get its tokens; its reason and message
    /// say what is missing otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = Keyed("type"))]
    pub conditions: Vec<Condition>,
}

const AUDIENCES: List = List::at_most(32)
    .of(AUDIENCE)
    .not_empty("is empty: leave it out to allow tokens for any audience");

const NAMES_NOBODY: Rule = Rule::new(
    "has(self.clientID) || has(self.resourceID) || has(self.managed) || (has(self.tokenSources) && self.tokenSources.exists(source, has(source.nodeSystemAssigned)))",
    "names no identity: state clientID (or resourceID, where Lanyard's controller looks the rest up)",
);
const NAMES_TWICE: Rule = Rule::new(
    "!has(self.managed) || !(has(self.clientID) || has(self.objectID) || has(self.resourceID))",
    "managed creates an identity: leave clientID, objectID and resourceID out, or leave managed out for an identity that exists",
);
const APPLICATION_IN_FULL: Rule = Rule::new(
    "!has(self.tokenSources) || !self.tokenSources.exists(source, has(source.servicePrincipal)) || (has(self.clientID) && has(self.tenantID))",
    "servicePrincipal needs clientID and tenantID: nobody else can look them up",
);
const AUTHORITY_UNUSED: Rule = Rule::new(
    "!has(self.authorityHost) || (has(self.tokenSources) && self.tokenSources.exists(source, has(source.federated) || has(source.servicePrincipal)))",
    "authorityHost is for the sources federated and servicePrincipal: name one of them in tokenSources, or leave authorityHost out",
);
const MANAGED_STAYS: Rule = Rule::new(
    "has(self.managed) == has(oldSelf.managed)",
    "managed can neither be added nor taken away: that would leave an identity in Azure that nobody removes; create another AzureIdentity",
);

impl AzureIdentity {
    /// The facts that selection works with.
    pub fn facts(&self, name: ObjectName) -> Result<IdentityFacts, Malformed> {
        self.spec.check()?;
        let spec = &self.spec;
        let sources = spec.sources()?;
        let known = self.known();
        let filled = |stated: &Option<String>, known: Option<&String>| {
            stated.clone().or_else(|| known.cloned())
        };
        let client_id = filled(
            &spec.client_id,
            known.and_then(|known| known.client_id.as_ref()),
        );
        let client_id: Guid = parse_optional("spec.clientID", client_id.as_ref())?
            .ok_or_else(|| Malformed::at("spec.clientID", self.missing_client_id()))?;
        let optional = |known: Option<&Option<String>>, stated: &Option<String>| {
            filled(stated, known.and_then(Option::as_ref))
        };
        let tenant_id = optional(known.map(|known| &known.tenant_id), &spec.tenant_id);
        let object_id = optional(known.map(|known| &known.principal_id), &spec.object_id);
        let resource_id = optional(known.map(|known| &known.resource_id), &spec.resource_id);
        Ok(IdentityFacts {
            name,
            uid: self.metadata.uid.as_deref().unwrap_or_default().into(),
            generation: self.metadata.generation.unwrap_or_default(),
            client_id,
            tenant_id: parse_optional("spec.tenantID", tenant_id.as_ref())?,
            object_id: parse_optional("spec.objectID", object_id.as_ref())?,
            resource_id: parse_optional("spec.resourceID", resource_id.as_ref())?,
            sources,
            allowed_resources: spec.allowed_resources.clone().unwrap_or_default(),
            authority_host: spec.authority(),
        })
    }

    /// The status, as long as it speaks of this spec: ids of another identity must not be mixed in.
    fn known(&self) -> Option<&AzureIdentityStatus> {
        let status = self.status.as_ref()?;
        let same = status.observed_generation.is_some()
            && status.observed_generation == self.metadata.generation;
        same.then_some(status)
    }

    fn missing_client_id(&self) -> &'static str {
        if self.spec.managed.is_some() {
            "is not known: no controller has created the identity yet; `kubectl get azid` says why"
        } else {
            "is required where no controller fills it in"
        }
    }
}

/// What an `AzureIdentity` states, as far as it is stated: what the controller works with, which fills
/// in the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Client id.
    pub client_id: Option<Guid>,
    /// Tenant.
    pub tenant_id: Option<Guid>,
    /// Object (principal) id.
    pub object_id: Option<Guid>,
    /// ARM id.
    pub resource_id: Option<ArmId>,
    /// Sources in the order to try.
    pub sources: Vec<SourceFacts>,
    /// Where Entra ID is, where it is not the cloud's.
    pub authority_host: Option<Arc<str>>,
    /// Never unassigned.
    pub immutable: bool,
    /// To be created and removed by the controller.
    pub managed: Option<ManagedIdentity>,
}

impl AzureIdentity {
    /// What the spec states.
    pub fn stated(&self) -> Result<Stated, Malformed> {
        self.spec.check()?;
        let spec = &self.spec;
        Ok(Stated {
            client_id: parse_optional("spec.clientID", spec.client_id.as_ref())?,
            tenant_id: parse_optional("spec.tenantID", spec.tenant_id.as_ref())?,
            object_id: parse_optional("spec.objectID", spec.object_id.as_ref())?,
            resource_id: parse_optional("spec.resourceID", spec.resource_id.as_ref())?,
            sources: spec.sources()?,
            authority_host: spec.authority(),
            immutable: spec.immutable,
            managed: spec.managed.clone(),
        })
    }
}

impl AzureIdentitySpec {
    fn sources(&self) -> Result<Vec<SourceFacts>, Malformed> {
        match &self.token_sources {
            None => Ok(vec![SourceFacts::Imds]),
            Some(sources) => source::facts(sources),
        }
    }

    fn authority(&self) -> Option<Arc<str>> {
        let host = self.authority_host.as_deref();
        host.map(|host| host.trim_end_matches('/').into())
    }

    /// What the API server checks at admission.
    fn check(&self) -> Result<(), Malformed> {
        GUID.check_optional("spec.clientID", self.client_id.as_ref())?;
        GUID.check_optional("spec.tenantID", self.tenant_id.as_ref())?;
        GUID.check_optional("spec.objectID", self.object_id.as_ref())?;
        IDENTITY_ID.check_optional("spec.resourceID", self.resource_id.as_ref())?;
        AUTHORITY.check_optional("spec.authorityHost", self.authority_host.as_ref())?;
        if let Some(audiences) = &self.allowed_resources {
            AUDIENCES.check("spec.allowedResources", audiences)?;
        }
        let sources = self.token_sources.as_deref();
        if let Some(sources) = sources {
            source::check("spec.tokenSources", sources)?;
        }
        let has = |is: fn(&TokenSource) -> bool| sources.unwrap_or_default().iter().any(is);
        let has_application = has(|source| source.service_principal.is_some());
        let named = self.client_id.is_some() || self.resource_id.is_some();
        NAMES_NOBODY.check(
            named || self.managed.is_some() || has(|source| source.node_system_assigned.is_some()),
            "spec",
        )?;
        NAMES_TWICE.check(
            self.managed.is_none() || !(named || self.object_id.is_some()),
            "spec",
        )?;
        APPLICATION_IN_FULL.check(
            !has_application || (self.client_id.is_some() && self.tenant_id.is_some()),
            "spec",
        )?;
        AUTHORITY_UNUSED.check(
            self.authority_host.is_none()
                || has_application
                || has(|source| source.federated.is_some()),
            "spec",
        )?;
        self.managed.as_ref().map_or(Ok(()), ManagedIdentity::check)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(object: Value) -> Result<IdentityFacts, Malformed> {
        let Ok(identity) = serde_json::from_value::<AzureIdentity>(object) else {
            panic!("an AzureIdentity");
        };
        identity.facts(ObjectName::new("shop", "payments"))
    }

    fn found_out(generation: i64, observed: i64) -> Value {
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
            "metadata": {"name": "payments", "generation": generation},
            "spec": {"resourceID": "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/p"},
            "status": {"observedGeneration": observed, "clientID": "11111111-1111-4111-8111-111111111111"}})
    }

    #[test]
    fn what_the_controller_found_out_counts_for_the_spec_it_looked_at() {
        let facts_now = facts(found_out(2, 2)).unwrap();
        assert_eq!(
            facts_now.client_id.to_string(),
            "11111111-1111-4111-8111-111111111111"
        );
        let stale = facts(found_out(3, 2)).unwrap_err();
        assert!(
            stale
                .to_string()
                .contains("is required where no controller")
        );
    }

    #[test]
    fn what_the_spec_states_is_not_overruled() {
        let mut object = found_out(1, 1);
        object["spec"]["clientID"] = json!("22222222-2222-4222-8222-222222222222");
        let client_id = facts(object).unwrap().client_id;
        assert_eq!(
            client_id.to_string(),
            "22222222-2222-4222-8222-222222222222"
        );
    }
}
