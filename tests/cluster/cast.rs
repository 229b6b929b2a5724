//! The usual cast: a namespace with two identities that its pods may get, and one that they may not.
//!
//! In: a namespace's name. Out: manifests, names. No IO but `raise` and `leave`. Invariant: the ids
//! are those of world.yaml; `audit` is granted to nobody, so a token of it is a fault.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;

/// A managed identity of the simulated world.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Name, in the world and as an `AzureIdentity`.
    pub name: &'static str,
    /// Client id.
    pub client_id: &'static str,
    /// Object (principal) id.
    pub object_id: &'static str,
    /// Resource group.
    pub group: &'static str,
}

/// Granted to pods with the label; the vault `demo` lets it in.
pub const PAYMENTS: Identity = Identity {
    name: "payments",
    client_id: "11111111-1111-4111-8111-111111111111",
    object_id: "aaaaaaaa-1111-4111-8111-111111111111",
    group: "shop",
};
/// Granted to pods with the label; the vault `demo` lets it in.
pub const ORDERS: Identity = Identity {
    name: "orders",
    client_id: "33333333-3333-4333-8333-333333333333",
    object_id: "cccccccc-3333-4333-8333-333333333333",
    group: "shop",
};
/// Granted to nobody.
pub const AUDIT: Identity = Identity {
    name: "audit",
    client_id: "44444444-4444-4444-8444-444444444444",
    object_id: "dddddddd-4444-4444-8444-444444444444",
    group: "audit",
};
/// The label of pods that the bindings choose.
pub const GRANTED: &[(&str, &str)] = &[("granted", "true")];

/// The one tenant of the world.
pub const TENANT: &str = "72f988bf-0000-4000-8000-00000000000a";
const SUBSCRIPTION: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001";

impl Identity {
    /// Its ARM id.
    pub fn resource_id(&self) -> String {
        let Self { name, group, .. } = self;
        format!(
            "{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )
    }

    /// Whether what a client says of its token is this identity's, by every claim that says so.
    pub fn is_of(&self, said: &Value) -> Result<()> {
        let right = said["client_id"] == self.client_id
            && said["object_id"] == self.object_id
            && said["mi"] == self.resource_id();
        ensure!(right, "a token of another identity: {said}");
        Ok(())
    }

    fn yaml(&self, namespace: &str) -> String {
        let Self {
            name,
            client_id,
            object_id,
            ..
        } = self;
        let resource_id = self.resource_id();
        format!(
            "---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{clientID: {client_id}, tenantID: {TENANT}, objectID: {object_id}, resourceID: {resource_id}}}\n"
        )
    }
}

fn binding(identity: &Identity, namespace: &str) -> String {
    let name = identity.name;
    format!(
        "---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityBinding\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  identity: {name}\n  subjects: [{{podSelector: {{matchLabels: {{granted: \"true\"}}}}}}]\n"
    )
}

/// Everything but the pods.
pub fn manifests(namespace: &str) -> String {
    let policy = format!(
        "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityPolicy\nmetadata: {{name: {namespace}}}\nspec:\n  \
         namespaces: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}\n  \
         resourceIDPrefixes: [{SUBSCRIPTION}/resourceGroups]\n"
    );
    let identities = [PAYMENTS, ORDERS, AUDIT].map(|identity| identity.yaml(namespace));
    let bindings = [PAYMENTS, ORDERS].map(|identity| binding(&identity, namespace));
    policy + &identities.concat() + &bindings.concat()
}

/// Makes the namespace with identities, bindings and policy.
pub async fn raise(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster.namespace(namespace).await?;
    cluster.apply(&manifests(namespace)).await.map(drop)
}

/// Removes all of it.
pub async fn leave(cluster: &Cluster, namespace: &str) -> Result<()> {
    let policy = [
        "delete",
        "azureidentitypolicy",
        namespace,
        "--ignore-not-found",
    ];
    cluster.kubectl(&policy).await?;
    cluster.drop_namespace(namespace).await
}
