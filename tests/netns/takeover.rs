//! Two instances on one node: the newer takes the rules over, the older takes them back.
//!
//! In: instances that share a state directory. Out: invariant 6 as far as it is the rules': not one
//! new connection is lost at the swap, and a dead owner is replaced.

use anyhow::{Result, ensure};
use lanyard::agent::intercept::Ownership;
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::lab::{Get, IMDS, Style, until};

use crate::guard::Guard;
use crate::harness::Stage;
use crate::standin::{Cloud, LEAK, PATIENCE, asks, by, instance, on_node, tracks_connections};

pub async fn a_second_instance_takes_over_without_a_failed_request(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    tracks_connections(&stage).await?;
    let mut first = instance(&stage, "first").await?;
    let node = stage.lab.node();
    let pod = node.add_pod("app", Style::Ptp).await?;
    let knocking = pod.namespace().knock(IMDS, Get::new("/"));
    until(PATIENCE, "requests", async || {
        knocking.tally().status(200) >= 20
    })
    .await?;
    let mut second = instance(&stage, "second").await?;
    first
        .sees(|seen| matches!(seen, Ownership::StoodDown { .. }))
        .await?;
    second
        .sees(|seen| matches!(seen, Ownership::Owner { .. }))
        .await?;
    ensure!(asks(&pod, IMDS).await? == by("second", &pod));
    ensure!(first.metrics.owner.get() == 0 && second.metrics.owner.get() == 1);
    // The first one sees to nothing any more, also not after a change.
    on_node(node, &format!("iptables-{} -t nat -F", stage.backend)).await?;
    until(PATIENCE, "the second's repair", async || {
        second.repaired("jump_missing") == 1
    })
    .await?;
    ensure!(first.repaired("jump_missing") == 0);
    ensure!(asks(&pod, IMDS).await? == by("second", &pod));
    let tally = knocking.stop().await?;
    let refused = tally
        .failed
        .keys()
        .all(|kind| kind.starts_with("connection re"));
    ensure!(
        refused && tally.status(LEAK) == 0 && cloud.hits() == 0,
        "{tally:?}"
    );
    Ok(())
}

pub async fn the_swap_loses_no_request(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let mut running = vec![instance(&stage, "agent-0").await?];
    let node = stage.lab.node();
    let mut knocking = Vec::new();
    for (name, style) in [("ptp", Style::Ptp), ("bridged", Style::Bridge)] {
        let pod = node.add_pod(name, style).await?;
        knocking.push(pod.namespace().knock(IMDS, Get::new("/")));
    }
    for round in 1..=5 {
        let seen = knocking[0].tally().status(200);
        running.push(instance(&stage, &format!("agent-{round}")).await?);
        let old = &mut running[round - 1];
        old.sees(|seen| matches!(seen, Ownership::StoodDown { .. }))
            .await?;
        // Its listener still answers what came before the swap, as a drain does.
        old.drain();
        until(PATIENCE, "more requests", async || {
            knocking[0].tally().status(200) > seen + 20
        })
        .await?;
    }
    for knocking in knocking {
        let tally = knocking.stop().await?;
        ensure!(
            tally.failures() == 0 && tally.attempts() == tally.status(200),
            "{tally:?}"
        );
    }
    ensure!(cloud.hits() == 0);
    Ok(())
}

pub async fn the_older_instance_takes_back_what_a_dead_one_left(stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let mut first = instance(&stage, "first").await?;
    let pod = stage.lab.node().add_pod("app", Style::Ptp).await?;
    let second = instance(&stage, "second").await?;
    first
        .sees(|seen| matches!(seen, Ownership::StoodDown { .. }))
        .await?;
    ensure!(asks(&pod, IMDS).await? == by("second", &pod));
    second.die().await?;
    let start = std::time::Instant::now();
    first
        .sees(|seen| matches!(seen, Ownership::Owner { .. }))
        .await?;
    println!("taken back after {:?}", start.elapsed());
    ensure!(asks(&pod, IMDS).await? == by("first", &pod));
    ensure!(first.repaired("holder_dead") == 1);
    ensure!(cloud.hits() == 0);
    Ok(())
}

pub async fn damaged_state_files_hurt_nobody(stage: Stage) -> Result<()> {
    let folder = stage.lab.node().state_dir();
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("epoch"), [0xff; 40])?;
    std::fs::write(folder.join("instance-18446744073709551615.lock"), "")?;
    std::fs::write(folder.join("instance-99.lock"), "stale")?;
    let mut first = instance(&stage, "first").await?;
    first
        .sees(|seen| matches!(seen, Ownership::Owner { epoch: 100, .. }))
        .await?;
    std::fs::remove_dir_all(&folder)?;
    let mut second = instance(&stage, "second").await?;
    second
        .sees(|seen| matches!(seen, Ownership::Owner { epoch: 101, .. }))
        .await?;
    first
        .sees(|seen| matches!(seen, Ownership::StoodDown { by: 101, .. }))
        .await?;
    Ok(())
}

pub async fn whole_agents_hand_over_and_take_back(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    Guard::post(&cast).await?;
    let setup = cast.agent(&stage.backend);
    let mut first = cast.lab.agent(&setup).await?;
    let guard = Guard::begin(&cast).await?;
    let request = Get::token(VAULT_RESOURCE).within(PATIENCE);
    let knocking = cast.payments.namespace().knock(IMDS, request);
    let served = async |many: u64| {
        let before = knocking.tally().status(200);
        until(PATIENCE, "more tokens", async || {
            knocking.tally().status(200) > before + many
        })
        .await
    };
    served(20).await?;
    // An upgrade: the new one is ready, then the old one is told to go, and drains.
    let _second = cast
        .lab
        .agent(&setup.clone().second("second", 9465))
        .await?;
    first.process.term();
    let status = first.process.wait_exit(PATIENCE).await?;
    ensure!(status.success(), "{status}");
    served(20).await?;
    let tally = knocking.tally();
    ensure!(
        tally.attempts() == tally.status(200),
        "the hand-over lost requests: {tally:?}"
    );
    // A bad upgrade: the newer one dies at once, the older one serves on.
    let mut third = cast.lab.agent(&setup.second("third", 9466)).await?;
    third.process.kill9().await?;
    let start = std::time::Instant::now();
    served(1).await?;
    println!("taken back after {:?}", start.elapsed());
    knocking.stop().await?;
    guard.nothing_leaked(&cast).await
}
