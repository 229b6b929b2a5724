//! The Azure CLI in a pod: `az login --identity`, as itself. Only where it is asked for (`make test-az`): its image is 600 MB.
//!
//! In: a cluster with Lanyard, the image `az` of `clients/build`. Out: passed, with what the CLI said and how long it took.
//! Blocks on the image's build the first time (minutes), and on the CLI.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use lanyard::sim::faults::{Effect, Fault, Matching, Target};
use serde_json::Value;

use crate::cast::{self, AUDIT, GRANTED, Identity, ORDERS, PAYMENTS, TENANT};
use crate::clients;
use crate::cluster::Cluster;
use crate::plan::NODES;
use crate::pods::{CA_PATH, Pod};

const NAMESPACE: &str = "az";
/// What Azure Resource Manager says of the subscriptions that an identity sees.
const SUBSCRIPTIONS: &str = r#"{"value":[{"id":"/subscriptions/5d9c1e00-0000-4000-8000-000000000001","subscriptionId":"5d9c1e00-0000-4000-8000-000000000001","displayName":"test","state":"Enabled","tenantId":"72f988bf-0000-4000-8000-00000000000a"}]}"#;

/// By the default identity, by client id, object id and resource id; one that is not granted is refused. On both nodes.
pub async fn the_azure_cli_logs_in_as_its_pod(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let image = clients::image_of(cluster, "az").await?;
    cast::raise(cluster, NAMESPACE).await?;
    cluster.azure().add_fault(&subscriptions()).await?;
    let mark = cluster.mark().await?;
    let result = async {
        for plan in NODES {
            let name = format!("az-{}", plan.number);
            let pod = Pod::new(NAMESPACE, &name, plan.number.into())
                .identity("payments,orders")
                .labels(GRANTED)
                .image(&image);
            cluster.run_pod(&pod).await?;
            every_way(cluster, &name).await?;
        }
        cluster.no_leaks(mark).await
    };
    let result = result.await;
    cluster.azure().clear_faults().await?;
    result?;
    cast::leave(cluster, NAMESPACE).await
}

async fn every_way(cluster: &Cluster, pod: &str) -> Result<()> {
    let flags = |identity: &Identity| {
        [
            format!("--client-id {}", identity.client_id),
            format!("--object-id {}", identity.object_id),
            format!("--resource-id {}", identity.resource_id()),
        ]
    };
    logs_in(cluster, pod, "", &PAYMENTS).await?;
    for flag in flags(&ORDERS) {
        logs_in(cluster, pod, &flag, &ORDERS).await?;
    }
    for flag in flags(&AUDIT) {
        let start = Instant::now();
        let refused = said(cluster, pod, &format!("az login --identity {flag}")).await;
        let words = format!("{:#}", refused.err().context("it logged in")?);
        ensure!(words.contains("Identity not found"), "{words}");
        println!(
            "{pod}, az login --identity {flag}: refused after {:.1?}",
            start.elapsed()
        );
    }
    Ok(())
}

/// Logs in and shows whose token it gets.
async fn logs_in(cluster: &Cluster, pod: &str, flag: &str, wanted: &Identity) -> Result<()> {
    let start = Instant::now();
    let login = format!("az login --identity {flag} -o json");
    let accounts: Value = serde_json::from_str(&said(cluster, pod, &login).await?)?;
    ensure!(accounts[0]["tenantId"] == TENANT, "{login}: {accounts:#}");
    let took = start.elapsed();
    let token = "az account get-access-token --resource https://vault.azure.net --query accessToken -o tsv \
                 | python3 -c 'import base64, sys; part = sys.stdin.read().split(\".\")[1]; \
                 print(base64.urlsafe_b64decode(part + \"=\" * (-len(part) % 4)).decode())'";
    let claims: Value = serde_json::from_str(&said(cluster, pod, token).await?)?;
    ensure!(
        claims["appid"] == wanted.client_id && claims["oid"] == wanted.object_id,
        "{login}: {claims:#} instead of {}",
        wanted.name
    );
    println!("{pod}, {login}: {} in {took:.1?}", wanted.name);
    Ok(())
}

/// Runs a script where the CLI trusts the simulated cloud.
async fn said(cluster: &Cluster, pod: &str, script: &str) -> Result<String> {
    let trust = format!("REQUESTS_CA_BUNDLE={CA_PATH}");
    let quiet = "AZURE_CORE_COLLECT_TELEMETRY=no";
    let command = ["env", "HOME=/root", &trust, quiet, "sh", "-c", script];
    let output = cluster.pod_exec(NAMESPACE, pod, &command).await?;
    output.success(script)
}

/// Simulated Azure Resource Manager has no such list: an answer written out stands in for it.
fn subscriptions() -> Fault {
    let effect = Effect::Status {
        code: 200,
        retry_after: None,
        body: Some(SUBSCRIPTIONS.to_owned()),
    };
    Fault {
        target: Target::Arm,
        matching: Matching {
            path: Some("/subscriptions".to_owned()),
            ..Matching::default()
        },
        after: 0,
        count: None,
        latency: None,
        effect: Some(effect),
        applied: false,
    }
}
