//! Mode in-pod: a listener inside a pod against a bare server inside another one; what a listener costs; how soon it
//! stands where many pods start together.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lanyard::lab::{Agent, AgentSetup, Bundles, IMDS, Lab, Namespace, Pod, Process, Style, until};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::time::Instant;

use crate::charged::Charged;
use crate::report::Table;
use crate::rounds::{self, KINDS, median};
use crate::stage::{self, Side};
use crate::{Options, cast, once, proc};

/// Listeners while memory is measured. The line is laid through all but the first.
const STEPS: [usize; 5] = [50, 250, 500, 750, 1000];
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
    let (holder, socket) = holder(lab).await?;
    let setup = AgentSetup::new(lab.node(), &manifests)
        .flag("--mode", "in-pod")
        .flag("--hold-socket", &socket.display().to_string())
        .flag("--runtime-state", &bundles.path().display().to_string());
    let agent = lab.agent(&setup).await?;
    if !options.apart {
        memory((&agent, &holder), &bundles, &mut table).await?;
        together(lab, &bundles, &mut table).await?;
    }
    under_load(lab, options, (&agent, &bundles), &mut table).await?;
    table.conditions(options);
    Ok(table)
}

/// Who keeps the agent's listeners open while it restarts, as the chart runs it beside each agent.
async fn holder(lab: &Lab) -> anyhow::Result<(Process, PathBuf)> {
    let socket = lab.dir("hold")?.join("s");
    let mut command = lab.node().namespace().command(lab.program());
    command.arg("hold").arg("--socket").arg(&socket);
    let holder = Process::start("hold", command, &lab.logs().join("hold.log"))?;
    until(LIMIT, "the holder", async || socket.exists()).await?;
    Ok((holder, socket))
}

/// What a listener adds to an agent that knows its pods already, and to its holder: their own memory, and the kernel's. By a line through
/// steps beyond what a node has: the first hundreds of listeners fit into what the start left free.
async fn memory(
    (agent, holder): (&Agent, &Process),
    bundles: &Bundles,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut networks = Vec::new();
    let both = [agent.process.pid(), holder.pid()];
    let charged = Charged::to(&both);
    let (mut own, mut kernels) = (Vec::new(), Vec::new());
    for most in STEPS {
        eprintln!("{most} listeners");
        for number in networks.len() + 1..=most {
            let network = Namespace::create(&format!("m{number}")).await?;
            bundles.add_as(network.name(), &format!("uid-pod-{number}"), &network)?;
            networks.push(network);
        }
        let wanted = ["pods", "held"].map(|what| format!("lanyard_inside_{what} {most}\n"));
        until(LIMIT, "all listeners", async || {
            let text = agent.metrics().await;
            text.is_ok_and(|text| wanted.iter().all(|wanted| text.contains(wanted)))
        })
        .await?;
        let many = most as f64;
        own.push((many, settled(&both).await? * 1024.0));
        if let Ok(charged) = &charged {
            kernels.push((many, charged.bytes()? / 1024.0));
        }
    }
    let steep = (slope(&own[1..]), slope(&kernels[1.min(kernels.len())..]));
    let what = "memory of a listener inside a pod, the agent's, its holder's and the kernel's";
    if let Err(error) = &charged {
        table.note(&format!("the kernel's memory is not in it: {error}"));
    }
    table.once(what, steep.0 + steep.1.max(0.0), "KiB", 24.0);
    table.note(&format!(
        "of that the two processes' own (RssAnon): {:.1} KiB, the kernel's (charged to its cgroup): {:.1} KiB",
        steep.0, steep.1
    ));
    let steps = |all: &[(f64, f64)]| {
        let one = |(many, kib): &(f64, f64)| format!("{many} → {:.2}", kib / 1024.0);
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    table.note(&format!(
        "listeners → MiB of the two processes' own: {}; of the kernel's: {}",
        steps(&own),
        steps(&kernels)
    ));
    for network in networks {
        bundles.remove(network.name())?;
        network.delete().await?;
    }
    let gone = "lanyard_inside_pods 0\n";
    until(LIMIT, "no listener", async || {
        let text = agent.metrics().await;
        text.is_ok_and(|text| text.contains(gone))
    })
    .await?;
    Ok(())
}

/// By least squares: of `y` for each one of `x`.
fn slope(points: &[(f64, f64)]) -> f64 {
    let many = (points.len() as f64).max(1.0);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / many;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

/// Memory of the processes' own in MiB once it stays as it is: what their start needed is given back bit by bit.
async fn settled(pids: &[u32]) -> anyhow::Result<f64> {
    let own = || {
        let each = pids.iter().map(|pid| proc::memory_mib(*pid, "RssAnon"));
        each.sum::<anyhow::Result<f64>>()
    };
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
