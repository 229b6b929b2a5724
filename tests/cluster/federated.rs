//! Tokens for the pod's own service account: switched to under load, in place of Azure Workload Identity, and before IMDS.
//!
//! In: a cluster with Lanyard. Out: passed, or what was answered. Blocks on pods, one load of half a minute. Entra checks
//! against the cluster's published keys; the journal says who was asked, and who was not.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::sim::journal::Listener;

use crate::cast::{GRANTED, ORDERS, PAYMENTS, TENANT};
use crate::clients::{self, Asker};
use crate::cluster::Cluster;
use crate::plan::{NODES, issuer};
use crate::pods::Pod;
use crate::sources::{asked, reads, verified};
use crate::stage::{self, FEDERATED, Sourced, UNLISTED};

const LOAD: Duration = Duration::from_secs(30);
const RATE: u64 = 50;
const LIMIT: Duration = Duration::from_secs(20);

/// `tokenSources` of an identity changes from IMDS to the pod's service account while its pods ask: nobody notices.
pub async fn an_identity_switches_from_imds_under_load(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "switch";
    const SWITCHED: Sourced = Sourced {
        name: "switched",
        principal: PAYMENTS.name,
        client_id: PAYMENTS.client_id,
        sources: "[{imds: {}}]",
        credential: "",
    };
    stage::raise(cluster).await?;
    let image = clients::image(cluster).await?;
    stage::federate(cluster, PAYMENTS.name, NAMESPACE, "default").await?;
    cluster.apply(&SWITCHED.yaml(NAMESPACE)).await?;
    let mark = cluster.mark().await?;
    let (mut loads, names) = (Vec::new(), ["busy-1", "busy-2"]);
    for (plan, name) in NODES.iter().zip(names) {
        let pod = Pod::new(NAMESPACE, name, plan.number.into()).identity(SWITCHED.name);
        cluster.run_pod(&pod.labels(GRANTED).image(&image)).await?;
    }
    let start = tokio::time::Instant::now();
    for name in names {
        let asker = Asker::new(cluster, NAMESPACE, name);
        for connections in ["keepalive", "new"] {
            let flags = format!(
                "--rate {RATE} --connections {connections} --want-client-id {}",
                SWITCHED.client_id
            );
            loads.push(asker.load(connections, LOAD, &flags).await?);
        }
    }
    tokio::time::sleep_until(start + LOAD / 3).await;
    let patch = r#"{"spec": {"tokenSources": [{"federated": {}}]}}"#;
    let args = [
        "patch",
        "azureidentity",
        SWITCHED.name,
        "-n",
        NAMESPACE,
        "--type=merge",
        "-p",
        patch,
    ];
    cluster.kubectl(&args).await?;
    for plan in NODES {
        let what = format!("{}: a token for the service account", plan.name());
        let came = async || {
            let entries = asked(cluster, mark, &SWITCHED).await?;
            let federated = entries.iter().find(|entry| {
                let here = entry.source_ip() == Some(plan.address().into());
                here && entry.listener == Listener::Entra && entry.status == Some(200)
            });
            ensure!(federated.is_some(), "last asked: {:#?}", entries.last());
            Ok(true)
        };
        cluster.wait_for(&what, LIMIT, came).await?;
    }
    let mut judged = Vec::new();
    for load in &loads {
        judged.push(load.report().await?.flawless(LOAD.as_secs() * RATE));
    }
    judged.into_iter().collect::<Result<()>>()?;
    cluster.no_leaks(mark).await?;
    stage::leave(cluster, NAMESPACE).await
}

/// What was set up for Azure Workload Identity works as it is: annotations on the service account, a label on the pod.
pub async fn workload_identity_annotations_are_understood(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "azwi";
    const LABEL: &[(&str, &str)] = &[("azure.workload.identity/use", "true")];
    stage::raise(cluster).await?;
    let image = clients::image(cluster).await?;
    stage::federate(cluster, FEDERATED.principal, NAMESPACE, "checkout").await?;
    cluster
        .apply(&format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: checkout\n  namespace: {NAMESPACE}\n  annotations:\n    \
             azure.workload.identity/client-id: {}\n    azure.workload.identity/tenant-id: {TENANT}\n",
            FEDERATED.client_id
        ))
        .await?;
    let mark = cluster.mark().await?;
    for (plan, name) in NODES.iter().zip(["labelled-1", "labelled-2"]) {
        let pod = Pod::new(NAMESPACE, name, plan.number.into()).account("checkout");
        cluster.run_pod(&pod.labels(LABEL).image(&image)).await?;
        let asker = Asker::new(cluster, NAMESPACE, name);
        for client in ["python", "node", "go", "java"] {
            reads(asker, client, &FEDERATED).await?;
            let said = asker.client(client, &["token"]).await?;
            ensure!(
                said["client_id"] == FEDERATED.client_id,
                "{client}, by default: {said}"
            );
        }
        let claims = verified(cluster, NAMESPACE, name, &FEDERATED, "").await?;
        ensure!(claims["oid"].is_string(), "{claims}");
    }
    let entries = asked(cluster, mark, &FEDERATED).await?;
    let strange = entries
        .iter()
        .find(|entry| entry.listener == Listener::Imds || entry.status != Some(200));
    ensure!(
        !entries.is_empty() && strange.is_none(),
        "{strange:#?} of {}",
        entries.len()
    );
    // Without the label the annotations say nothing, as there.
    let pod = Pod::new(NAMESPACE, "plain", 1)
        .account("checkout")
        .image(&image);
    cluster.run_pod(&pod).await?;
    let refused = verified(cluster, NAMESPACE, "plain", &FEDERATED, "").await;
    let words = refused.map_or_else(|error| format!("{error:#}"), |claims| claims.to_string());
    ensure!(words.contains("400"), "a pod without the label: {words}");
    cluster.no_leaks(mark).await?;
    stage::leave(cluster, NAMESPACE).await
}

/// `[federated, imds]`: IMDS serves where the first is not possible, and is not asked where it is refused.
pub async fn the_second_source_serves_only_where_the_first_is_not_possible(
    cluster: &Cluster,
) -> Result<()> {
    const NAMESPACE: &str = "fallback";
    const BOTH: Sourced = Sourced {
        name: "either",
        principal: ORDERS.name,
        client_id: ORDERS.client_id,
        sources: "[{federated: {}}, {imds: {}}]",
        credential: "",
    };
    stage::raise(cluster).await?;
    let image = clients::image(cluster).await?;
    for namespace in [NAMESPACE, UNLISTED] {
        cluster.apply(&BOTH.yaml(namespace)).await?;
        let pod = Pod::new(namespace, "asks", 1)
            .identity(BOTH.name)
            .labels(GRANTED);
        cluster.run_pod(&pod.image(&image)).await?;
    }
    // Agents may not ask for service account tokens in this namespace.
    let mark = cluster.mark().await?;
    verified(cluster, UNLISTED, "asks", &BOTH, "").await?;
    let entries = asked(cluster, mark, &BOTH).await?;
    let elsewhere = entries
        .iter()
        .find(|entry| entry.listener != Listener::Imds);
    ensure!(elsewhere.is_none(), "not possible, and yet: {elsewhere:#?}");
    // Here they may, and no federated credential of the identity matches.
    let mark = cluster.mark().await?;
    let refused = verified(cluster, NAMESPACE, "asks", &BOTH, "").await;
    let words = refused
        .err()
        .context("a token without a federated credential")?
        .to_string();
    let subject = format!("system:serviceaccount:{NAMESPACE}:default");
    for word in ["400", &issuer(), &subject, "api://AzureADTokenExchange"] {
        ensure!(words.contains(word), "{word} is not in: {words}");
    }
    let entries = asked(cluster, mark, &BOTH).await?;
    let wrong = entries
        .iter()
        .find(|entry| entry.listener == Listener::Imds || entry.aadsts.is_none());
    ensure!(
        !entries.is_empty() && wrong.is_none(),
        "{wrong:#?} of {}",
        entries.len()
    );
    // Registered, it works without anything else being done, as soon as the refusal is forgotten.
    stage::federate(cluster, ORDERS.name, NAMESPACE, "default").await?;
    let works = async || {
        verified(cluster, NAMESPACE, "asks", &BOTH, "")
            .await
            .map(|_| true)
    };
    cluster
        .wait_for(
            "a token after the registration",
            Duration::from_mins(2),
            works,
        )
        .await?;
    cluster.no_leaks(mark).await?;
    stage::leave(cluster, NAMESPACE).await?;
    stage::leave(cluster, UNLISTED).await
}
