//! Real SDKs in real pods: each gets its pod's identity, the one it names, its secret, and no other.
//!
//! In: a cluster with Lanyard, the clients' image. Out: passed, or the client's own message. Blocks
//! for as long as six clients take on two nodes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cast::{self, AUDIT, GRANTED, Identity, ORDERS, PAYMENTS};
use crate::clients::{self, Asker, CLIENTS};
use crate::cluster::Cluster;
use crate::plan::NODES;
use crate::pods::Pod;

const NAMESPACE: &str = "sdks";
const VAULT: &str = "https://demo.vault.azure.net";
const SECRET: &str = "correct-horse-battery-staple";
/// An SDK that retries where it should give up takes 17 s and more; starting Java takes some.
const AT_ONCE: Duration = Duration::from_secs(15);

/// On both nodes, one client after the other: by default and by client id, token and secret.
pub async fn every_client_gets_its_pods_identity_and_secret(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    cast::raise(cluster, NAMESPACE).await?;
    let mark = cluster.mark().await?;
    for plan in NODES {
        let name = format!("program-{}", plan.number);
        let pod = Pod::new(NAMESPACE, &name, plan.number.into())
            .identity("payments,orders")
            .labels(GRANTED)
            .image(&image);
        cluster.run_pod(&pod).await?;
    }
    let (one, two) = (
        Asker::new(cluster, NAMESPACE, "program-1"),
        Asker::new(cluster, NAMESPACE, "program-2"),
    );
    for client in CLIENTS {
        let start = Instant::now();
        tokio::try_join!(granted(one, client), granted(two, client))?;
        tokio::try_join!(refused(one, client), refused(two, client))?;
        println!("{client}: on both nodes, {:.1?}", start.elapsed());
    }
    cluster.no_leaks(mark).await?;
    let journal = cluster.journal(mark).await?;
    let strange = journal
        .iter()
        .find(|entry| entry.identity.as_deref() == Some(AUDIT.name));
    ensure!(strange.is_none(), "nobody was granted it: {strange:?}");
    cast::leave(cluster, NAMESPACE).await
}

async fn granted(asker: Asker<'_>, client: &str) -> Result<()> {
    has(asker, client, &["token"], &PAYMENTS).await?;
    let by_id = ["token", "--client-id", ORDERS.client_id];
    has(asker, client, &by_id, &ORDERS).await?;
    let secret = ["secret", "--vault", VAULT, "--name", "db-password"];
    for more in [&[][..], &["--client-id", ORDERS.client_id]] {
        let said = asker.client(client, &[&secret[..], more].concat()).await?;
        ensure!(said["value"] == SECRET, "{client}: {said}");
    }
    Ok(())
}

/// A client gets a token of this identity.
pub async fn has(asker: Asker<'_>, client: &str, args: &[&str], wanted: &Identity) -> Result<()> {
    let said = asker.client(client, args).await?;
    let here = || format!("{client} {args:?} instead of {}", wanted.name);
    wanted.is_of(&said).with_context(here)
}

/// An identity that the pod may not have: the client says so, and soon.
async fn refused(asker: Asker<'_>, client: &str) -> Result<()> {
    let start = Instant::now();
    let said = asker
        .client(client, &["token", "--client-id", AUDIT.client_id])
        .await;
    ensure!(said.is_err(), "{client} got {said:?}");
    let took = start.elapsed();
    ensure!(took < AT_ONCE, "{client} gave up only after {took:.1?}");
    Ok(())
}
