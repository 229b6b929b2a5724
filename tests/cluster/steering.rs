//! The stage for the controller: a release that has one, identities that Azure has on no machine yet, and what is to be
//! seen of them.
//!
//! In: a cluster; who the controller is to Azure. Out: a release whose controller leads; ARM's journal and what is
//! assigned, by identity. Blocks on helm where the release is another than wanted. Invariant: identities of these trials begin
//! unassigned; those that world.yaml assigns are Azure's own, and nobody may take them away.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use lanyard::sim::Entry;
use lanyard::sim::journal::Listener;
use lanyard::sim::world::Secret;
use serde_json::{Value, json};

use crate::asking::now;
use crate::cast::TENANT;
use crate::cluster::Cluster;
use crate::papers::{self, Paper};
use crate::plan::{ARM, VAULT, scale_set};
use crate::pods::Pod;
use crate::release::{NAMESPACE, RELEASE};
use crate::stage;

/// The application that the controller is.
pub const APPLICATION: &str = "controller";
/// The namespace whose pods may get tokens for their service accounts.
pub const CREATED: &str = "created";
/// How long a change may take to come through on a loaded machine.
pub const LIMIT: Duration = Duration::from_mins(1);
const CLIENT_ID: &str = "77777777-7777-4777-8777-777777777774";
const PRINCIPAL_ID: &str = "99999999-7777-4777-8777-777777777774";
const SYSTEM_ASSIGNED: &str = "eeeeeeee-5555-4555-8555-555555555551";
const CREDENTIAL: &str = "controller-credential";
const SUBSCRIPTION: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001";
/// How often what the API server says is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How the controller proves to Azure who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Its service account's token.
    Federated,
    /// A certificate.
    Certificate,
    /// A client secret.
    Secret,
    /// The scale set's system-assigned identity.
    NodeIdentity,
}

impl Auth {
    fn value(self) -> &'static str {
        match self {
            Self::Federated => "federated",
            Self::Certificate => "certificate",
            Self::Secret => "secret",
            Self::NodeIdentity => "nodeIdentity",
        }
    }

    /// Object id of whoever ARM sees.
    pub fn principal(self) -> &'static str {
        match self {
            Self::NodeIdentity => SYSTEM_ASSIGNED,
            _ => PRINCIPAL_ID,
        }
    }

    /// The chart's values.
    pub fn values(self, cluster: &Cluster) -> Result<Value> {
        let mut azure = json!({"auth": self.value()});
        if self != Self::NodeIdentity {
            azure["clientID"] = json!(CLIENT_ID);
        }
        if matches!(self, Self::Certificate | Self::Secret) {
            azure["secretName"] = json!(CREDENTIAL);
        }
        Ok(json!({
            "azure": {
                "caBundle": cluster.azure_ca()?,
                "tenantID": TENANT,
                "armEndpoint": format!("https://{ARM}"),
            },
            "agent": {"federated": {"namespaces": [CREATED]}},
            "controller": {
                "enabled": true,
                "azure": azure,
                // There is no DNS in the cluster.
                "extraArgs": [format!("--authority-host=https://{VAULT}")],
                "log": {"level": "info,lanyard::controller=debug"},
            },
        }))
    }

    /// Makes the credential, in the cluster and at Entra ID.
    async fn prepare(self, cluster: &Cluster) -> Result<()> {
        let azure = cluster.azure();
        match self {
            Self::Federated => {
                let account = "lanyard-controller";
                stage::federate(cluster, APPLICATION, NAMESPACE, account).await
            }
            Self::Certificate => {
                let paper = Paper::rsa(APPLICATION)?;
                azure
                    .add_certificate(APPLICATION, &paper.certificate)
                    .await?;
                replace(cluster, &paper.manifest(NAMESPACE, CREDENTIAL)).await
            }
            Self::Secret => {
                let value = papers::secret();
                let texts = [("clientSecret", value.as_str())];
                let manifest = papers::manifest(NAMESPACE, CREDENTIAL, "Opaque", &texts);
                replace(cluster, &manifest).await?;
                let secret = Secret {
                    value,
                    expires: None,
                };
                azure.add_secret(APPLICATION, &secret).await?;
                Ok(())
            }
            Self::NodeIdentity => Ok(()),
        }
    }
}

/// A Secret's type cannot be changed.
async fn replace(cluster: &Cluster, manifest: &str) -> Result<()> {
    cluster.delete(manifest).await?;
    cluster.apply(manifest).await.map(drop)
}

/// Lanyard with a controller that signs in so; a second call finds everything as wanted.
pub async fn raise(cluster: &Cluster, auth: Auth) -> Result<()> {
    let wanted = auth.values(cluster)?;
    raise_as(cluster, auth, wanted).await
}

/// The same, with agents that do not wait for its word yet.
pub async fn raise_beside(cluster: &Cluster, auth: Auth) -> Result<()> {
    let mut wanted = auth.values(cluster)?;
    wanted["agent"]["assignments"] = "ignored".into();
    raise_as(cluster, auth, wanted).await
}

async fn raise_as(cluster: &Cluster, auth: Auth, wanted: Value) -> Result<()> {
    cluster.lanyard().await?;
    let get = ["get", "values", RELEASE, "-n", NAMESPACE, "-o", "json"];
    let present: Value = serde_json::from_str(&cluster.helm(&get).await?)?;
    if present != wanted {
        cluster.namespace(CREATED).await?;
        auth.prepare(cluster).await?;
        let path = cluster.places.root.join("controller.json");
        std::fs::write(&path, wanted.to_string()).with_context(|| path.display().to_string())?;
        let path = path.display().to_string();
        cluster.install(&["-f", &path]).await?;
    }
    cluster.agents_ready().await?;
    leader_beside(cluster, &[]).await.map(drop)
}

/// The pod that holds the lease.
pub async fn leader(cluster: &Cluster) -> Result<String> {
    let lease = ["lease", "lanyard-controller", "-n", NAMESPACE];
    let lease = cluster.get(&lease).await?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let pods = controllers(cluster).await?;
    let mut names = pods
        .iter()
        .filter_map(|pod| pod["metadata"]["name"].as_str());
    let name = names.find(|name| holder.starts_with(name));
    Ok(name
        .with_context(|| format!("`{holder}` is no pod"))?
        .to_owned())
}

/// Waits until the lease is held by a process that held it in none of these words; gives its words.
pub async fn leader_beside(cluster: &Cluster, others: &[&str]) -> Result<String> {
    let mut found = String::new();
    let what = format!("a leader that is none of {others:?}");
    cluster
        .wait_for(&what, LIMIT, async || {
            found = holder(cluster).await?;
            ensure!(!found.is_empty(), "nobody holds the lease");
            Ok(!others.contains(&found.as_str()) && leader(cluster).await.is_ok())
        })
        .await?;
    Ok(found)
}

/// Who holds the lease: a pod's name and something that is each process's own.
pub async fn holder(cluster: &Cluster) -> Result<String> {
    let lease = ["lease", "lanyard-controller", "-n", NAMESPACE];
    let lease = cluster.get(&lease).await?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    Ok(holder.to_owned())
}

/// The controller's pods.
pub async fn controllers(cluster: &Cluster) -> Result<Vec<Value>> {
    let labels = "app.kubernetes.io/component=controller";
    let pods = cluster
        .get(&["pods", "-n", NAMESPACE, "-l", labels])
        .await?;
    Ok(pods["items"].as_array().cloned().unwrap_or_default())
}

/// The ARM id of an identity of these trials.
pub fn resource_id(name: &str) -> String {
    format!(
        "{SUBSCRIPTION}/resourceGroups/teams/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

/// The resource group that managed identities are made in.
pub fn group() -> String {
    format!("{SUBSCRIPTION}/resourceGroups/teams")
}

/// The namespace and its policy; identities with these names in Azure, assigned to nothing, and objects that name them by
/// their resource ids only.
pub async fn make(cluster: &Cluster, namespace: &str, names: &[&str]) -> Result<()> {
    cluster.namespace(namespace).await?;
    let group = group();
    let mut yaml = format!(
        "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityPolicy\nmetadata: {{name: {namespace}}}\nspec:\n  \
         namespaces: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}\n  \
         resourceIDPrefixes: [{group}]\n  managedResourceGroups: [{group}]\n"
    );
    for name in names {
        let id = resource_id(name);
        cluster.azure().put_identity(&id, Some(name)).await?;
        // Writing to a String does not fail.
        let _ = write!(
            yaml,
            "---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{resourceID: {id}}}\n"
        );
    }
    cluster.apply(&yaml).await.map(drop)
}

/// Ends with the namespace, its policy, and its identities in Azure. What is assigned stays for the grace time.
pub async fn leave(cluster: &Cluster, namespace: &str, names: &[&str]) -> Result<()> {
    crate::cast::leave(cluster, namespace).await?;
    for name in names {
        cluster.azure().delete_identity(name).await?;
    }
    Ok(())
}

/// A pod that asks for the identity and has the label that [`bind`] chooses.
pub fn pod<'a>(namespace: &'a str, name: &'a str, node: usize, identity: &'a str) -> Pod<'a> {
    Pod::new(namespace, name, node)
        .identity(identity)
        .labels(crate::cast::GRANTED)
}

/// Grants the identities to pods with the label, one right after the other. Gives the time before the first.
pub async fn bind(cluster: &Cluster, namespace: &str, names: &[&str]) -> Result<f64> {
    let api = kind(cluster, "AzureIdentityBinding", Some(namespace)).await?;
    let selector = json!({"podSelector": {"matchLabels": {"granted": "true"}}});
    let asked = now();
    for name in names {
        let binding: DynamicObject = serde_json::from_value(
            json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding",
            "metadata": {"name": name}, "spec": {"identity": name, "subjects": [selector]}}),
        )?;
        api.create(&PostParams::default(), &binding).await?;
    }
    Ok(asked)
}

/// Objects of one of our kinds, straight from the API server: kubectl's own start would be measured otherwise.
pub async fn kind(
    cluster: &Cluster,
    kind: &str,
    namespace: Option<&str>,
) -> Result<Api<DynamicObject>> {
    let client = cluster.client().await?;
    let plural = match kind {
        "AzureIdentity" => "azureidentities".to_owned(),
        _ => format!("{}s", kind.to_lowercase()),
    };
    let kind = GroupVersionKind::gvk("lanyard.dev", "v1alpha1", kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, &plural);
    Ok(match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    })
}

/// What the `AzureAssignment` of the nodes' scale set says of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `Pending`, `Assigned`, `Failed`, `Removing`, or nothing.
    pub state: String,
    /// Why.
    pub why: String,
    /// Whether Lanyard added it.
    pub owned: bool,
}

/// What is said of the identity with that resource id.
pub async fn seen(api: &Api<DynamicObject>, resource_id: &str) -> Result<Seen> {
    let all = api.list(&ListParams::default()).await?;
    let pool = scale_set();
    let here = |one: &&DynamicObject| {
        let id = one.data["spec"]["computeID"].as_str().unwrap_or_default();
        id.eq_ignore_ascii_case(&pool)
    };
    let Some(ours) = all.items.iter().find(here) else {
        return Ok(Seen::default());
    };
    let entry = |part: &str| {
        let entries = ours.data[part]["identities"].as_array();
        let mut entries = entries.into_iter().flatten();
        let same = |entry: &&Value| {
            let id = entry["resourceID"].as_str().unwrap_or_default();
            id.eq_ignore_ascii_case(resource_id)
        };
        entries.find(same).cloned().unwrap_or_default()
    };
    let (spec, status) = (entry("spec"), entry("status"));
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    Ok(Seen {
        state: text("state"),
        why: format!("{} {}", text("reason"), text("message")),
        owned: spec["owned"] == true,
    })
}

/// Waits until all of them are in that state; gives the time when the last was seen so.
pub async fn reach(cluster: &Cluster, names: &[&str], state: &str) -> Result<f64> {
    let api = kind(cluster, "AzureAssignment", None).await?;
    let deadline = tokio::time::Instant::now() + LIMIT;
    for name in names {
        let id = resource_id(name);
        loop {
            let found = seen(&api, &id).await?;
            if found.state == state {
                break;
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "{name} is not {state} after {} s: {found:?}",
                LIMIT.as_secs()
            );
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(now())
}

/// Each PATCH to ARM since `mark`.
pub async fn patches(cluster: &Cluster, mark: u64) -> Result<Vec<Entry>> {
    let entries = cluster.journal(mark).await?.into_iter();
    let patch = |entry: &Entry| entry.listener == Listener::Arm && entry.method == "PATCH";
    Ok(entries.filter(patch).collect())
}

/// The client id that Azure gave an identity.
pub async fn client_id(cluster: &Cluster, name: &str) -> Result<String> {
    let all = cluster.azure().resources().await?.identities;
    let one = all
        .into_iter()
        .find(|one| one.name == name || one.id == name);
    Ok(one
        .with_context(|| format!("Azure has no identity {name}"))?
        .client_id)
}
