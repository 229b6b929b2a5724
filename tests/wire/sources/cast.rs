//! Who plays: an application with credentials and an identity that federates, as Azure knows them, and
//! the manifests that name them. Each test adds the workloads that it is about.

use crate::world::{Identity, PAYMENTS, TENANT};

/// An application: its tokens have no ARM id.
pub const APP: Identity = Identity {
    client_id: "12121212-0000-4000-8000-00000000000a",
    object_id: "12121212-0000-4000-8000-00000000000b",
    resource_id: "",
};
/// Another application, of which a policy knows nothing.
pub const FOREIGN: Identity = Identity {
    client_id: "34343434-0000-4000-8000-00000000000a",
    object_id: "34343434-0000-4000-8000-00000000000b",
    resource_id: "",
};
/// What Entra takes for `APP` from the start.
pub const SECRET: &str = "canary~client.secret-1_first";
/// The usual Secret and key.
pub const USUAL: &str = "servicePrincipal: {secretRef: {name: app}}";
/// The usual certificate, as cert-manager keeps it.
pub const CERTIFICATE: &str = "servicePrincipal: {certificateRef: {name: app-tls}}";
/// The usual federation.
pub const FEDERATED: &str = "federated: {}";
/// The node.
pub const IMDS: &str = "imds: {}";
/// The audience of the tokens that are exchanged.
pub const EXCHANGE: &str = "api://AzureADTokenExchange";

/// Azure's side. `issuer` signs service accounts' tokens; `application` are further lines of the
/// application `app`, `more` keys of the world file.
pub fn azure(issuer: &str, application: &str, more: &str) -> String {
    let federated =
        format!("{{name: cluster, issuer: '{issuer}', subject: 'system:serviceaccount:shop:app'}}");
    format!(
        "tenant: {{id: {TENANT}}}
identities:
  - name: payments
    clientID: {}
    principalID: {}
    resourceID: {}
    federatedCredentials: [{federated}]
applications:
  - name: app
    clientID: {}
    principalID: {}
    secrets: ['{SECRET}']
{application}    federatedCredentials: [{federated}]
  - {{name: foreign, clientID: {}, principalID: {}, secrets: [foreign-secret]}}
vms:
  - {{name: node-1, location: westeurope, identities: [payments]}}
{more}
",
        PAYMENTS.client_id,
        PAYMENTS.object_id,
        PAYMENTS.resource_id,
        APP.client_id,
        APP.object_id,
        FOREIGN.client_id,
        FOREIGN.object_id,
    )
}

/// Two teams; `more` are lines of both policies' specs.
pub fn teams(more: &str) -> String {
    let team = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {name}}}}}\n---\n\
             apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityPolicy\nmetadata: {{name: {name}}}\n\
             spec:\n  namespaces: {{matchLabels: {{team: {name}}}}}\n  \
             resourceIDPrefixes: [/subscriptions/5ab5c71b-0000-4000-8000-000000000001/resourceGroups/rg-{name}]\n  \
             clientIDs: [{}]\n{more}",
            APP.client_id
        )
    };
    format!("{}\n---\n{}", team("shop"), team("bank"))
}

/// An `AzureIdentity`, as the API server would show it.
#[derive(Clone)]
pub struct Wanted<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub generation: i64,
    pub client: Identity,
    /// Entries of `tokenSources`.
    pub sources: &'a [&'a str],
    /// Further lines of the spec.
    pub more: &'a str,
}

impl Default for Wanted<'_> {
    /// `shop/app` with the application's secret.
    fn default() -> Self {
        Self {
            namespace: "shop",
            name: "app",
            uid: "uid-of-identity-app",
            generation: 1,
            client: APP,
            sources: &[USUAL],
            more: "",
        }
    }
}

impl Wanted<'_> {
    /// The `AzureIdentity` alone.
    pub fn identity(&self) -> String {
        let sources: Vec<_> = self
            .sources
            .iter()
            .map(|source| format!("  - {source}\n"))
            .collect();
        let resource_id = match self.client.resource_id {
            "" => String::new(),
            id => format!("  resourceID: {id}\n"),
        };
        let tenant = if self.more.contains("tenantID") {
            String::new()
        } else {
            format!("  tenantID: {TENANT}\n")
        };
        format!(
            "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\n\
             metadata: {{name: {}, namespace: {}, uid: {}, generation: {}}}\n\
             spec:\n  clientID: {}\n{tenant}{resource_id}  tokenSources:\n{}{}",
            self.name,
            self.namespace,
            self.uid,
            self.generation,
            self.client.client_id,
            sources.concat(),
            self.more
        )
    }

    /// With its binding to the pods that carry its name as their label `app`.
    pub fn granted(&self) -> String {
        let binding = crate::world::binding(self.namespace, self.name, self.name);
        format!("{}\n---\n{binding}", self.identity())
    }
}

/// A running pod with this label `app` and this service account.
pub fn pod(namespace: &str, name: &str, app: &str, account: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, uid: uid-{name}, labels: {{app: {app}}}}}\n\
         spec: {{containers: [], serviceAccountName: {account}}}\nstatus: {{phase: Running, podIP: {ip}}}"
    )
}
