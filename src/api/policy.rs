//! `AzureIdentityPolicy`: which namespaces may use which identities. Written by operators only;
//! without one nothing is allowed. The status is the controller's.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::formats::{AUTHORITY, GROUP_ID, GUID, HTTPS_URL, ID_PREFIX};
use super::rules::{Keyed, List, Rule, Rules};
use super::selector::{Selector, label_selector};
use crate::model::facts::{PolicyFacts, PolicyScope};
use crate::model::ids::{ArmId, Guid};

/// Which namespaces, and what their identities may be.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureIdentityPolicy",
    plural = "azureidentitypolicies",
    shortname = "azpol",
    category = "azure",
    category = "lanyard",
    status = "AzureIdentityPolicyStatus",
    derive = "PartialEq",
    doc = "What the cluster's operators let namespaces use. Nothing is allowed by default: an AzureIdentity that no policy admits for its namespace gives no tokens. Several policies for a namespace add up."
)]
#[kube(
    printcolumn = r#"{"name": "Namespaces", "type": "string", "jsonPath": ".spec.namespaces.matchLabels", "description": "Labels of the namespaces."}"#,
    printcolumn = r#"{"name": "Prefixes", "type": "string", "jsonPath": ".spec.resourceIDPrefixes", "description": "What the ARM ids of their identities start with."}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status", "description": "Whether the policy can be used, as far as the controller knows."}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason", "description": "Why it can or cannot be used."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Tenants", "type": "string", "jsonPath": ".spec.tenantIDs", "priority": 1, "description": "Tenants of their identities; empty: any."}"#,
    printcolumn = r#"{"name": "Node identity", "type": "boolean", "jsonPath": ".spec.allowNodeIdentity", "priority": 1, "description": "Whether they may use the node's own identity."}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].message", "priority": 1, "description": "What is wrong, and what to do about it."}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[ADMITS_NOTHING]))]
pub struct AzureIdentityPolicySpec {
    /// Labels of the namespaces that this policy is about, for example `{matchLabels: {team: shop}}`. The
    /// label `kubernetes.io/metadata.name` is a namespace's name. `{}` is every namespace.
    pub namespaces: Selector,
    /// What the ARM ids of their identities must start with, segment by segment and in any case, for
    /// example `[/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop]`.
    /// `/subscriptions/` admits every identity. May be empty only where `clientIDs` is not.
    #[serde(rename = "resourceIDPrefixes", default)]
    #[schemars(transform = PREFIXES.schema())]
    pub resource_id_prefixes: Vec<String>,
    /// Tenants that their identities may be of, as GUIDs. Left out: any.
    #[serde(rename = "tenantIDs", default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = TENANTS.schema())]
    pub tenant_ids: Option<Vec<String>>,
    /// Resource groups, by ARM id, in which an `AzureIdentity` of theirs may say `managed`: Lanyard creates
    /// and removes identities there. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = GROUPS.schema())]
    pub managed_resource_groups: Option<Vec<String>>,
    /// Applications of Entra ID that their identities may be, by client id: an application has no ARM
    /// id that `resourceIDPrefixes` could be held against. Left out: none, unless every policy for the
    /// namespace admits `/subscriptions/`.
    #[serde(rename = "clientIDs", default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = APPLICATIONS.schema())]
    pub client_ids: Option<Vec<String>>,
    /// What an `AzureIdentity` of theirs may name as `authorityHost` beside the cloud's own, for example
    /// `[https://login.microsoftonline.us]`. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = AUTHORITIES.schema())]
    pub authority_hosts: Option<Vec<String>>,
    /// What an `AzureIdentity` of theirs may name as `tokenEndpoint` of the source `federated`: pods'
    /// service-account tokens are sent there. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = ENDPOINTS.schema())]
    pub token_endpoints: Option<Vec<String>>,
    /// Whether the annotations `azure.workload.identity/client-id` and `tenant-id` of their service
    /// accounts count as a federated identity of the account's pods that have the label
    /// `azure.workload.identity/use: "true"`. The agents must be told to look at service accounts, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<bool>,
    /// Whether an `AzureIdentity` of theirs may use the source `nodeSystemAssigned`: their pods can then
    /// do what the node can. Comes with a later version of Lanyard.
    #[serde(default)]
    pub allow_node_identity: bool,
}

/// What the controller found out about the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureIdentityPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the policy stands. `Accepted` is true when it can be read and counts; its reason and message say
    /// what is wrong otherwise, or that it is about no namespace that there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = Keyed("type"))]
    pub conditions: Vec<Condition>,
}

const PREFIXES: List = List::at_most(64).of(ID_PREFIX);
const ADMITS_NOTHING: Rule = Rule::new(
    "(has(self.resourceIDPrefixes) && self.resourceIDPrefixes.size() > 0) || has(self.clientIDs)",
    "resourceIDPrefixes is empty, which would admit no identity: state a prefix, `/subscriptions/` for any, or clientIDs for applications",
);
const APPLICATIONS: List = List::at_most(256)
    .of(GUID)
    .not_empty("is empty: leave it out to admit no application by its client id");
const TENANTS: List = List::at_most(32)
    .of(GUID)
    .not_empty("is empty: leave it out to admit any tenant");
const GROUPS: List = List::at_most(64).of(GROUP_ID);
const AUTHORITIES: List = List::at_most(16).of(AUTHORITY);
const ENDPOINTS: List = List::at_most(16).of(HTTPS_URL);

fn groups<'a>(ids: impl Iterator<Item = &'a String>) -> Result<Vec<ArmId>, Malformed> {
    ids.map(|id| {
        id.parse()
            .map_err(|error| Malformed::at("spec.managedResourceGroups", error))
    })
    .collect()
}

impl AzureIdentityPolicy {
    /// The facts that selection works with.
    pub fn facts(&self, name: &str) -> Result<PolicyFacts, Malformed> {
        let spec = &self.spec;
        PREFIXES.check("spec.resourceIDPrefixes", &spec.resource_id_prefixes)?;
        ADMITS_NOTHING.check(
            !spec.resource_id_prefixes.is_empty() || spec.client_ids.is_some(),
            "spec",
        )?;
        for (list, field, texts) in [
            (TENANTS, "tenantIDs", &spec.tenant_ids),
            (APPLICATIONS, "clientIDs", &spec.client_ids),
            (
                GROUPS,
                "managedResourceGroups",
                &spec.managed_resource_groups,
            ),
            (AUTHORITIES, "authorityHosts", &spec.authority_hosts),
            (ENDPOINTS, "tokenEndpoints", &spec.token_endpoints),
        ] {
            if let Some(texts) = texts {
                list.check(&format!("spec.{field}"), texts)?;
            }
        }
        let guids = |field: &str, texts: &Option<Vec<String>>| {
            let parsed = texts.iter().flatten().map(|text| text.parse());
            let parsed: Result<Vec<Guid>, _> = parsed.collect();
            parsed.map_err(|error| Malformed::at(field, error))
        };
        Ok(PolicyFacts {
            name: name.into(),
            namespaces: label_selector("spec.namespaces", &spec.namespaces)?,
            scope: Arc::new(PolicyScope {
                resource_id_prefixes: spec.resource_id_prefixes.clone(),
                tenant_ids: guids("spec.tenantIDs", &spec.tenant_ids)?,
                client_ids: guids("spec.clientIDs", &spec.client_ids)?,
                authority_hosts: spec.authority_hosts.clone().unwrap_or_default(),
                token_endpoints: spec.token_endpoints.clone().unwrap_or_default(),
                // No default in the CRD: agents of before would refuse every policy that it is put into.
                workload_identity: spec.workload_identity.unwrap_or_default(),
                managed_groups: groups(spec.managed_resource_groups.iter().flatten())?,
            }),
        })
    }
}
