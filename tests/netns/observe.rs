//! An agent that only observes on a real node: nobody notices it, not even its end; and a node moves
//! between observing and enforcing by a restart.
//!
//! In: the usual cast, load from a granted pod and from one that nothing was granted to. Out: what
//! each gets, and what the agent remembers.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, MANIFESTS, VAULT_RESOURCE};
use lanyard::lab::{Get, IMDS, WIRE_SERVER, until};

use crate::harness::Stage;
use crate::standin::tracks_connections;

const WAIT: Duration = Duration::from_secs(30);

/// What the stranger asks for: an identity of the node's that nothing grants it.
fn greedy(cast: &Cast) -> Result<Get> {
    let client_id = &cast.world.identity("payments")?.client_id;
    let path = "/metadata/identity/oauth2/token?api-version=2018-02-01";
    let target = format!("{path}&resource={VAULT_RESOURCE}&client_id={client_id}");
    Ok(Get::new(target).header("Metadata", "true").within(WAIT))
}

async fn stranger_gets(cast: &Cast, status: u16) -> Result<()> {
    let (namespace, request) = (cast.stranger.namespace(), greedy(cast)?);
    let what = format!("the stranger to get {status}");
    let waited = until(WAIT, what, async || {
        let reply = namespace.get(IMDS, &request).await;
        reply.is_ok_and(|reply| reply.status == status)
    });
    Ok(waited.await?)
}

/// Passed on, told, and gone without a trace: the stranger's load never fails.
pub async fn nobody_notices_an_agent_that_observes(stage: Stage) -> Result<()> {
    // As on every node with kube-proxy: a connection through the agent lives on after its rule is gone.
    tracks_connections(&stage).await?;
    let cast = Cast::raise(stage.lab, &[]).await?;
    stranger_gets(&cast, 200).await?;
    let socket = cast.lab.dir("health")?.join("health.sock");
    let socket = socket.to_string_lossy().into_owned();
    let setup = cast.agent(&stage.backend).flag("--enforcement", "observe");
    let mut agent = cast
        .lab
        .agent(&setup.flag("--health-socket", &socket))
        .await?;
    let stranger = cast.stranger.namespace().knock(IMDS, greedy(&cast)?);
    let granted = cast
        .payments
        .namespace()
        .knock(IMDS, Get::token(VAULT_RESOURCE).within(WAIT));
    until(WAIT, "both to be answered", async || {
        stranger.tally().status(200) > 20 && granted.tally().status(200) > 20
    })
    .await?;
    let goal = Get::new("/machine?comp=goalstate").within(WAIT);
    let wire = SocketAddrV4::new(WIRE_SERVER, 80);
    cast.stranger
        .namespace()
        .get(wire, &goal)
        .await
        .context("the wire server is open as before")?;

    let metrics = agent.metrics().await?;
    ensure!(metrics.contains("lanyard_enforcing 0"), "{metrics}");
    ensure!(
        !metrics.contains("lanyard_observed_total{outcome=\"identity_not_found\"} 0\n"),
        "{metrics}"
    );
    let program = cast.lab.program().to_string_lossy().into_owned();
    let node = cast.lab.node().namespace();
    let suggested = node
        .output(&program, &["suggest", "--local", "--socket", &socket])
        .await?;
    let client_id = &cast.world.identity("payments")?.client_id;
    for words in [
        "kind: AzureIdentityBinding",
        "naming client_id=",
        &format!("clientID: \"{client_id}\""),
    ] {
        ensure!(suggested.contains(words), "{words}: {suggested}");
    }
    ensure!(!suggested.contains("eyJ"), "a token is shown");

    // One namespace is moved to enforcement, and back.
    let label = "labels: {team: shop, lanyard.dev/enforce: \"true\"}";
    let enforced = MANIFESTS.replace("labels: {team: shop}", label);
    ensure!(
        enforced != MANIFESTS,
        "the demo's namespace has other labels"
    );
    cast.manifests.write("shop.yaml", &enforced)?;
    stranger_gets(&cast, 400).await?;
    cast.manifests.write("shop.yaml", MANIFESTS)?;
    stranger_gets(&cast, 200).await?;

    agent.process.term();
    agent.process.wait_exit(WAIT).await?;
    let before = stranger.tally().status(200);
    until(
        WAIT,
        "the stranger to be answered without an agent",
        async || stranger.tally().status(200) > before + 20,
    )
    .await?;
    let (stranger, granted) = (stranger.stop().await?, granted.stop().await?);
    ensure!(
        stranger.failures() == 0,
        "the stranger noticed: {stranger:?}"
    );
    ensure!(
        granted.failures() == 0,
        "the granted pod noticed: {granted:?}"
    );
    Ok(())
}

/// By a restart a node moves to enforcement and back, whichever rules the one before left.
pub async fn a_restart_moves_between_observing_and_enforcing(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let enforce = cast.agent(&stage.backend);
    let observe = enforce.clone().flag("--enforcement", "observe");
    for (setup, status) in [
        (&observe, 200),
        (&enforce, 400),
        (&observe, 200),
        (&enforce, 400),
    ] {
        let mut agent = cast.lab.agent(setup).await?;
        stranger_gets(&cast, status).await?;
        // Killed: what it leaves is what it had laid.
        agent.process.kill9().await?;
        let reply = cast.stranger.namespace().get(IMDS, &greedy(&cast)?).await;
        ensure!(
            reply.is_err(),
            "refused until the next one starts: {reply:?}"
        );
    }
    Ok(())
}
