//! Invariant 3: an address that has changed hands gives nobody its former owner's token.
//!
//! In: a granted pod whose wire is taken away and given to another pod, while the manifests still
//! tell of the first one, as a watch that lags behind would. Out: "try again" until they are right.

use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::demo::cast::{Cast, NAMESPACE, VAULT_RESOURCE};
use lanyard::lab::{Get, IMDS, Pod, Style, until};

use crate::harness::Stage;

const WAIT: Duration = Duration::from_secs(30);

async fn status(pod: &Pod) -> Result<(u16, String)> {
    let reply = pod
        .namespace()
        .get(IMDS, &Get::token(VAULT_RESOURCE))
        .await?;
    // Enough to say what it was, too little to be a token.
    Ok((reply.status, reply.body.chars().take(60).collect()))
}

async fn reused(stage: Stage, style: Style) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    // Short waits: the answer to a doubt is what counts here, not how long it is held back.
    let setup = cast.agent(&stage.backend).flag("--pod-wait", "300ms");
    let _agent = cast.lab.agent(&setup).await?;
    let node = cast.lab.node();
    let first = node.add_pod("owner", style).await?;
    let manifest = first.manifest(NAMESPACE, "payments", Some("payments"));
    // The label that the binding asks for.
    cast.manifests.write(
        "owner.yaml",
        &manifest.replace("app: owner", "app: payments"),
    )?;
    until(WAIT, "the first owner's token", async || {
        matches!(status(&first).await, Ok((200, _)))
    })
    .await?;

    let address = first.address();
    first.remove().await?;
    let second = node.add_pod_at("heir", style, address).await?;
    for _ in 0..5 {
        let (code, body) = status(&second).await?;
        ensure!(
            code == 503,
            "the heir of an address is not its owner: {code} {body}"
        );
    }

    // The watch catches up: the heir is known, and is nobody.
    cast.manifests.remove("owner.yaml")?;
    cast.manifests.pod(&second, "default", Some("reports"))?;
    until(WAIT, "the heir to be known as itself", async || {
        matches!(status(&second).await, Ok((400, _)))
    })
    .await?;
    Ok(())
}

pub async fn a_routed_pods_heir_gets_nothing(stage: Stage) -> Result<()> {
    reused(stage, Style::Ptp).await
}

pub async fn a_bridged_pods_heir_gets_nothing(stage: Stage) -> Result<()> {
    reused(stage, Style::Bridge).await
}
