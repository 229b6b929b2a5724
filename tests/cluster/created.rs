//! Identities whose life is an object's: created in Azure, used, removed with the object, its namespace, or the release.
//!
//! In: a cluster with Lanyard. Out: passed, or what was left in Azure or hangs. Blocks on helm and the namespaces' ends.
//! Invariant: nothing that Lanyard created stays in Azure by mistake, and no namespace waits for a finalizer.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::asking::{now, once};
use crate::cast::{GRANTED, TENANT};
use crate::cluster::Cluster;
use crate::pods::Pod;
use crate::release::{NAMESPACE as RELEASED, RELEASE};
use crate::steering::{self, Auth, CREATED, LIMIT};

const FINALIZER: &str = "lanyard.dev/managed-identity";

/// Made for two objects, one on the machines, one for service accounts; both give tokens, and go with their objects.
pub async fn a_managed_identity_lives_and_goes_with_its_object(cluster: &Cluster) -> Result<()> {
    steering::raise(cluster, Auth::Federated).await?;
    steering::make(cluster, CREATED, &[]).await?;
    let start = now();
    let sources = [
        ("on-nodes", "{imds: {}}"),
        ("for-account", "{federated: {}}"),
    ];
    for (name, source) in sources {
        cluster
            .apply(&managed(CREATED, name, source, "Delete"))
            .await?;
    }
    let pod = Pod::new(CREATED, "asks", 1)
        .identity("on-nodes,for-account")
        .labels(GRANTED);
    cluster.run_pod(&pod).await?;
    for (name, _) in sources {
        let made = made(cluster, CREATED, name).await?;
        let client_id = made["clientID"].as_str().context("no client id")?;
        let more = format!("&client_id={client_id}");
        let what = format!("a token of {name}");
        cluster
            .wait_for(&what, LIMIT, async || {
                let (status, said) = once(cluster, (CREATED, "asks"), &more).await?;
                ensure!(status == "200", "{status}: {said}");
                Ok(true)
            })
            .await?;
        println!("{name}: created and used after {:.1} s", now() - start);
    }
    ensure!(in_azure(cluster).await?.len() == 2);
    let delete = [
        "delete",
        "azureidentity",
        "on-nodes",
        "-n",
        CREATED,
        "--timeout=60s",
    ];
    cluster.kubectl(&delete).await?;
    ensure!(
        in_azure(cluster).await?.len() == 1,
        "{:?}",
        in_azure(cluster).await?
    );
    // The other one goes with its namespace, which is not held up.
    let start = now();
    crate::cast::leave(cluster, CREATED).await?;
    println!("its namespace was gone after {:.1} s", now() - start);
    let left = in_azure(cluster).await?;
    ensure!(left.is_empty(), "left in Azure: {left:?}");
    // The release names it.
    cluster.namespace(CREATED).await
}

/// `helm uninstall`: identities that are to go are gone from Azure, the one to be kept stays, and no namespace hangs.
pub async fn an_uninstall_sees_to_managed_identities(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "let-go";
    for fate in ["delete", "retain"] {
        steering::raise(cluster, Auth::Federated).await?;
        let set = format!("--set=uninstall.managedIdentities={fate}");
        cluster.install(&["--reuse-values", &set]).await?;
        steering::make(cluster, NAMESPACE, &[]).await?;
        for (name, policy) in [("to-go", "Delete"), ("to-keep", "Retain")] {
            cluster
                .apply(&managed(NAMESPACE, name, "{imds: {}}", policy))
                .await?;
        }
        let gone = made(cluster, NAMESPACE, "to-go").await?;
        let kept = made(cluster, NAMESPACE, "to-keep").await?;
        let uninstall = ["uninstall", RELEASE, "-n", RELEASED];
        let start = now();
        let said = cluster.helm_with(&uninstall).await?;
        println!("{fate}: uninstalled in {:.1} s", now() - start);
        ensure!(said.code == 0, "{said:?}");
        let left = in_azure(cluster).await?;
        let here = |made: &Value| left.iter().any(|id| made["resourceID"] == id.as_str());
        ensure!(
            here(&kept) && here(&gone) == (fate == "retain"),
            "{fate}: {gone} and {kept}, left in Azure: {left:?}\n{said:?}"
        );
        let objects = cluster.get(&["azureidentities", "-n", NAMESPACE]).await?;
        ensure!(!objects.to_string().contains(FINALIZER), "{objects:#}");
        crate::cast::leave(cluster, NAMESPACE).await?;
        for id in left {
            cluster.azure().delete_identity(&id).await?;
        }
    }
    // Nobody writes them any more.
    let all = ["delete", "azureassignments", "--all", "--timeout=60s"];
    cluster.kubectl(&all).await?;
    cluster.drop_namespace(CREATED).await
}

/// A managed identity, and its binding for pods with the label that run as the service account `default`.
fn managed(namespace: &str, name: &str, source: &str, policy: &str) -> String {
    let group = steering::group();
    format!(
        "---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  tenantID: {TENANT}\n  tokenSources: [{source}]\n  \
         managed: {{resourceGroup: {group}, location: westeurope, deletionPolicy: {policy}}}\n\
         ---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityBinding\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  identity: {name}\n  subjects: [{{podSelector: {{matchLabels: {{granted: \"true\"}}}}, serviceAccounts: [default]}}]\n"
    )
}

/// Waits until the identity exists; gives its status.
async fn made(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value> {
    let mut status = Value::Null;
    let what = format!("{namespace}/{name} to be made in Azure");
    cluster
        .wait_for(&what, Duration::from_mins(1), async || {
            let args = ["azureidentity", name, "-n", namespace];
            let object = cluster.get(&args).await?;
            status = object["status"].clone();
            ensure!(
                status["clientID"].is_string() && status["resourceID"].is_string(),
                "{object:#}"
            );
            Ok(true)
        })
        .await?;
    Ok(status)
}

/// Resource ids of the identities in Azure that Lanyard created.
async fn in_azure(cluster: &Cluster) -> Result<Vec<String>> {
    let all = cluster.azure().resources().await?.identities;
    let ids = all.into_iter().map(|one| one.id);
    Ok(ids.filter(|id| id.contains("/lanyard-")).collect())
}
