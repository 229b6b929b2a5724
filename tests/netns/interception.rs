//! What the rules promise: pods reach the agent and never the platform, whatever happens to the rules.
//!
//! In: a cloud that counts, pods, the real keeper in front of a stand-in listener. Out: invariants 2
//! and 6 as far as they are the kernel's: redirect, backstop, repair, cutting, removal.

use std::net::SocketAddrV4;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lanyard::agent::intercept::Ownership;
use lanyard::lab::{IMDS, Node, Pod, Style, WIRE_SERVER, until};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::Stage;
use crate::standin::{
    AGENT, Cloud, Instance, PATIENCE, asks, by, instance, on_node, start, tracks_connections,
};

const REFUSED: &str = "connection refused";
const WIRE: SocketAddrV4 = SocketAddrV4::new(WIRE_SERVER, 80);

pub async fn pods_reach_the_agent_with_their_own_address(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let _agent = instance(&stage, "agent").await?;
    let node = stage.lab.node();
    let ptp = node.add_pod("ptp", Style::Ptp).await?;
    ensure!(asks(&ptp, IMDS).await? == by("agent", &ptp));
    let bridged = node.add_pod("bridged", Style::Bridge).await?;
    for bridged_packets_pass_iptables in ["0", "1"] {
        let key = "net/bridge/bridge-nf-call-iptables";
        node.namespace()
            .sysctl(key, bridged_packets_pass_iptables)
            .await?;
        ensure!(
            asks(&bridged, IMDS).await? == by("agent", &bridged),
            "{key}"
        );
    }
    ensure!(cloud.hits() == 0, "{} requests left the node", cloud.hits());
    Ok(())
}

pub async fn the_wire_server_is_closed_and_its_dns_is_not(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let agent = instance(&stage, "agent").await?;
    for style in [Style::Ptp, Style::Bridge] {
        let (pod, before) = (stage.lab.node().add_pod("app", style).await?, cloud.hits());
        for port in [80, 32526] {
            let answer = asks(&pod, SocketAddrV4::new(WIRE_SERVER, port)).await?;
            ensure!(answer == REFUSED, "port {port}: {answer}");
        }
        ensure!(cloud.hits() == before);
        resolves(&pod).await?;
    }
    // The node itself still needs it.
    let node = stage.lab.node().namespace();
    node.run(async || TcpStream::connect(WIRE).await.map(drop))
        .await??;
    agent.die().await?;
    let unguarded = start(&stage, "agent", false)?;
    unguarded.is_ready().await?;
    let pod = stage.lab.node().add_pod("other", Style::Ptp).await?;
    ensure!(
        asks(&pod, WIRE).await? == by("cloud", &pod),
        "--guard-wire-server=false"
    );
    ensure!(asks(&pod, IMDS).await? == by("agent", &pod));
    Ok(())
}

/// DNS by udp and by tcp.
async fn resolves(pod: &Pod) -> Result<()> {
    let asked = pod.namespace().run(async || {
        let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await?;
        socket.send_to(b"query", (WIRE_SERVER, 53)).await?;
        let mut answer = [0; 16];
        let waited = tokio::time::timeout(Duration::from_secs(3), socket.recv(&mut answer));
        anyhow::Ok(waited.await??)
    });
    ensure!(asked.await?? == 5, "udp");
    let answer = asks(pod, SocketAddrV4::new(WIRE_SERVER, 53)).await?;
    ensure!(answer == by("cloud", pod), "tcp: {answer}");
    Ok(())
}

/// Breaks something three times; the agent must mend it and count it. How long it took goes into the
/// scenario's log: a time is no assertion (BENCHMARKS.md has it).
async fn is_mended(
    stage: &Stage,
    agent: &Instance,
    kinds: &[&str],
    breaks: &[String],
) -> Result<()> {
    let node = stage.lab.node();
    let table = rules(node, &stage.backend).await?;
    let mut took = Vec::new();
    for _ in 0..3 {
        let before: u64 = kinds.iter().map(|kind| agent.repaired(kind)).sum();
        for line in breaks {
            on_node(node, line).await?;
        }
        let start = Instant::now();
        until(PATIENCE, format!("repair after {breaks:?}"), async || {
            let mended = rules(node, &stage.backend)
                .await
                .is_ok_and(|now| ours_first(&now, &table));
            mended && kinds.iter().map(|kind| agent.repaired(kind)).sum::<u64>() > before
        })
        .await?;
        took.push(start.elapsed());
    }
    println!("{breaks:?}: repairs took {took:?}");
    Ok(())
}

/// Rules of both tables in order, and the addresses of `lo`.
async fn rules(node: &Node, backend: &str) -> Result<String> {
    let [nat, filter] =
        ["nat", "filter"].map(|table| format!("iptables-{backend}-save -t {table}"));
    let mut text = on_node(node, &nat).await? + &on_node(node, &filter).await?;
    text += &on_node(node, "ip -o -4 addr show dev lo").await?;
    Ok(text)
}

/// Whether all lines of ours are there, and each jump before anybody's rule in its chain.
fn ours_first(now: &str, table: &str) -> bool {
    let ours = |text: &str| -> Vec<String> {
        let mine = |line: &&str| line.contains("lanyard:") || line.contains(&AGENT.to_string());
        text.lines().filter(mine).map(str::to_owned).collect()
    };
    let first = |chain: &str| {
        let rule = now
            .lines()
            .find(|line| line.starts_with(&format!("-A {chain} ")));
        rule.is_some_and(|rule| rule.contains("-j LANYARD-"))
    };
    ours(now) == ours(table) && first("PREROUTING") && first("FORWARD")
}

pub async fn what_decides_before_our_jump_is_overtaken(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let (agent, b) = (instance(&stage, "agent").await?, &stage.backend);
    let shadow = [
        format!("iptables-{b} -t nat -I PREROUTING 1 -p tcp --dport 80 -j ACCEPT"),
        format!("iptables-{b} -t filter -I FORWARD 1 -p tcp -j ACCEPT"),
    ];
    is_mended(&stage, &agent, &["jump_shadowed"], &shadow[..1]).await?;
    agent.die().await?;
    let agent = instance(&stage, "agent").await?;
    is_mended(&stage, &agent, &["jump_shadowed"], &shadow[1..]).await?;
    let pod = stage.lab.node().add_pod("app", Style::Ptp).await?;
    ensure!(asks(&pod, IMDS).await? == by("agent", &pod));
    ensure!(asks(&pod, WIRE).await? == REFUSED);
    ensure!(cloud.hits() == 0);
    Ok(())
}

/// `iptables -F` of both tables, or a restored set of somebody else's: the way in and the door are gone
/// at once, until the repair. Pods ask all the while.
pub async fn flushing_both_tables_opens_nothing(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let (agent, b) = (instance(&stage, "agent").await?, &stage.backend);
    let node = stage.lab.node();
    let pod = node.add_pod("app", Style::Ptp).await?;
    ensure!(asks(&pod, IMDS).await? == by("agent", &pod));
    let foreign = stage.lab.dir("foreign")?.join("rules");
    std::fs::write(
        &foreign,
        "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n",
    )?;
    let restore = format!("iptables-{b}-restore {}", foreign.display());
    for _ in 0..5 {
        let before = agent.repaired("jump_missing") + agent.repaired("chain_missing");
        on_node(node, &restore).await?;
        let mended = async || {
            // Whatever the answer is: no answer of the cloud's is the point.
            let said = asks(&pod, IMDS).await;
            ensure!(
                cloud.hits() == 0,
                "the metadata service was reached: {said:?}"
            );
            let now = agent.repaired("jump_missing") + agent.repaired("chain_missing");
            Ok::<_, anyhow::Error>(now > before)
        };
        let start = Instant::now();
        while !mended().await? {
            ensure!(start.elapsed() < PATIENCE, "no repair after {restore}");
        }
    }
    ensure!(cloud.hits() == 0, "the metadata service was reached");
    Ok(())
}

pub async fn flushed_rules_and_a_lost_address_come_back(stage: Stage) -> Result<()> {
    let _cloud = Cloud::open(&stage.lab).await?;
    let b = &stage.backend;
    let empty = stage.lab.dir("flush")?.join("empty");
    std::fs::write(&empty, "*nat\nCOMMIT\n*filter\nCOMMIT\n")?;
    // In one transaction: between two commands the agent would have mended the first.
    let gone = stage.lab.dir("flush")?.join("gone");
    let lines = [
        "*nat",
        "-F PREROUTING",
        "-F LANYARD-PREROUTING",
        "-X LANYARD-PREROUTING",
        "COMMIT",
        "",
    ];
    std::fs::write(&gone, lines.join("\n"))?;
    let mut cases: Vec<(&[&str], Vec<String>)> = vec![
        (&["jump_missing"], vec![format!("iptables-{b} -F FORWARD")]),
        (
            &["jump_missing", "chain_changed"],
            vec![format!("iptables-{b} -F")],
        ),
        (
            &["chain_missing"],
            vec![format!("iptables-{b}-restore --noflush {}", gone.display())],
        ),
        (
            &["chain_missing"],
            vec![format!("iptables-{b}-restore {}", empty.display())],
        ),
        (
            &["address_missing"],
            vec![format!("ip addr del {AGENT}/32 dev lo")],
        ),
    ];
    if b == "nft" {
        cases.push((&["chain_missing"], vec!["nft flush ruleset".to_owned()]));
    }
    let pod = stage.lab.node().add_pod("app", Style::Ptp).await?;
    for (kinds, breaks) in cases {
        // Each time a new one: an instance does not mend without end within a minute.
        let agent = instance(&stage, "agent").await?;
        is_mended(&stage, &agent, kinds, &breaks).await?;
        ensure!(asks(&pod, IMDS).await? == by("agent", &pod), "{breaks:?}");
        agent.die().await?;
    }
    Ok(())
}

pub async fn without_the_jump_the_door_is_closed(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let agent = instance(&stage, "agent").await?;
    agent.die().await?;
    let node = stage.lab.node();
    for (name, style) in [("ptp", Style::Ptp), ("bridged", Style::Bridge)] {
        let pod = node.add_pod(name, style).await?;
        ensure!(
            asks(&pod, IMDS).await? == REFUSED,
            "the rules outlive the agent"
        );
    }
    on_node(node, &format!("iptables-{} -t nat -F", stage.backend)).await?;
    for (name, style) in [("ptp2", Style::Ptp), ("bridged2", Style::Bridge)] {
        let pod = node.add_pod(name, style).await?;
        ensure!(asks(&pod, IMDS).await? == REFUSED, "REJECT in FORWARD");
    }
    ensure!(cloud.hits() == 0);
    Ok(())
}

pub async fn connections_from_before_are_cut(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let node = stage.lab.node();
    tracks_connections(&stage).await?;
    let pod = node.add_pod("app", Style::Ptp).await?;
    let of_pod = pod.namespace().run(async || open(IMDS).await).await??;
    let of_node = node.namespace().run(async || open(IMDS).await).await??;
    let (mut of_pod, mut of_node) = (TcpStream::from_std(of_pod)?, TcpStream::from_std(of_node)?);
    let before = cloud.hits();
    let agent = instance(&stage, "agent").await?;
    ensure!(
        agent.metrics.cut.get() == 1,
        "{} were cut",
        agent.metrics.cut.get()
    );
    let answer = request(&mut of_pod).await;
    ensure!(
        answer.is_err(),
        "an old connection was answered: {answer:?}"
    );
    ensure!(cloud.hits() == before);
    request(&mut of_node)
        .await
        .context("the node's own connections go on")?;
    Ok(())
}

async fn open(address: SocketAddrV4) -> Result<std::net::TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    request(&mut stream).await?;
    // It is to be used by another thread's runtime.
    Ok(stream.into_std()?)
}

async fn request(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    let mut answer = [0; 256];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await??;
    ensure!(read > 0, "closed");
    Ok(())
}

pub async fn uninstall_leaves_others_rules_as_they_were(stage: Stage) -> Result<()> {
    let (node, b) = (stage.lab.node(), &stage.backend);
    for rule in [
        "-t nat -A PREROUTING -p tcp --dport 8080 -m comment --comment a\"b -j ACCEPT",
        "-t nat -N KUBE-SERVICES",
        "-t nat -A PREROUTING -j KUBE-SERVICES",
        "-t filter -A FORWARD -d 10.1.2.3 -j DROP",
        "-t filter -P FORWARD ACCEPT",
    ] {
        on_node(node, &format!("iptables-{b} {rule}")).await?;
    }
    on_node(node, "ip addr add 169.254.20.10/32 dev lo").await?;
    let bare = |text: String| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with(':'));
        lines.map(str::to_owned).collect()
    };
    let before = bare(rules(node, b).await?);
    instance(&stage, "agent").await?.die().await?;
    ensure!(bare(rules(node, b).await?) != before);
    let said = stage.lab.uninstall(node, &[]).await?;
    ensure!(
        said.contains("LANYARD-PREROUTING") && said.contains("169.254.169.252"),
        "{said}"
    );
    ensure!(bare(rules(node, b).await?) == before, "{said}");
    let again = stage.lab.uninstall(node, &[]).await?;
    ensure!(!again.contains("removed"), "{again}");
    ensure!(bare(rules(node, b).await?) == before, "{again}");
    ensure!(!node.state_dir().exists(), "state files are left");
    Ok(())
}

pub async fn uninstall_is_obeyed_by_a_running_agent(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let mut agent = instance(&stage, "agent").await?;
    let pod = stage.lab.node().add_pod("app", Style::Ptp).await?;
    ensure!(asks(&pod, IMDS).await? == by("agent", &pod));
    stage.lab.uninstall(stage.lab.node(), &[]).await?;
    agent.sees(|seen| *seen == Ownership::Removed).await?;
    ensure!(!agent.ready.is_ready());
    ensure!(
        asks(&pod, IMDS).await? == by("cloud", &pod),
        "removed is removed"
    );
    ensure!(cloud.hits() == 1);
    agent.die().await?;
    // A new start is a new wish.
    let _agent = instance(&stage, "agent").await?;
    ensure!(asks(&pod, IMDS).await? == by("agent", &pod));
    Ok(())
}

pub async fn a_failing_iptables_is_not_ready_and_heals(stage: Stage) -> Result<()> {
    let broken = stage.lab.dir("broken")?.join("iptables");
    std::fs::write(&broken, "#!/bin/sh\necho broken on purpose >&2\nexit 3\n")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&broken, mode)?;
    let which = format!("which iptables-{}-restore", stage.backend);
    let program = on_node(stage.lab.node(), &which).await?;
    let program = std::fs::canonicalize(program.trim())?;
    // Seen by this lab only.
    mount(
        Some(&broken),
        &program,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let agent = start(&stage, "agent", true)?;
    until(PATIENCE, "failures to be counted", async || {
        agent.metrics.failures.get() >= 3
    })
    .await?;
    let pending = agent.ready.pending();
    ensure!(
        pending
            .iter()
            .any(|(_, why)| why.contains("broken on purpose")),
        "{pending:?}"
    );
    umount2(&program, MntFlags::MNT_DETACH)?;
    agent.is_ready().await?;
    Ok(())
}

pub async fn a_held_lock_is_waited_for(stage: Stage) -> Result<()> {
    let lock = std::fs::File::options()
        .write(true)
        .open("/run/xtables.lock")?;
    let held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    ensure!(held.as_fd().try_clone_to_owned().is_ok());
    let agent = start(&stage, "agent", true)?;
    if stage.backend == "legacy" {
        until(PATIENCE, "the lock to be missed", async || {
            agent.metrics.failures.get() >= 1
        })
        .await?;
        let pending = agent.ready.pending();
        ensure!(
            pending.iter().any(|(_, why)| why.contains("lock")),
            "{pending:?}"
        );
    }
    drop(held);
    agent.is_ready().await
}

pub async fn who_fights_over_the_rules_finds_the_door_closed(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let agent = instance(&stage, "agent").await?;
    let (node, b) = (stage.lab.node(), &stage.backend);
    let pod = node.add_pod("app", Style::Ptp).await?;
    let fight = format!("iptables-{b} -t nat -I PREROUTING 1 -p tcp -j ACCEPT");
    until(PATIENCE, "the alarm", async || {
        on_node(node, &fight).await.is_ok() && agent.metrics.contested.get() == 1
    })
    .await?;
    let repairs = agent.repaired("jump_shadowed");
    for _ in 0..10 {
        on_node(node, &fight).await?;
        let answer = asks(&pod, IMDS).await?;
        ensure!(answer == REFUSED || answer == by("agent", &pod), "{answer}");
    }
    ensure!(agent.repaired("jump_shadowed") <= repairs + 1, "backed off");
    let pending = agent.ready.pending();
    ensure!(
        pending
            .iter()
            .any(|(_, why)| why.contains("rewrites iptables")),
        "{pending:?}"
    );
    on_node(node, &format!("iptables-{b} -F FORWARD")).await?;
    until(PATIENCE, "the door to be closed again", async || {
        agent.repaired("jump_missing") >= 1
    })
    .await?;
    ensure!(cloud.hits() == 0);
    Ok(())
}
