//! Turns: the limits hold over any load, and nobody is kept waiting by a flood.

use super::*;
use proptest::prelude::*;

use crate::agent::obtain::ObtainConfig;
use crate::agent::obtain::fake::{MS, applicant, asker};

fn limits() -> TurnLimits {
    TurnLimits {
        concurrency: 4,
        ..ObtainConfig::default().upstream
    }
}

fn unpaced() -> TurnLimits {
    TurnLimits {
        rate: Rate {
            per_second: 1_000_000,
            burst: 1_000_000,
        },
        ..limits()
    }
}

fn wait(turns: &mut Turns<u32>, who: &str, identity: u32, urgent: bool) -> bool {
    let waiting = Waiting {
        asker: asker(who),
        applicant: applicant(identity),
        waker: 0,
    };
    turns.wait(waiting, urgent).is_ok()
}

fn go(turns: &mut Turns<u32>, now: Duration) -> Option<(String, Applicant)> {
    match turns.next(now, |_| true) {
        Turn::Go(next) => Some((next.asker.uid.to_string(), next.applicant)),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn imds_never_sees_more_than_it_allows(
        steps in proptest::collection::vec((0u64..40, 0u32..6, 0u32..8, any::<bool>(), 0u64..400), 1..500)
    ) {
        let mut turns = Turns::new(limits());
        let mut running: Vec<(Duration, Applicant)> = Vec::new();
        let (mut now, mut begun) = (MS(10_000), Vec::new());
        for (gap, pod, identity, urgent, takes) in steps {
            wait(&mut turns, &pod.to_string(), identity, urgent);
            now += MS(gap);
            running.retain(|(end, id)| {
                if *end <= now {
                    turns.end(*id, takes % 3 > 0);
                }
                *end > now
            });
            while let Some((_, id)) = go(&mut turns, now) {
                running.push((now + MS(takes), id));
                begun.push(now);
                prop_assert!(running.len() <= 4);
                prop_assert!(running.iter().filter(|(_, other)| *other == id).count() <= 2);
            }
        }
        for (at, start) in begun.iter().enumerate() {
            let count = begun[at..].iter().filter(|time| **time <= *start + MS(1_000)).count();
            prop_assert!(count <= 15, "{} calls in a second", count);
        }
    }
}

#[test]
fn a_flood_delays_another_pod_s_call_by_one_call() {
    let mut turns = Turns::new(unpaced());
    for n in 0..50 {
        assert!(wait(&mut turns, "flood", n % 20, true));
    }
    assert_eq!(go(&mut turns, MS(0)).unwrap().0, "flood");
    assert!(wait(&mut turns, "calm", 30, true));
    assert_eq!(go(&mut turns, MS(0)).unwrap().0, "flood");
    assert_eq!(go(&mut turns, MS(0)).unwrap().0, "calm");
}

#[test]
fn what_somebody_waits_for_goes_before_renewals() {
    let mut turns = Turns::new(unpaced());
    assert!(wait(&mut turns, "a", 1, false) && wait(&mut turns, "b", 2, true));
    assert_eq!(go(&mut turns, MS(0)).unwrap().0, "b");
    assert_eq!(go(&mut turns, MS(0)).unwrap().0, "a");
}

#[test]
fn an_identity_in_trouble_leaves_room_for_the_others() {
    let mut turns = Turns::new(unpaced());
    for _ in 0..10 {
        assert!(wait(&mut turns, "bad-1", 1, true) && wait(&mut turns, "bad-2", 2, true));
    }
    let first: Vec<_> = std::iter::from_fn(|| go(&mut turns, MS(0))).collect();
    assert_eq!(first.len(), 4, "two each");
    for (_, id) in first {
        turns.end(id, false);
    }
    let again: Vec<_> = std::iter::from_fn(|| go(&mut turns, MS(0))).collect();
    assert_eq!(again.len(), 2, "one each, half of all");
    assert!(wait(&mut turns, "good", 3, true));
    assert_eq!(go(&mut turns, MS(0)).unwrap().1, applicant(3));
    // Well again: as before.
    for (_, id) in again {
        turns.end(id, true);
    }
    turns.end(applicant(3), true);
    assert_eq!(std::iter::from_fn(|| go(&mut turns, MS(0))).count(), 4);
}

#[test]
fn the_queue_is_bounded_for_all_and_for_each() {
    let mut turns = Turns::new(TurnLimits {
        waiting: 10,
        waiting_per_asker: 4,
        ..limits()
    });
    let flood = (0..50)
        .filter(|n| wait(&mut turns, "flood", *n, true))
        .count();
    assert_eq!(flood, 4);
    let rest = (0..50)
        .filter(|n| wait(&mut turns, &n.to_string(), *n, true))
        .count();
    // Also what the flood had more than others.
    assert_eq!((rest, turns.waiting()), (9, 10));
    // Those that went away make room.
    assert!(matches!(turns.next(MS(0), |_| false), Turn::Idle));
    assert_eq!(turns.waiting(), 0);
    assert!(wait(&mut turns, "flood", 1, true));
    assert!(go(&mut turns, MS(0)).is_some());
}

#[test]
fn a_pause_holds_everything_back() {
    let mut turns = Turns::new(limits());
    turns.pause(MS(900));
    turns.pause(MS(300));
    assert!(wait(&mut turns, "a", 1, true));
    assert!(matches!(turns.next(MS(899), |_| true), Turn::Later(at) if at == MS(900)));
    assert_eq!(turns.paused(applicant(1), MS(400)), MS(500));
    assert!(go(&mut turns, MS(900)).is_some());
}

#[test]
fn many_that_flood_together_keep_nobody_out() {
    let limits = unpaced();
    let mut turns = Turns::new(limits);
    let pods = limits.waiting / limits.waiting_per_asker;
    for pod in 0..pods {
        for _ in 0..limits.waiting_per_asker {
            assert!(wait(&mut turns, &format!("flood-{pod}"), 1, true));
        }
    }
    assert_eq!(turns.waiting(), limits.waiting);
    assert!(wait(&mut turns, "calm", 2, true));
    assert!(wait(&mut turns, "renewing", 3, false));
    assert!(!wait(&mut turns, "flood-0", 1, true));
    assert_eq!(turns.waiting(), limits.waiting);
    let next: Vec<_> = std::iter::from_fn(|| go(&mut turns, MS(1_000))).collect();
    assert!(next.iter().any(|(who, _)| who == "calm"), "{next:?}");
}
