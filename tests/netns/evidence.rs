//! Local evidence follows the kernel: another pod under the same address is another sighting.
//!
//! In: pods that come and go under one address. Out: invariant 3's witness, read as the agent does.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lanyard::agent::evidence::Evidence;
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::lab::{Get, IMDS, Node, Pod, Style, until};
use tokio_util::sync::CancellationToken;

use crate::harness::Stage;
use crate::standin::{Cloud, PATIENCE, asks};

/// The node's evidence, kept current in its namespace.
async fn evidence(node: &Node) -> Result<Evidence> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    tokio::spawn(node.namespace().run(async || {
        if let Ok(evidence) = Evidence::start(CancellationToken::new()).await {
            let _ = sender.send(evidence);
        }
        std::future::pending::<()>().await;
    }));
    receiver.await.context("evidence did not start")
}

async fn index(node: &Node, link: &str) -> Result<u32> {
    let shown = node
        .namespace()
        .output("ip", &["-o", "link", "show", "dev", link])
        .await?;
    Ok(shown.split(':').next().unwrap_or_default().trim().parse()?)
}

/// Waits until the evidence has the interface, and (after traffic) the neighbour's address.
async fn seen(evidence: &Evidence, pod: &Pod, with_mac: bool) -> Result<()> {
    let known = until(PATIENCE, format!("{} to be seen", pod.name()), async || {
        let sighting = evidence.of(pod.address().into());
        sighting.ifindex.is_some() && (!with_mac || sighting.mac.is_some())
    });
    Ok(known.await?)
}

pub async fn another_veth_under_the_same_address_is_seen(stage: Stage) -> Result<()> {
    let (node, _cloud) = (stage.lab.node(), Cloud::open(&stage.lab).await?);
    let early = node.add_pod("early", Style::Ptp).await?;
    let evidence = evidence(node).await?;
    ensure!(
        evidence.of(early.address().into()).ifindex == Some(index(node, early.host_link()).await?),
        "what was there before is read at the start"
    );
    let first = node.add_pod("first", Style::Ptp).await?;
    asks(&first, IMDS).await?;
    seen(&evidence, &first, true).await?;
    let (address, generation) = (first.address(), *evidence.subscribe().borrow());
    let before = evidence.of(address.into());
    ensure!(before.ifindex == Some(index(node, first.host_link()).await?));
    first.remove().await?;
    until(PATIENCE, "the first to be gone", async || {
        evidence.of(address.into()).ifindex.is_none()
    })
    .await?;
    let second = node.add_pod_at("second", Style::Ptp, address).await?;
    seen(&evidence, &second, false).await?;
    let now = evidence.of(address.into());
    ensure!(before.contradicts(&now), "{before:?} {now:?}");
    ensure!(now.ifindex == Some(index(node, second.host_link()).await?));
    ensure!(*evidence.subscribe().borrow() > generation);
    ensure!(
        evidence.of(IMDS.ip().to_owned().into()).ifindex.is_some(),
        "a /32 route to the cloud"
    );
    ensure!(evidence.of(IpAddr::from([192, 0, 2, 1])).ifindex.is_none());
    Ok(())
}

pub async fn another_neighbour_on_the_bridge_is_seen(stage: Stage) -> Result<()> {
    let (node, _cloud) = (stage.lab.node(), Cloud::open(&stage.lab).await?);
    let evidence = evidence(node).await?;
    let first = node.add_pod("first", Style::Bridge).await?;
    asks(&first, IMDS).await?;
    seen(&evidence, &first, true).await?;
    let before = evidence.of(first.address().into());
    let address = first.address();
    first.remove().await?;
    let second = node.add_pod_at("second", Style::Bridge, address).await?;
    until(PATIENCE, "the other neighbour", async || {
        let _ = asks(&second, IMDS).await;
        before.contradicts(&evidence.of(address.into()))
    })
    .await?;
    ensure!(
        evidence.of(address.into()).ifindex == before.ifindex,
        "the bridge is the same"
    );
    Ok(())
}

pub async fn a_flood_of_notifications_loses_nothing(stage: Stage) -> Result<()> {
    let node = stage.lab.node();
    let pod = node.add_pod("app", Style::Ptp).await?;
    let evidence = evidence(node).await?;
    let link = pod.host_link();
    let (mut flood, mut end) = (String::new(), String::new());
    for host in 0..20_000_u32 {
        let (high, low) = (host / 250, host % 250);
        let _ = writeln!(flood, "route add 10.99.{high}.{low}/32 dev {link}");
        if host % 2 == 0 {
            let _ = writeln!(end, "route del 10.99.{high}.{low}/32 dev {link}");
        }
    }
    node.namespace().ip(&flood).await?;
    node.namespace().ip(&end).await?;
    let at = |host: u32| {
        let [_, _, high, low] = (host / 250 * 256 + host % 250).to_be_bytes();
        evidence.of(IpAddr::from([10, 99, high, low])).ifindex
    };
    let here = Some(index(node, link).await?);
    until(
        PATIENCE,
        "the evidence to be as the kernel has it",
        async || (0..20_000).all(|host| at(host) == if host % 2 == 0 { None } else { here }),
    )
    .await?;
    Ok(())
}

pub async fn who_gets_a_used_address_gets_no_token_of_the_one_before(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let setup = cast.agent(&stage.backend).flag("--pod-wait", "500ms");
    let _agent = cast.lab.agent(&setup).await?;
    let node = cast.lab.node().clone();
    let asks = async |pod: &Pod| pod.namespace().get(IMDS, &Get::token(VAULT_RESOURCE)).await;
    for style in [Style::Ptp, Style::Bridge] {
        // Bindings go by the pod's name: instead of the cast's own pods.
        let victim = node.add_pod("payments", style).await?;
        cast.manifests.pod(&victim, "payments", Some("payments"))?;
        until(PATIENCE, "the pod's token", async || {
            asks(&victim).await.is_ok_and(|reply| reply.status == 200)
        })
        .await?;
        let address = victim.address();
        victim.remove().await?;
        // The manifest still says that the address is the victim's: a watch that lags behind.
        let heir = node.add_pod_at("reports", style, address).await?;
        let reply = asks(&heir).await?;
        ensure!(reply.status == 503, "{style:?}: {reply:?}");
        cast.manifests.remove("pod-payments.yaml")?;
        cast.manifests.pod(&heir, "default", Some("reports"))?;
        until(PATIENCE, "the heir's own token", async || {
            asks(&heir).await.is_ok_and(|reply| reply.status == 200)
        })
        .await?;
    }
    Ok(())
}
