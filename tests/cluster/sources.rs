//! Every source of tokens, by real SDKs in real pods, checked by a library that is not ours.
//!
//! In: a cluster with Lanyard. Out: passed, or the client's own message. Blocks for as long as the clients take on two
//! nodes. The journal says which credential a token was got by.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use jiff::SignedDuration;
use lanyard::sim::Entry;
use lanyard::sim::journal::Listener;
use serde_json::Value;

use crate::clients::{self, Asker, CLIENTS};
use crate::cluster::Cluster;
use crate::plan::NODES;
use crate::stage::{self, SOURCES, Sourced};

/// What the vaults are asked by.
pub const VAULT_RESOURCE: &str = "https://vault.azure.net";
const VAULT: &str = "https://demo.vault.azure.net";
const SECRET: &str = "correct-horse-battery-staple";
const VERIFIED: &str = include_str!("verified.py");
const PODS: [&str; 2] = ["program-1", "program-2"];
/// Azure's clock and ours; Entra ID itself takes five minutes.
const SKEW: SignedDuration = SignedDuration::from_mins(4);

/// IMDS, a secret, a certificate in PEM and in PKCS#12, the pod's service account: each client reads a vault's secret by
/// each of them, on both nodes.
pub async fn every_source_serves_every_client(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "sources";
    let mark = raise(cluster, NAMESPACE).await?;
    let (one, two) = (
        Asker::new(cluster, NAMESPACE, PODS[0]),
        Asker::new(cluster, NAMESPACE, PODS[1]),
    );
    for client in CLIENTS {
        let start = Instant::now();
        tokio::try_join!(all(one, client), all(two, client))?;
        println!(
            "{client}: by five sources on both nodes, {:.1?}",
            start.elapsed()
        );
    }
    for source in &SOURCES {
        for pod in PODS {
            let claims = verified(cluster, NAMESPACE, pod, source, "").await?;
            ensure!(claims["tid"] == crate::cast::TENANT, "{claims}");
            let managed = claims["xms_mirid"].is_string();
            let wanted = matches!(source.principal, "orders" | "nowhere");
            ensure!(managed == wanted, "{}: {claims}", source.name);
        }
        came_by(cluster, mark, source).await?;
    }
    cluster.no_leaks(mark).await?;
    stage::leave(cluster, NAMESPACE).await
}

/// The cloud's clock four minutes ahead, then four behind: new tokens by every source, good for the vault.
pub async fn clocks_that_differ_by_four_minutes_are_no_trouble(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "skew";
    raise(cluster, NAMESPACE).await?;
    let result = async {
        for (skew, pod) in [(SKEW, PODS[0]), (-SKEW, PODS[1])] {
            cluster.azure().set_clock_skew(skew).await?;
            let mark = cluster.mark().await?;
            for source in &SOURCES {
                let here = || format!("{} where Azure's clock is {skew:#} ahead", source.name);
                let fresh = "&bypass_cache=true";
                let claims = verified(cluster, NAMESPACE, pod, source, fresh)
                    .await
                    .with_context(here)?;
                let issued = claims["iat"].as_i64().unwrap_or_default();
                let ahead = SignedDuration::from_secs(issued - jiff::Timestamp::now().as_second());
                let apart = (ahead - skew).abs();
                ensure!(
                    apart < SignedDuration::from_mins(1),
                    "{}: not a new token: {ahead:#} ahead",
                    here()
                );
                came_by(cluster, mark, source).await.with_context(here)?;
                let asker = Asker::new(cluster, NAMESPACE, pod);
                reads(asker, "python", source).await.with_context(here)?;
            }
        }
        Ok(())
    };
    let result: Result<()> = result.await;
    cluster.azure().set_clock_skew(SignedDuration::ZERO).await?;
    result?;
    stage::leave(cluster, NAMESPACE).await
}

/// The stage, identities, a pod on each node; gives the journal's mark.
async fn raise(cluster: &Cluster, namespace: &str) -> Result<u64> {
    stage::raise(cluster).await?;
    let image = clients::image(cluster).await?;
    stage::five(cluster, namespace).await?;
    let mark = cluster.mark().await?;
    for (plan, name) in NODES.iter().zip(PODS) {
        let pod = stage::pod(namespace, name, plan.number.into(), &image);
        cluster.run_pod(&pod).await?;
    }
    Ok(mark)
}

async fn all(asker: Asker<'_>, client: &str) -> Result<()> {
    for source in &SOURCES {
        reads(asker, client, source).await?;
    }
    Ok(())
}

/// Reads the vault's secret as that identity.
pub async fn reads(asker: Asker<'_>, client: &str, source: &Sourced) -> Result<()> {
    let args = [
        "secret",
        "--vault",
        VAULT,
        "--name",
        "db-password",
        "--client-id",
        source.client_id,
    ];
    let said = asker
        .client(client, &args)
        .await
        .with_context(|| source.name)?;
    ensure!(said["value"] == SECRET, "{client}, {}: {said}", source.name);
    Ok(())
}

/// A token by `PyJWT`'s judgement; its claims. `more`: further parameters of the request.
pub async fn verified(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    source: &Sourced,
    more: &str,
) -> Result<Value> {
    let id = source.client_id;
    let command = ["python3", "-Bc", VERIFIED, VAULT_RESOURCE, id, more];
    let output = cluster.pod_exec(namespace, pod, &command).await?;
    let said = output.success(&format!("verified.py by {} in {pod}", source.name))?;
    let claims: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let who = [&claims["appid"], &claims["azp"]];
    ensure!(who.contains(&&Value::from(id)), "{}: {claims}", source.name);
    Ok(claims)
}

/// Token requests for an identity since `mark`, wherever they went.
pub async fn asked(cluster: &Cluster, mark: u64, source: &Sourced) -> Result<Vec<Entry>> {
    let mut entries = cluster.journal(mark).await?;
    entries.retain(|entry| {
        let exchange = entry.exchange.as_ref();
        let id = exchange.and_then(|exchange| exchange.client_id.as_deref());
        let named = entry.identity.as_deref() == Some(source.principal);
        matches!(entry.listener, Listener::Imds | Listener::Entra)
            && (named || id == Some(source.client_id))
    });
    Ok(entries)
}

/// Each of its tokens since `mark` came by its own source, and there were some.
async fn came_by(cluster: &Cluster, mark: u64, source: &Sourced) -> Result<()> {
    let entries = asked(cluster, mark, source).await?;
    ensure!(!entries.is_empty(), "{}: nobody was asked", source.name);
    let strange = entries.iter().find(|entry| {
        let exchange = entry.exchange.as_ref();
        let credential = exchange.and_then(|exchange| exchange.credential.as_deref());
        entry.status != Some(200)
            || match entry.listener {
                Listener::Imds => !source.credential.is_empty(),
                _ => !credential.is_some_and(|one| {
                    !source.credential.is_empty() && one.starts_with(source.credential)
                }),
            }
    });
    ensure!(strange.is_none(), "{}: {strange:#?}", source.name);
    Ok(())
}
