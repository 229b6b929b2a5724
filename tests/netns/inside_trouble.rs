//! Mode `in-pod`, and what must not come of it: pods left closed behind an agent that goes, or open behind one that dies,
//! pods that starve others, a log that is full of one pod, something left of pods that are gone, a pod that lost its port 80.
//!
//! In: labs as in `inside`. Out: pods as before, answers for others, one line.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, NAMESPACE, VAULT_RESOURCE};
use lanyard::demo::curl;
use lanyard::lab::{Bundles, Get, IMDS, Pod, Style, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::Stage;
use crate::inside::{
    is_clear, is_inside, lay_left_overs, raise, sample, setup, status, until_status,
};

const WAIT: Duration = Duration::from_secs(30);

/// `lanyard uninstall` beside an agent that runs on: all pods are as before, also those that come later.
pub async fn nothing_comes_back_after_an_uninstall(stage: Stage) -> Result<()> {
    let (cast, bundles, mut agent) = raise(stage, "in-pod").await?;
    let pods = [&cast.payments, &cast.reports];
    for pod in pods {
        bundles.add(pod.name(), pod)?;
    }
    let both = async || is_inside(pods[0]).await && is_inside(pods[1]).await;
    until(WAIT, "both inside", both).await?;
    let folder = bundles.path().display().to_string();
    cast.lab
        .uninstall(cast.lab.node(), &["--runtime-state", &folder])
        .await?;
    until(WAIT, "pods as before", async || {
        is_clear(pods[0]).await && is_clear(pods[1]).await
    })
    .await?;
    // A pod that comes now, and one that was there, with what looks like ours: the agent that takes it away has looked.
    bundles.add("late", &cast.stranger)?;
    for pod in [&cast.stranger, pods[0]] {
        lay_left_overs(pod).await?;
        until(Duration::from_mins(1), "a look", async || {
            is_clear(pod).await
        })
        .await?;
    }
    ensure!(is_clear(pods[1]).await && is_clear(&cast.stranger).await);
    ensure!(sample(&agent, "lanyard_inside_pods").await == Some(0));
    agent.process.still_running()?;
    Ok(())
}

/// From `mixed` to `redirect`: who takes over may not enter the pods, so who goes leaves none behind closed.
pub async fn who_gives_way_to_redirection_takes_along_what_it_laid(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let bundles = Bundles::new(&cast.lab)?;
    let pod = &cast.payments;
    let manifest = pod.manifest(NAMESPACE, "payments", Some("payments"));
    let annotated = manifest.replace("annotations: {", "annotations: {lanyard.dev/mode: in-pod, ");
    cast.manifests.write("pod-payments.yaml", &annotated)?;
    bundles.add("one", pod)?;
    let setup = |mode: &str| cast.agent(&stage.backend).flag("--mode", mode);
    let mixed = setup("mixed").flag("--runtime-state", &bundles.path().display().to_string());
    let mut first = cast.lab.agent(&mixed).await?;
    let served = async |inside: bool| is_inside(pod).await == inside && status(pod).await == 200;
    until(WAIT, "a token from inside", async || served(true).await).await?;
    let mut second = cast
        .lab
        .agent(&setup("redirect").second("second", 9465))
        .await?;
    until(WAIT, "a token by redirection", async || served(false).await).await?;
    ensure!(is_clear(pod).await);
    // Its owner is told that the annotation has no effect here.
    ensure!(sample(&second, "lanyard_inside_unheard_pods").await == Some(1));
    ensure!(sample(&first, "lanyard_inside_unheard_pods").await == Some(0));
    // The one that took over dies: who is still there serves as before.
    second.process.kill9().await?;
    until(WAIT, "a token from inside again", async || {
        served(true).await
    })
    .await?;
    let _third = cast
        .lab
        .agent(&setup("redirect").second("third", 9466))
        .await?;
    until(WAIT, "redirection again", async || served(false).await).await?;
    first.process.term();
    first.process.wait_exit(WAIT).await?;
    ensure!(served(false).await && is_clear(pod).await);
    let leaks = cast.leaks(0).await?;
    ensure!(leaks.is_empty(), "{leaks:#?}");
    Ok(())
}

/// A pod opens whatever it can: another one is answered all the time, and the agent's descriptors have a bound.
pub async fn a_pod_that_floods_keeps_no_other_from_its_answers(stage: Stage) -> Result<()> {
    const SHARED: usize = 4096;
    const OWN: usize = 16;
    let cast = Cast::raise(stage.lab, &[]).await?;
    let bundles = Bundles::new(&cast.lab)?;
    let setup = cast
        .agent(&stage.backend)
        .flag("--mode", "in-pod")
        .flag("--runtime-state", &bundles.path().display().to_string())
        // One pod is to be as bad as many.
        .flag("--max-connections-per-pod", "1000000");
    let agent = cast.lab.agent(&setup).await?;
    lanyard::serve::limits::raise_open_files()?;
    let (bad, good) = (&cast.reports, &cast.payments);
    for pod in [bad, good] {
        bundles.add(pod.name(), pod)?;
        until_status(pod, 200).await?;
    }
    let before = agent.process.descriptors()?;
    let stop = Arc::new(AtomicBool::new(false));
    let flood = tokio::spawn({
        let (stop, namespace) = (stop.clone(), bad.namespace().clone());
        async move {
            let work = async move || {
                let mut held = VecDeque::new();
                while !stop.load(Ordering::Relaxed) {
                    held.extend(std::net::TcpStream::connect(IMDS).ok());
                    if held.len() > SHARED + 1000 {
                        held.pop_front();
                    }
                }
            };
            namespace.run(work).await
        }
    });
    let refused = "lanyard_connections_limited_total{limit=\"total\",listener=\"inside\"}";
    let mut most = 0;
    for _ in 0..10 {
        // All that is shared is taken, now.
        let counted = sample(&agent, refused).await;
        until(WAIT, "a full pool", async || {
            sample(&agent, refused).await > counted
        })
        .await?;
        let answered = status(good).await;
        ensure!(answered == 200, "{answered}");
        most = most.max(agent.process.descriptors()?);
    }
    ensure!(most > before + SHARED / 2, "it was no flood: {most}");
    ensure!(most <= before + SHARED + 3 * OWN, "{before} before, {most}");
    stop.store(true, Ordering::Relaxed);
    flood.await??;
    until(WAIT, "all given back", async || {
        agent.process.descriptors().is_ok_and(|now| now <= before)
    })
    .await?;
    Ok(())
}

/// A pod that does not let itself be mended is in the log once, however often it is tried.
pub async fn a_pod_that_cannot_be_mended_is_told_of_once(stage: Stage) -> Result<()> {
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    let pod = &cast.payments;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    let moved = "ip addr del 169.254.169.254/32 dev lo && ip addr add 169.254.169.254/32 dev eth0";
    pod.namespace().output("sh", &["-c", moved]).await?;
    let failures = "lanyard_inside_failures_total{reason=\"failed\"}";
    until(Duration::from_mins(2), "three attempts", async || {
        sample(&agent, failures).await >= Some(3)
    })
    .await?;
    let told = || agent.process.log().matches("trouble in a pod;").count();
    ensure!(told() == 1, "told {} times", told());
    pod.namespace()
        .ip("addr del 169.254.169.254/32 dev eth0\n")
        .await?;
    until(Duration::from_mins(1), "its end in the log", async || {
        agent.process.log().contains("the trouble in a pod is over")
    })
    .await?;
    until_status(pod, 200).await
}

/// What was laid, with the kernel's numbers: laid anew it would have others.
async fn laid(pod: &Pod) -> Result<String> {
    let namespace = pod.namespace();
    let table = ["-a", "list", "table", "ip", "lanyard"];
    let address = ["-4", "addr", "show", "dev", "lo"];
    Ok(namespace.output("nft", &table).await? + &namespace.output("ip", &address).await?)
}

/// Nobody can take anything away any more: pods are refused at once, also new ones, and the next agent uses what is there.
pub async fn a_crash_closes_pods_until_the_next_agent(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let (cast, bundles, mut agent) = raise(stage, "in-pod").await?;
    let (old, new) = (&cast.payments, &cast.reports);
    bundles.add("old", old)?;
    until_status(old, 200).await?;
    let before = laid(old).await?;
    // One that hangs would keep the others from being counted.
    let request = Get::token(VAULT_RESOURCE).within(WAIT * 2);
    let knocking = old.namespace().knock(IMDS, request);
    let served = async || {
        let before = knocking.tally().status(200);
        let more = async || knocking.tally().status(200) > before + 20;
        until(WAIT, "more tokens", more).await
    };
    let refused = || knocking.tally().failed.get("connection refused").copied();
    served().await?;
    agent.process.kill9().await?;
    until(WAIT, "a refusal", async || refused() >= Some(1)).await?;
    let answers = knocking.tally().by_status;
    // A pod that starts now, behind all of the node's rules, and behind what is left without the first of them.
    bundles.add("new", new)?;
    for table in ["", "nat", "filter"] {
        if !table.is_empty() {
            let program = format!("iptables-{backend}");
            let node = cast.lab.node().namespace();
            node.output(&program, &["-t", table, "-F"]).await?;
        }
        let request = Get::token(VAULT_RESOURCE).within(Duration::from_secs(1));
        let said = new.namespace().get(IMDS, &request).await;
        ensure!(said.is_err(), "after flushing {table:?}: {said:?}");
    }
    until(WAIT, "more refusals", async || refused() >= Some(50)).await?;
    ensure!(knocking.tally().by_status == answers);
    let leaks = cast.leaks(0).await?;
    ensure!(leaks.is_empty(), "{leaks:#?}");
    let setup = setup(&cast, &bundles, &backend, "in-pod");
    let again = cast.lab.agent(&setup).await?;
    served().await?;
    until_status(new, 200).await?;
    ensure!(is_inside(new).await);
    let after = laid(old).await?;
    ensure!(after == before, "{before}, and now {after}");
    ensure!(sample(&again, "lanyard_inside_mended_total").await == Some(0));
    let tally = knocking.stop().await?;
    // The dead one may have had one in hand; the next one may still be hearing of the pod.
    let cut = tally.failures() - tally.failed["connection refused"];
    let known = tally
        .by_status
        .keys()
        .all(|status| [200, 503].contains(status));
    ensure!(cut <= 1 && known, "{tally:?}");
    let leaks = cast.leaks(0).await?;
    ensure!(leaks.is_empty(), "{leaks:#?}");
    Ok(())
}

/// Serves one page on port 80 of all the pod's addresses, until what is given goes.
pub async fn web_server(pod: &Pod) -> Result<JoinSet<std::io::Result<()>>> {
    let bound = pod.namespace();
    let bound = bound.run(async || std::net::TcpListener::bind("0.0.0.0:80"));
    let bound = bound.await??;
    bound.set_nonblocking(true)?;
    let listener = TcpListener::from_std(bound)?;
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut request = Vec::with_capacity(4096);
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.read_buf(&mut request).await?;
            stream.write_all(b"HTTP/1.1 418 Mine\r\n\r\nmine").await?;
            request.clear();
        }
    });
    Ok(serving)
}

/// Whether the pod's own page is at an address.
async fn is_own_page(pod: &Pod, address: SocketAddrV4) -> Result<bool> {
    let reply = pod.namespace().get(address, &Get::new("/")).await?;
    Ok(reply.body == "mine")
}

/// It listens on all addresses, before us or after us: the metadata address is the agent's as long as there is one.
pub async fn a_pods_own_web_server_keeps_its_port(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let (cast, bundles, mut agent) = raise(stage, "in-pod").await?;
    let setup = setup(&cast, &bundles, &backend, "in-pod");
    let pod = &cast.payments;
    let mut server = web_server(pod).await?;
    bundles.add("one", pod)?;
    until(WAIT, "the address", async || is_inside(pod).await).await?;
    let principal = &cast.world.identity("payments")?.principal_id;
    for round in ["it was first", "we were first"] {
        let asked = curl::token(pod, VAULT_RESOURCE, "").await?;
        let claims = asked.claims().with_context(|| format!("{asked:?}"))?;
        ensure!(claims.oid == *principal, "{round}: {claims:?}");
        for own in [Ipv4Addr::LOCALHOST, pod.address()] {
            let own = SocketAddrV4::new(own, 80);
            ensure!(is_own_page(pod, own).await?, "{round}: {own}");
        }
        let from_outside = SocketAddrV4::new(pod.address(), 80);
        let node = cast.lab.node().namespace();
        let reply = node.get(from_outside, &Get::new("/")).await?;
        ensure!(reply.body == "mine", "{round}: {reply:?}");
        server.shutdown().await;
        server = web_server(pod).await?;
    }
    let leaks = cast.leaks(0).await?;
    ensure!(leaks.is_empty(), "{leaks:#?}");
    // The rule finds nobody, and the address is one of the pod's.
    agent.process.kill9().await?;
    ensure!(is_own_page(pod, IMDS).await?, "the documents say otherwise");
    let _again = cast.lab.agent(&setup).await?;
    until(WAIT, "the agent again", async || {
        is_own_page(pod, IMDS).await.is_ok_and(|own| !own)
    })
    .await?;
    Ok(())
}

/// Bundles that go at once, and bundles whose namespace goes as they come or has gone before.
pub async fn pods_that_vanish_during_entry_leave_nothing(stage: Stage) -> Result<()> {
    const PODS: u64 = 150;
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    bundles.add("first", &cast.payments)?;
    until_status(&cast.payments, 200).await?;
    let before = agent.process.descriptors()?;
    let mut left = Vec::new();
    for number in 0..PODS {
        let name = format!("brief-{number}");
        let pod = cast.lab.node().add_pod(&name, Style::Ptp).await?;
        let add = async || bundles.add(&name, &pod);
        // Its wire goes with its namespace.
        let gone = pod.namespace().delete();
        let (added, gone) = match number % 3 {
            0 => {
                let added = add().await.and_then(|()| bundles.remove(&name));
                (added, gone.await)
            }
            1 => tokio::join!(add(), gone),
            _ => {
                let gone = gone.await;
                (add().await, gone)
            }
        };
        added?;
        gone?;
        left.extend((number % 3 > 0).then_some(name));
    }
    let (served, failed) = (
        "lanyard_inside_ready_seconds_count",
        "lanyard_inside_failures_total{reason=\"failed\"}",
    );
    let count = async |series: &str| sample(&agent, series).await.unwrap_or_default();
    // All whose bundle stayed are entered, or found gone.
    until(WAIT, "all tried", async || {
        let failed = count(failed).await;
        failed >= PODS / 3 && count(served).await + failed > PODS / 3 * 2
    })
    .await?;
    println!(
        "{} entered, {} failures",
        count(served).await,
        count(failed).await
    );
    for name in left {
        bundles.remove(&name)?;
    }
    until(WAIT, "no descriptor more than before", async || {
        let closed = agent.process.descriptors().is_ok_and(|now| now <= before);
        closed && sample(&agent, "lanyard_inside_pods").await == Some(1)
    })
    .await?;
    ensure!(sample(&agent, "lanyard_inside_threads_stuck").await == Some(0));
    ensure!(status(&cast.payments).await == 200);
    bundles.add("another", &cast.reports)?;
    until_status(&cast.reports, 200).await
}

/// Sends what the pod asks the metadata address for straight to the cloud, before the node's netfilter sees it.
async fn lead_past(cast: &Cast, pod: &Pod) -> Result<()> {
    let (node, wire) = (cast.lab.node(), pod.host_link());
    let link = ["-br", "link", "show", node.name()];
    let link = cast.lab.cloud().output("ip", &link).await?;
    let cloud = link.split_whitespace().nth(2).context("its address")?;
    let rules = format!(
        "table netdev {wire} {{ chain in {{ type filter hook ingress device {wire} priority 0; \
         ip daddr 169.254.169.254 ether daddr set {cloud} fwd to cloud; }}; }}"
    );
    node.namespace().output("nft", &[&rules]).await?;
    Ok(())
}

/// As with eBPF host routing.
pub async fn past_the_nodes_netfilter_pods_are_served_and_closed(stage: Stage) -> Result<()> {
    let (cast, bundles, _agent) = raise(stage, "in-pod").await?;
    let (granted, stranger) = (&cast.payments, &cast.stranger);
    for pod in [granted, stranger] {
        lead_past(&cast, pod).await?;
        // Before its listener stands nothing of ours sees it: the gap of the documents, and the proof that it is led past.
        let since = cast.now().await?;
        status(pod).await;
        ensure!(!cast.leaks(since).await?.is_empty(), "{}", pod.name());
        bundles.add(pod.name(), pod)?;
        until(WAIT, "its address", async || is_inside(pod).await).await?;
    }
    let since = cast.now().await?;
    let asked = curl::token(granted, VAULT_RESOURCE, "").await?;
    let claims = asked.claims().with_context(|| format!("{asked:?}"))?;
    ensure!(claims.oid == cast.world.identity("payments")?.principal_id);
    ensure!(status(stranger).await == 400);
    let leaks = cast.leaks(since).await?;
    ensure!(leaks.is_empty(), "{leaks:#?}");
    Ok(())
}
