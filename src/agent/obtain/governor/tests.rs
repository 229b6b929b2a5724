//! The governor on paused time: pace, lanes, pauses, callers that go away, draining.

use std::sync::Arc;

use tokio::sync::watch;

use super::*;
use crate::agent::obtain::ObtainConfig;
use crate::agent::obtain::fake::{MS, S, Steps, applicant, asker};

fn governor() -> Arc<Governor> {
    of(Service::Imds)
}

fn of(service: Service) -> Arc<Governor> {
    let [metrics, ..] = UpstreamMetrics::register(&prometheus::Registry::new()).unwrap();
    let limits = TurnLimits {
        concurrency: 4,
        ..ObtainConfig::default().upstream
    };
    Governor::new(service, limits, Steps::default().clock(), metrics)
}

fn urgency(urgent: bool) -> (watch::Sender<bool>, Urgency) {
    let (switch, follow) = watch::channel(urgent);
    (switch, Urgency::follow(follow))
}

async fn turn(governor: &Arc<Governor>, pod: &str, id: u32) -> Result<Permit, Fault> {
    let (_switch, mut urgency) = urgency(true);
    governor
        .turn(&asker(pod), applicant(id), &mut urgency)
        .await
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_paced_and_another_pod_s_first_call_is_not_behind_it() {
    let governor = governor();
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..60 {
        let governor = Arc::clone(&governor);
        flood.spawn(async move {
            let permit = turn(&governor, "flood", n).await.unwrap();
            let begun = governor.clock.mono();
            tokio::time::sleep(MS(100)).await;
            drop(permit);
            begun
        });
    }
    tokio::time::sleep(MS(500)).await;
    let asked = governor.clock.mono();
    drop(turn(&governor, "calm", 99).await.unwrap());
    // One round: one call of the flood's, at the pace of 12 a second.
    assert!(governor.clock.mono() - asked <= MS(250));
    let mut begun = flood.join_all().await;
    begun.sort();
    assert!(
        begun
            .windows(20)
            .all(|calls| calls[19] - calls[0] >= MS(900)),
        "{begun:?}"
    );
    assert!(*begun.last().unwrap() <= S(5));
    assert_eq!(governor.state.lock().turns.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_somebody_comes_to_wait_for_changes_lanes() {
    let governor = governor();
    let held: Vec<_> = [
        turn(&governor, "a", 1).await,
        turn(&governor, "b", 2).await,
        turn(&governor, "c", 3).await,
        turn(&governor, "d", 4).await,
    ]
    .into();
    let (switch, mut quiet) = urgency(false);
    let (renewal, order) = (Arc::clone(&governor), Arc::new(Mutex::new(Vec::new())));
    let note = |name: &'static str| {
        let order = Arc::clone(&order);
        move || order.lock().push(name)
    };
    let (other_done, renewal_done) = (note("other renewal"), note("needed renewal"));
    let other = Arc::clone(&governor);
    let first = tokio::spawn(async move {
        let (_switch, mut quiet) = urgency(false);
        let permit = other.turn(&asker("x"), applicant(5), &mut quiet).await;
        other_done();
        permit
    });
    tokio::time::sleep(MS(1)).await;
    let second = tokio::spawn(async move {
        let permit = renewal.turn(&asker("y"), applicant(6), &mut quiet).await;
        renewal_done();
        permit
    });
    tokio::time::sleep(MS(1)).await;
    switch.send_replace(true);
    tokio::time::sleep(MS(1)).await;
    assert_eq!(
        governor.state.lock().turns.waiting(),
        3,
        "its old place is given up lazily"
    );
    for permit in held {
        drop(permit);
        tokio::time::sleep(S(1)).await;
    }
    drop((first.await, second.await));
    assert_eq!(*order.lock(), ["needed renewal", "other renewal"]);
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_everybody_for_as_long_as_it_says() {
    let governor = governor();
    governor.pause(applicant(7), S(10));
    assert_eq!(governor.metrics.pauses(), 1);
    let fault = turn(&governor, "a", 1).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamThrottled);
    assert_eq!(fault.retry_after, Some(S(10)));
    tokio::time::sleep(MS(8_500)).await;
    // The rest is short enough to wait for.
    let permit = turn(&governor, "a", 1).await.unwrap();
    assert_eq!(governor.clock.mono(), S(10));
    drop(permit);
    governor.pause(applicant(7), S(1));
    tokio::time::sleep(MS(1_010)).await;
    assert_eq!(governor.metrics.pauses(), 0, "with nobody in line, too");
    governor.pause(applicant(7), S(86_400));
    assert_eq!(
        turn(&governor, "a", 1).await.unwrap_err().retry_after,
        Some(Service::Imds.longest_pause())
    );
}

#[tokio::test(start_paused = true)]
async fn where_an_application_is_throttled_the_others_go_on() {
    let governor = of(Service::Entra);
    governor.pause(applicant(1), S(10));
    governor.pause(applicant(2), S(20));
    assert_eq!(governor.metrics.pauses(), 2);
    let fault = turn(&governor, "a", 1).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamThrottled);
    assert_eq!(fault.retry_after, Some(S(10)));
    drop(turn(&governor, "a", 3).await.unwrap());
    assert_eq!(governor.clock.mono(), S(0));
    tokio::time::sleep(MS(8_500)).await;
    // The rest is short enough to wait for; nothing but time ends it.
    drop(turn(&governor, "a", 1).await.unwrap());
    assert_eq!(governor.clock.mono(), S(10));
    tokio::time::sleep(S(11)).await;
    assert_eq!(governor.metrics.pauses(), 0);
    assert_eq!(governor.metrics.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_that_went_away_take_no_turn() {
    let governor = governor();
    let mut held = Vec::new();
    for n in 0..4 {
        held.push(turn(&governor, "a", n).await.unwrap());
    }
    let left = tokio::time::timeout(S(1), turn(&governor, "gone", 8)).await;
    assert!(left.is_err());
    held.pop();
    assert!(turn(&governor, "here", 9).await.is_ok());
    assert_eq!(governor.state.lock().turns.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn draining_leaves_one_call_a_second_and_no_renewals() {
    let governor = governor();
    governor.drain(true);
    let (_switch, mut quiet) = urgency(false);
    let renewal = governor.turn(&asker("a"), applicant(1), &mut quiet).await;
    assert_eq!(renewal.unwrap_err().kind, FaultKind::Overloaded);
    let begin = governor.clock.mono();
    for n in 0..5 {
        drop(turn(&governor, "a", n).await.unwrap());
    }
    assert!(governor.clock.mono() - begin >= S(4));
    // The other instance died: all of it again.
    governor.drain(false);
    let begin = governor.clock.mono();
    for n in 0..14 {
        drop(turn(&governor, "a", n).await.unwrap());
    }
    assert!(governor.clock.mono() - begin <= MS(2_100));
}
