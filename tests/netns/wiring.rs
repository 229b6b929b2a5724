//! The lab itself: what the other scenarios take for granted.
//!
//! In: an empty lab with one node. Out: proof that pods reach the cloud unmasked (so that a leak
//! would be seen there with the pod's address), and that there is no way out of the lab.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::lab::{IMDS, Lab, Pod, Style, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::Stage;

/// Listens at IMDS's address in the cloud and tells every caller which address it came from.
async fn mirror(lab: &Lab) -> Result<()> {
    let mirror = lab.cloud().run(async move || {
        let listener = TcpListener::bind(IMDS).await?;
        loop {
            let (mut stream, peer) = listener.accept().await?;
            stream.write_all(peer.ip().to_string().as_bytes()).await?;
        }
        #[expect(unreachable_code, reason = "gives the block its type")]
        Ok::<(), std::io::Error>(())
    });
    tokio::spawn(mirror);
    let node = lab.node().namespace().clone();
    let listening = until(
        Duration::from_secs(10),
        "the mirror to listen",
        async || {
            matches!(
                node.run(async || TcpStream::connect(IMDS).await.is_ok())
                    .await,
                Ok(true)
            )
        },
    );
    Ok(listening.await?)
}

async fn seen_as(pod: &Pod) -> Result<String> {
    let asked = pod.namespace().run(async || {
        let mut text = String::new();
        let connect = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(IMDS));
        connect.await??.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    });
    Ok(asked.await??)
}

pub async fn a_ptp_pod_reaches_the_cloud_as_itself(stage: Stage) -> Result<()> {
    mirror(&stage.lab).await?;
    let pod = stage.lab.node().add_pod("app", Style::Ptp).await?;
    ensure!(seen_as(&pod).await? == pod.address().to_string());
    Ok(())
}

pub async fn a_bridged_pod_reaches_the_cloud_as_itself(stage: Stage) -> Result<()> {
    mirror(&stage.lab).await?;
    for name in ["one", "two"] {
        let pod = stage.lab.node().add_pod(name, Style::Bridge).await?;
        ensure!(seen_as(&pod).await? == pod.address().to_string());
    }
    Ok(())
}

pub async fn an_address_can_be_reused(stage: Stage) -> Result<()> {
    mirror(&stage.lab).await?;
    for style in [Style::Ptp, Style::Bridge] {
        let first = stage.lab.node().add_pod("first", style).await?;
        let (address, uid) = (first.address(), first.uid().to_owned());
        ensure!(seen_as(&first).await? == address.to_string());
        first.remove().await?;
        let second = stage
            .lab
            .node()
            .add_pod_at("second", style, address)
            .await?;
        ensure!(seen_as(&second).await? == address.to_string());
        ensure!(second.uid() != uid);
    }
    Ok(())
}

pub async fn nothing_leaves_the_lab(stage: Stage) -> Result<()> {
    let pod = stage.lab.node().add_pod("app", Style::Ptp).await?;
    let outside = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
    for namespace in [stage.lab.cloud(), stage.lab.node().namespace()] {
        let error = namespace
            .run(async move || TcpStream::connect(outside).await.err())
            .await?;
        let kind = error.map(|error| error.kind());
        ensure!(
            kind == Some(std::io::ErrorKind::NetworkUnreachable),
            "{kind:?}"
        );
    }
    // A pod has a default route to its node, which has none.
    let error = pod.namespace().run(async move || {
        let connect = TcpStream::connect(outside);
        tokio::time::timeout(Duration::from_secs(5), connect)
            .await
            .map(Result::err)
    });
    let error = error.await??.map(|error| error.kind());
    ensure!(
        error == Some(std::io::ErrorKind::NetworkUnreachable),
        "{error:?}"
    );
    Ok(())
}

pub async fn nodes_are_apart(mut stage: Stage) -> Result<()> {
    mirror(&stage.lab).await?;
    let other = stage.lab.add_node().await?;
    let here = stage.lab.node().add_pod("here", Style::Ptp).await?;
    let there = other.add_pod("there", Style::Ptp).await?;
    ensure!(here.address() != there.address());
    ensure!(seen_as(&here).await? == here.address().to_string());
    ensure!(seen_as(&there).await? == there.address().to_string());
    ensure!(
        there
            .manifest("default", "app", None)
            .contains("nodeName: node-2")
    );
    Ok(())
}
