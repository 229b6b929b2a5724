//! Reads objects as documents, the way `kubectl get -o json` shows them: what is looked at by a
//! person's command is not limited to the types that the agent watches.
//!
//! In: a kind. Out: documents with `apiVersion` and `kind`. Every call has the deadline of
//! [`Cluster::call`]; long lists come in pages, each with a deadline of its own.

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, core::GroupVersionKind};
use serde_json::Value;

use super::client::{CallError, Cluster};

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for Kubernetes' core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The plural, as in paths.
    pub plural: &'static str,
}

impl Kind {
    const fn core(kind: &'static str, plural: &'static str) -> Self {
        Self {
            group: "",
            version: "v1",
            kind,
            plural,
        }
    }

    const fn ours(kind: &'static str, plural: &'static str) -> Self {
        Self {
            group: "lanyard.dev",
            version: "v1alpha1",
            kind,
            plural,
        }
    }

    /// Pods.
    pub const POD: Self = Self::core("Pod", "pods");
    /// Namespaces.
    pub const NAMESPACE: Self = Self::core("Namespace", "namespaces");
    /// Nodes.
    pub const NODE: Self = Self::core("Node", "nodes");
    /// Service accounts.
    pub const SERVICE_ACCOUNT: Self = Self::core("ServiceAccount", "serviceaccounts");
    /// Roles.
    pub const ROLE: Self = Self {
        group: "rbac.authorization.k8s.io",
        version: "v1",
        kind: "Role",
        plural: "roles",
    };
    /// What is assigned to nodes.
    pub const ASSIGNMENT: Self = Self::ours("AzureAssignment", "azureassignments");
    /// The kinds of `lanyard.dev` that decide.
    pub const OURS: [Self; 4] = [
        Self::ours("AzureIdentity", "azureidentities"),
        Self::ours("AzureIdentityBinding", "azureidentitybindings"),
        Self::ours("AzureIdentityPolicy", "azureidentitypolicies"),
        Self::ours("AzureMetadataException", "azuremetadataexceptions"),
    ];

    fn resource(self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

impl Cluster {
    /// All objects of a kind: of a namespace, or of all; as far as `params` select them.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Vec<Value>, CallError> {
        let api = self.api(kind, namespace);
        let (mut found, mut next): (_, Option<String>) = (Vec::new(), None);
        loop {
            let mut page = params.clone().limit(PAGE);
            if let Some(token) = &next {
                page = page.continue_token(token);
            }
            let list = self.call(api.list(&page)).await?;
            for object in list.items {
                found.push(document(object, kind)?);
            }
            next = list.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// One object; `None` where there is none of that name.
    pub async fn get(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, CallError> {
        let found = self.call(self.api(kind, namespace).get_opt(name)).await?;
        found.map(|object| document(object, kind)).transpose()
    }

    /// Who issues service accounts' tokens, by the API server's own discovery document; `None` where
    /// that does not say.
    pub async fn issuer(&self) -> Result<Option<String>, CallError> {
        let request = hyper::Request::get("/.well-known/openid-configuration").body(Vec::new());
        let request = request.map_err(kube::Error::HttpError)?;
        let document: Value = self.call(self.client.request(request)).await?;
        Ok(document["issuer"].as_str().map(str::to_owned))
    }

    fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let (client, resource) = (self.client.clone(), kind.resource());
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }
}

/// Items of a list do not say what they are; here they do.
fn document(object: DynamicObject, kind: Kind) -> Result<Value, CallError> {
    let resource = kind.resource();
    let mut document = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    document["apiVersion"] = resource.api_version.into();
    document["kind"] = resource.kind.into();
    Ok(document)
}
