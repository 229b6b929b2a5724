//! Mode `in-pod`, and what must not come of it: pods left closed behind an agent that goes, pods that starve others, a log
//! that is full of one pod.
//!
//! In: labs as in `inside`. Out: pods as before, answers for others, one line.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::demo::cast::{Cast, NAMESPACE};
use lanyard::lab::{Bundles, IMDS, until};

use crate::harness::Stage;
use crate::inside::{is_clear, is_inside, raise, sample, status, until_status};

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
    let ours = "ip addr add 169.254.169.254/32 dev lo scope host && nft add table ip lanyard";
    for pod in [&cast.stranger, pods[0]] {
        pod.namespace().output("sh", &["-c", ours]).await?;
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
    let open =
        || std::fs::read_dir(format!("/proc/{}/fd", agent.process.pid())).map(Iterator::count);
    let before = open()?;
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
        most = most.max(open()?);
    }
    ensure!(most > before + SHARED / 2, "it was no flood: {most}");
    ensure!(most <= before + SHARED + 3 * OWN, "{before} before, {most}");
    stop.store(true, Ordering::Relaxed);
    flood.await??;
    until(WAIT, "all given back", async || {
        open().is_ok_and(|now| now <= before)
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
