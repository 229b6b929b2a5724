//! `AzureIdentityPolicy`: which namespaces may use which identities. Written by operators only;
//! without one nothing is allowed.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::selector::label_selector;
use crate::model::facts::{PolicyFacts, PolicyScope};

/// Lets namespaces use identities. Nothing is allowed by default.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureIdentityPolicy"
)]
#[kube(
    plural = "azureidentitypolicies",
    shortname = "azpol",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureIdentityPolicySpec {
    /// Labels of the namespaces (`kubernetes.io/metadata.name` is there, too). `{}` is every namespace.
    pub namespaces: LabelSelector,
    /// ARM id prefixes that the namespaces' identities must lie under, compared without case and at
    /// segment borders: `/subscriptions/<id>/resourceGroups/team-a`.
    #[serde(rename = "resourceIDPrefixes")]
    pub resource_id_prefixes: Vec<String>,
    /// Tenants that the identities may be of; absent: any.
    #[serde(rename = "tenantIDs")]
    pub tenant_ids: Option<Vec<String>>,
}

impl AzureIdentityPolicy {
    /// The facts that selection works with.
    pub fn facts(&self, name: &str) -> Result<PolicyFacts, Malformed> {
        for (at, prefix) in self.spec.resource_id_prefixes.iter().enumerate() {
            let folded = prefix.to_ascii_lowercase();
            if folded.trim_end_matches('/') != "/subscriptions"
                && !folded.starts_with("/subscriptions/")
            {
                let field = format!("spec.resourceIDPrefixes[{at}]");
                return Err(Malformed::at(
                    field,
                    format!("`{prefix}` does not start with /subscriptions"),
                ));
            }
        }
        let tenants = self.spec.tenant_ids.iter().flatten().enumerate();
        let tenant = |(at, id): (usize, &String)| {
            id.parse()
                .map_err(|error| Malformed::at(format!("spec.tenantIDs[{at}]"), error))
        };
        Ok(PolicyFacts {
            name: name.into(),
            namespaces: label_selector("spec.namespaces", &self.spec.namespaces)?,
            scope: Arc::new(PolicyScope {
                resource_id_prefixes: self.spec.resource_id_prefixes.clone(),
                tenant_ids: tenants.map(tenant).collect::<Result<_, _>>()?,
            }),
        })
    }
}
