//! The self-test proves what it says, and nothing is left of it.
//!
//! In: a real agent on a node, rules taken away by hand. Out: passed exactly where a pod would be
//! intercepted; the packets of a failed test are counted in the cloud, so that "closed" and "leaks"
//! are told apart by a witness.

use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::agent::intercept::{DEFAULT_AGENT_ADDRESS, Ownership};
use lanyard::agent::selftest::{Failure, once};
use lanyard::demo::cast::Cast;
use lanyard::lab::{Get, IMDS, Lab, until};

use crate::harness::Stage;
use crate::standin::on_node;

const WAIT: Duration = Duration::from_secs(20);
/// The pretended pod.
const POD: &str = "169.254.169.251";
/// Whoever answers with our nonce will do: the agent is another process than this one.
const ANYBODY: Ownership = Ownership::StoodDown {
    by: 0,
    enters_pods: false,
};

async fn test(lab: &Lab) -> Result<Result<(), Failure>> {
    let node = lab.node().namespace();
    let outcome = node
        .run(async || once(DEFAULT_AGENT_ADDRESS, ANYBODY).await)
        .await?;
    ensure!(
        on_node(lab.node(), "ip link show lanyard-st0")
            .await
            .is_err(),
        "the pair is left"
    );
    Ok(outcome)
}

/// Packets of the pretended pod that the cloud saw.
async fn leaked(lab: &Lab) -> Result<bool> {
    let rules = lab
        .cloud()
        .output("iptables-nft", &["-nvxL", "INPUT"])
        .await?;
    let line = rules.lines().find(|line| line.contains(POD));
    let packets = line.and_then(|line| line.split_whitespace().next());
    Ok(packets.is_some_and(|packets| packets != "0"))
}

pub async fn passes_where_pods_are_intercepted(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let setup = cast.agent(&stage.backend).flag("--self-test", "true");
    let agent = cast.lab.agent(&setup).await?;
    ensure!(agent.metrics().await?.contains("lanyard_selftest_ok 1"));
    let node = cast.lab.node();
    for (key, values) in [
        ("net/ipv4/conf/all/rp_filter", ["0", "2", "1"]),
        ("net/ipv4/conf/all/arp_ignore", ["1", "2", "0"]),
        ("net/ipv4/ip_forward", ["0", "0", "1"]),
    ] {
        for value in values {
            node.namespace().sysctl(key, value).await?;
            let outcome = test(&cast.lab).await?;
            ensure!(outcome == Ok(()), "{key}={value}: {outcome:?}");
        }
    }
    Ok(())
}

pub async fn fails_where_the_way_in_is_gone_and_nothing_leaks(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let count = ["-A", "INPUT", "-s", POD];
    cast.lab.cloud().output("iptables-nft", &count).await?;
    let mut agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    ensure!(test(&cast.lab).await? == Ok(()));
    agent.process.kill9().await?;
    let (node, b) = (cast.lab.node(), &stage.backend);
    // With the legacy backend connections are tracked only while some rule needs it.
    let flush = format!("iptables-{b} -t nat -F PREROUTING");
    on_node(node, &flush).await?;
    ensure!(test(&cast.lab).await? == Err(Failure::Refused));
    ensure!(!leaked(&cast.lab).await?, "the door in FORWARD is open");
    // With the door gone as well the bolt drops it.
    on_node(node, &format!("iptables-{b} -F FORWARD")).await?;
    ensure!(test(&cast.lab).await? == Err(Failure::Silent));
    ensure!(!leaked(&cast.lab).await?, "the bolt in FORWARD is open");
    // The witness is one: without any of them the packet leaves the node.
    on_node(node, &format!("iptables-{b} -t security -F FORWARD")).await?;
    ensure!(test(&cast.lab).await? == Err(Failure::Silent));
    ensure!(
        leaked(&cast.lab).await?,
        "the cloud's counter does not count"
    );
    Ok(())
}

pub async fn readiness_waits_for_it(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let (node, b) = (cast.lab.node().clone(), stage.backend.clone());
    // What a killed agent left.
    on_node(
        &node,
        "ip link add lanyard-st0 type veth peer name lanyard-st1",
    )
    .await?;
    let drop = |what: &str| format!("iptables-{b} -t raw {what} PREROUTING -s {POD} -j DROP");
    on_node(&node, &drop("-A")).await?;
    let setup = cast.agent(&stage.backend).flag("--self-test", "true");
    let mut agent = cast.lab.start_agent(&setup)?;
    let pages = |page| {
        let (node, admin) = (node.namespace().clone(), agent.admin());
        async move { node.get(admin, &Get::new(page)).await }
    };
    until(WAIT, "the reason", async || {
        pages("/readyz").await.is_ok_and(|reply| {
            reply.status == 503
                && reply
                    .body
                    .trim()
                    .starts_with("self-test: no answer: packets from pods")
        })
    })
    .await?;
    // A pod is served meanwhile: what is not ready is the proof.
    let granted = cast
        .payments
        .namespace()
        .get(IMDS, &Get::token("https://vault.azure.net"))
        .await?;
    ensure!(granted.status == 200, "{granted:?}");
    let metrics = agent.metrics().await?;
    ensure!(metrics.contains("lanyard_selftest_ok 0"), "{metrics}");
    ensure!(
        !metrics.contains("lanyard_selftest_failures_total{stage=\"silent\"} 0"),
        "{metrics}"
    );
    on_node(&node, &drop("-D")).await?;
    agent.ready(WAIT).await?;
    Ok(())
}
