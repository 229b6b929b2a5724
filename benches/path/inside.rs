//! Mode in-pod: a listener inside a pod against a bare server inside another one; what a listener costs; how soon it
//! stands where many pods start together.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lanyard::lab::{Agent, AgentSetup, Bundles, IMDS, Lab, Pod, Style, until};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::time::Instant;

use crate::report::Table;
use crate::rounds::{self, KINDS, median};
use crate::stage::{self, Side};
use crate::{Options, cast, once, proc};

/// Pods with a listener while memory is measured.
const FEW: u8 = 50;
const MANY: u8 = 250;
/// Pods that start together, and how often.
const TOGETHER: usize = 100;
const CROWDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(30);
/// `RTNLGRP_IPV4_IFADDR`
const ADDRESSES: u32 = 5;
/// What the agent's rule asks of each packet, without a listener to divert to.
const RULE: &str = "nft -f - <<'RULE'
table ip lanyard {
  chain in {
    type filter hook prerouting priority mangle; policy accept;
    iif lo ip daddr 169.254.169.254 tcp dport 80 tcp flags & (syn|ack) == syn accept
  }
}
RULE
";

/// Everything about listeners inside pods.
pub async fn measure(lab: &mut Lab, options: &Options) -> anyhow::Result<Table> {
    let mut table = Table::default();
    let _simulator = stage::simulator(lab).await?;
    let bundles = Bundles::new(lab)?;
    let manifests = stage::manifests(lab, "manifests")?;
    let setup = AgentSetup::new(lab.node(), &manifests)
        .flag("--mode", "in-pod")
        .flag("--runtime-state", &bundles.path().display().to_string());
    let agent = lab.agent(&setup).await?;
    if !options.apart {
        memory(lab, &agent, &bundles, &mut table).await?;
        together(lab, &bundles, &mut table).await?;
    }
    under_load(lab, options, (&agent, &bundles), &mut table).await?;
    table.conditions(options);
    Ok(table)
}

/// What a listener adds to an agent that knows its pods already, and has some listeners.
async fn memory(
    lab: &Lab,
    agent: &Agent,
    bundles: &Bundles,
    table: &mut Table,
) -> anyhow::Result<()> {
    eprintln!("{MANY} pods");
    let mut pods = Vec::new();
    for number in 1..=MANY {
        let name = format!("m{number}");
        pods.push(lab.node().add_pod(&name, Style::Ptp).await?);
    }
    let mut measured = Vec::new();
    for numbers in [1..=FEW, FEW + 1..=MANY] {
        for number in numbers.clone() {
            let pod = &pods[usize::from(number) - 1];
            let uid = format!("uid-pod-{number}");
            bundles.add_as(pod.name(), &uid, pod.namespace())?;
        }
        let wanted = format!("lanyard_inside_pods {}\n", numbers.end());
        until(LIMIT, "all listeners", async || {
            agent
                .metrics()
                .await
                .is_ok_and(|text| text.contains(&wanted))
        })
        .await?;
        measured.push(settled(agent).await?);
    }
    let each = (measured[1] - measured[0]) * 1024.0 / f64::from(MANY - FEW);
    let what = format!("memory of a listener inside a pod, {FEW} of them → {MANY}");
    table.once(&what, each, "KiB", 24.0);
    table.note(&format!(
        "the agent's own memory with {FEW} listeners: {:.1} MiB, with {MANY}: {:.1}",
        measured[0], measured[1]
    ));
    for pod in pods {
        bundles.remove(pod.name())?;
        pod.remove().await?;
    }
    Ok(())
}

/// Memory of the agent's own once it stays as it is: what its start needed is given back bit by bit.
async fn settled(agent: &Agent) -> anyhow::Result<f64> {
    let own = || proc::memory_mib(agent.process.pid(), "RssAnon");
    let mut before = own()?;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = own()?;
        if (now - before).abs() < 0.02 {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

/// From a sandbox's bundle to the first answer in it.
async fn together(lab: &Lab, bundles: &Bundles, table: &mut Table) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    for crowd in 0..CROWDS {
        eprintln!("{TOGETHER} pods start together: {} of {CROWDS}", crowd + 1);
        let mut pods = Vec::new();
        for number in 0..TOGETHER {
            let name = format!("t{crowd}-{number}");
            pods.push(lab.node().add_pod(&name, Style::Ptp).await?);
        }
        let mut waiting = Vec::new();
        for pod in &pods {
            let (ready, is_ready) = tokio::sync::oneshot::channel();
            let namespace = pod.namespace().clone();
            let waits = tokio::spawn(async move {
                namespace.run(async move || first_answer(ready).await).await
            });
            is_ready.await.context("nobody waits in the pod")?;
            waiting.push(waits);
        }
        let mut starts = Vec::new();
        for pod in &pods {
            starts.push(Instant::now());
            bundles.add(pod.name(), pod)?;
        }
        for (start, answered) in starts.into_iter().zip(waiting) {
            let at = answered.await???;
            taken.push((at - start).as_secs_f64() * 1e3);
        }
        for pod in pods {
            bundles.remove(pod.name())?;
            pod.remove().await?;
        }
    }
    taken.sort_by(f64::total_cmp);
    let p99 = taken[taken.len() * 99 / 100];
    let what = "100 pods start together: a sandbox's bundle → first answer inside, 99th percentile";
    table.once(what, p99, "ms", 100.0);
    let (middle, most) = (median(taken.iter().copied()), taken[taken.len() - 1]);
    table.note(&format!(
        "the same: median {middle:.1} ms, worst of {} {most:.1} ms",
        taken.len()
    ));
    Ok(())
}

/// Waits, without asking, until the metadata address comes to this namespace; then asks once. When the answer came.
async fn first_answer(ready: tokio::sync::oneshot::Sender<()>) -> anyhow::Result<Instant> {
    let mut netlink = Socket::new(NETLINK_ROUTE)?;
    netlink.bind(&SocketAddr::new(0, 0))?;
    netlink.add_membership(ADDRESSES)?;
    let _ = ready.send(());
    let address = IMDS.ip().octets();
    loop {
        let (told, _) = netlink.recv_from_full()?;
        if told.windows(address.len()).any(|bytes| bytes == address) {
            break;
        }
    }
    let reply = once::without_header().await?;
    ensure!(
        reply.starts_with("HTTP/1.1 400"),
        "the first answer was {reply}"
    );
    Ok(Instant::now())
}

/// Interleaved rounds of the same load in two pods: one with our listener, one with the bare server.
async fn under_load(
    lab: &Lab,
    options: &Options,
    (agent, bundles): (&Agent, &Bundles),
    table: &mut Table,
) -> anyhow::Result<()> {
    let ours = pod(lab, "ours").await?;
    let theirs = pod(lab, "theirs").await?;
    bundles.add_as("ours", "uid-pod-1", ours.namespace())?;
    let target = cast::target("vault.azure.net", None);
    let mut answer = None;
    until(LIMIT, "a token from inside", async || {
        let asked = once::ask_from(&ours, ours.address(), &target).await;
        answer = asked.ok().filter(|reply| reply.wire.contains(" 200 "));
        answer.is_some()
    })
    .await?;
    let answer = answer.context("an answer")?;
    let bare = stage::fixed(lab, theirs.namespace(), IMDS, &answer.wire, false).await?;
    let side = |name, pod: Pod, pid| Side {
        name,
        from: pod.address(),
        pod,
        pid,
    };
    let mut sides = vec![
        side("bare hyper inside", theirs, bare.pid()),
        side("lanyard inside", ours, agent.process.pid()),
    ];
    let mut parts = Vec::new();
    for (name, harness) in [("behind", false), ("harness", true)]
        .into_iter()
        .filter(|_| options.apart)
    {
        let pod = pod(lab, name).await?;
        let namespace = pod.namespace();
        namespace.output("sh", &["-c", RULE]).await?;
        let part = stage::fixed(lab, namespace, IMDS, &answer.wire, harness).await?;
        let name = if harness {
            "lanyard's harness behind the rule"
        } else {
            "bare hyper behind the rule"
        };
        sides.push(side(name, pod, part.pid()));
        parts.push(part);
    }
    let sides: Vec<&Side> = sides.iter().collect();
    for kind in KINDS {
        let rounds = rounds::run(kind, &sides, options.rounds, options.seconds).await?;
        table.loads(&rounds, &sides);
    }
    Ok(())
}

async fn pod(lab: &Lab, name: &str) -> anyhow::Result<Pod> {
    let pod = lab.node().add_pod(name, Style::Ptp).await?;
    stage::reuse_ports(&pod).await?;
    Ok(pod)
}
