//! The stage for token sources beside IMDS: namespaces that the release is told of, and who is in them.
//!
//! In: a cluster with Lanyard. Out: a release that may read the Secrets and ask for the service account tokens that the
//! trials need; identities by each source. Blocks on helm once: a second call finds everything as wanted. Invariant:
//! what agents may read is listed here by name; the namespaces stay until the cluster ends, because the release names them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use lanyard::sim::world::{FederatedCredential, Secret};
use serde_json::{Value, json};

use crate::cast::{GRANTED, ORDERS, TENANT};
use crate::cluster::Cluster;
use crate::papers::{self, CANARY, Paper};
use crate::plan::issuer;
use crate::pods::Pod;
use crate::release::{NAMESPACE, RELEASE};

/// Namespaces whose pods may get tokens by every source.
pub const LISTED: [&str; 8] = [
    "sources",
    "rolling",
    "away",
    "skew",
    "switch",
    "azwi",
    "fallback",
    "bad-input",
];
/// A namespace that the release is not told of.
pub const UNLISTED: &str = "unlisted";
/// Secrets that agents may read in each of them.
pub const SECRETS: [&str; 11] = [
    "till-secret",
    "ledger-tls",
    "archive-store",
    "missing",
    "without-key",
    "wrong-password",
    "mismatched",
    "encrypted",
    "expired",
    "elliptic",
    "garbage",
];
const SUBSCRIPTION: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001";

/// An application or a managed identity of world.yaml, and the source that it is got by.
#[derive(Clone, Copy, Debug)]
pub struct Sourced {
    /// Name as an `AzureIdentity`.
    pub name: &'static str,
    /// Name in the world.
    pub principal: &'static str,
    /// Client id.
    pub client_id: &'static str,
    /// `spec.tokenSources`, as YAML.
    pub sources: &'static str,
    /// How the journal names the credential; nothing where IMDS is asked.
    pub credential: &'static str,
}

/// The node's IMDS.
pub const BY_IMDS: Sourced = Sourced {
    name: "by-imds",
    principal: "orders",
    client_id: ORDERS.client_id,
    sources: "[{imds: {}}]",
    credential: "",
};
/// An application with a client secret.
pub const BY_SECRET: Sourced = Sourced {
    name: "by-secret",
    principal: "till",
    client_id: "77777777-7777-4777-8777-777777777771",
    sources: "[{servicePrincipal: {secretRef: {name: till-secret}}}]",
    credential: "secret:",
};
/// An application with a certificate, as cert-manager keeps it.
pub const BY_PEM: Sourced = Sourced {
    name: "by-pem",
    principal: "ledger",
    client_id: "77777777-7777-4777-8777-777777777772",
    sources: "[{servicePrincipal: {certificateRef: {name: ledger-tls}}}]",
    credential: "certificate:",
};
/// An application with a certificate in a PKCS#12 store.
pub const BY_STORE: Sourced = Sourced {
    name: "by-store",
    principal: "archive",
    client_id: "77777777-7777-4777-8777-777777777773",
    sources: "[{servicePrincipal: {certificateRef: {name: archive-store, pkcs12Key: keystore.p12, passwordKey: password}}}]",
    credential: "certificate:",
};
/// A managed identity that is on no machine, by the pod's service account.
pub const FEDERATED: Sourced = Sourced {
    name: "federated",
    principal: "nowhere",
    client_id: "66666666-6666-4666-8666-666666666666",
    sources: "[{federated: {}}]",
    credential: "federated:",
};
/// One for each source.
pub const SOURCES: [Sourced; 5] = [BY_IMDS, BY_SECRET, BY_PEM, BY_STORE, FEDERATED];

impl Sourced {
    /// The identity and its binding for pods with the label.
    pub fn yaml(&self, namespace: &str) -> String {
        let Self {
            name,
            client_id,
            sources,
            ..
        } = self;
        let resource = if self.principal == "nowhere" || self.credential.is_empty() {
            let group = format!("{SUBSCRIPTION}/resourceGroups/shop/providers");
            format!(
                ", resourceID: {group}/Microsoft.ManagedIdentity/userAssignedIdentities/{}",
                self.principal
            )
        } else {
            String::new()
        };
        format!(
            "---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{clientID: {client_id}, tenantID: {TENANT}{resource}, tokenSources: {sources}}}\n\
             ---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityBinding\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  identity: {name}\n  subjects: [{{podSelector: {{matchLabels: {{granted: \"true\"}}}}}}]\n"
        )
    }
}

/// Admits what the trials use, in one namespace.
fn policy(namespace: &str) -> String {
    let applications = [BY_SECRET, BY_PEM, BY_STORE].map(|one| one.client_id.to_owned());
    // Nobody is called so in Entra ID: what is wrong with their credentials is found before.
    let unknown = (1..9).map(|index| format!("88888888-8888-4888-8888-88888888888{index}"));
    let applications: Vec<_> = applications.into_iter().chain(unknown).collect();
    let applications = applications.join(", ");
    format!(
        "---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityPolicy\nmetadata: {{name: {namespace}}}\nspec:\n  \
         namespaces: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}\n  \
         resourceIDPrefixes: [{SUBSCRIPTION}/resourceGroups]\n  clientIDs: [{applications}]\n  workloadIdentity: true\n"
    )
}

/// Lanyard with every source, the namespaces and their policies.
pub async fn raise(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let (path, wanted) = values(cluster)?;
    let get = ["get", "values", RELEASE, "-n", NAMESPACE, "-o", "json"];
    let present: Value = serde_json::from_str(&cluster.helm(&get).await?)?;
    if present == wanted {
        return cluster.agents_ready().await;
    }
    for namespace in LISTED.iter().chain([&UNLISTED]) {
        cluster.namespace(namespace).await?;
        cluster.apply(&policy(namespace)).await?;
    }
    cluster
        .install(&["-f", &path.display().to_string()])
        .await?;
    cluster.agents_ready().await
}

/// The chart's values, as a file and as JSON.
fn values(cluster: &Cluster) -> Result<(PathBuf, Value)> {
    let secrets = LISTED.map(|namespace| json!({"namespace": namespace, "names": SECRETS}));
    let values = json!({
        "azure": {"caBundle": cluster.azure_ca()?},
        "agent": {
            "secrets": secrets,
            "federated": {"namespaces": LISTED},
            "workloadIdentity": {"enabled": true},
        },
    });
    let path = cluster.places.root.join("sources.json");
    std::fs::write(&path, values.to_string()).with_context(|| path.display().to_string())?;
    Ok((path, values))
}

/// What Entra ID calls the credentials that `five` registered.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The client secret of [`BY_SECRET`].
    pub secret: String,
    /// The certificate of [`BY_PEM`], its thumbprint.
    pub certificate: String,
}

/// Identities by all five sources in a listed namespace, with credentials that Entra ID knows.
pub async fn five(cluster: &Cluster, namespace: &str) -> Result<Registered> {
    let azure = cluster.azure();
    let secret = papers::secret();
    let value = secret.clone();
    let known = azure
        .add_secret(
            BY_SECRET.principal,
            &Secret {
                value,
                expires: None,
            },
        )
        .await?;
    let texts = [("clientSecret", secret.as_str())];
    let mut yaml = papers::manifest(namespace, "till-secret", "Opaque", &texts);
    let (pem, store) = (Paper::rsa("ledger")?, Paper::rsa("archive")?);
    let certificate = azure
        .add_certificate(BY_PEM.principal, &pem.certificate)
        .await?;
    azure
        .add_certificate(BY_STORE.principal, &store.certificate)
        .await?;
    yaml += &pem.manifest(namespace, "ledger-tls");
    let store = store.store(CANARY).await?;
    let texts = [
        ("keystore.p12:base64", store.as_str()),
        ("password", CANARY),
    ];
    yaml += &papers::manifest(namespace, "archive-store", "Opaque", &texts);
    federate(cluster, FEDERATED.principal, namespace, "default").await?;
    yaml += &SOURCES.map(|one| one.yaml(namespace)).concat();
    cluster.apply(&yaml).await?;
    Ok(Registered {
        secret: known,
        certificate,
    })
}

/// Lets pods of that service account be the identity, as `az identity federated-credential create` does.
pub async fn federate(
    cluster: &Cluster,
    principal: &str,
    namespace: &str,
    account: &str,
) -> Result<()> {
    let credential = FederatedCredential {
        name: format!("{namespace}-{account}"),
        issuer: issuer(),
        subject: format!("system:serviceaccount:{namespace}:{account}"),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
    };
    Ok(cluster
        .azure()
        .add_federated(principal, &credential)
        .await?)
}

/// A pod of the clients' image that all five are granted to.
pub fn pod<'a>(namespace: &'a str, name: &'a str, node: usize, image: &'a str) -> Pod<'a> {
    Pod::new(namespace, name, node)
        .identity("by-imds,by-secret,by-pem,by-store,federated")
        .labels(GRANTED)
        .image(image)
}

/// Removes everything but the namespace.
pub async fn leave(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kinds = "pods,secrets,azureidentitybindings,azureidentities";
    let args = ["delete", kinds, "--all", "-n", namespace, "--timeout=60s"];
    cluster.kubectl(&args).await.map(drop)
}
