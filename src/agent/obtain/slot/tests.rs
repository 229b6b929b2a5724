//! A slot's life, moment by moment.

use super::*;
use crate::agent::obtain::fake::{BEGIN, fault, token};

const fn at(seconds: u64) -> Moment {
    let mono = s(seconds);
    Moment {
        wall: s(BEGIN.as_secs() + seconds),
        mono,
    }
}

fn held(now: Moment, life: u64) -> Arc<Held> {
    let token = token(1, "r", now.wall, s(life));
    Arc::new(Held::new(token, Claims::default(), now, 0.5))
}

#[test]
fn a_token_lives_no_longer_than_it_says_whatever_was_promised() {
    let of = |life: u64| {
        let claims = Claims {
            life: Some(s(life)),
            ..Claims::default()
        };
        let token = token(1, "r", at(0).wall, s(3600));
        Held::new(token, claims, at(0), 0.5)
    };
    let sooner = of(600);
    assert_eq!(sooner.left(at(0)), s(600));
    assert!(sooner.is_usable(at(569)) && !sooner.is_usable(at(570)));
    assert_eq!(of(7200).left(at(0)), s(3600), "and never later");
}

#[test]
fn an_empty_slot_fetches_and_then_waits() {
    let mut slot = Slot::default();
    assert_eq!(slot.decide(at(0), false), Decision::Fetch(None));
    slot.begin(at(0));
    assert_eq!(slot.decide(at(500), false), Decision::Wait(None));
}

#[test]
fn the_life_of_a_token() {
    let mut slot = Slot::default();
    assert_eq!(
        slot.succeed(held(at(0), 3600), Wanted::Any, at(0)),
        Renewal::Renewed
    );
    // Half of its life and half of a tenth of jitter: 1980 s.
    for (now, decision) in [
        (0, Decision::Serve),
        (1_979, Decision::Serve),
        (1_980, Decision::ServeAndRefresh),
        (3_299, Decision::ServeAndRefresh),
        (3_300, Decision::Fetch(Some(s(3_303)))),
        (3_569, Decision::Fetch(Some(s(3_572)))),
        (3_570, Decision::Fetch(None)),
        (9_999, Decision::Fetch(None)),
    ] {
        assert_eq!(slot.decide(at(now), false), decision, "at {now} s");
    }
    slot.begin(at(3_290));
    for (now, decision) in [
        (3_290, Decision::Serve),
        (3_300, Decision::Serve),
        (3_570, Decision::Wait(None)),
    ] {
        assert_eq!(
            slot.decide(at(now), false),
            decision,
            "in flight, at {now} s"
        );
    }
}

#[test]
fn failing_renewals_come_further_apart_and_closer_again_near_the_end() {
    let mut slot = Slot::default();
    slot.succeed(held(at(0), 86_400), Wanted::Any, at(0));
    let (mut now, mut gaps) = (43_200 + 4_400, Vec::new());
    while now < 86_400 - 300 {
        assert_eq!(slot.decide(at(now), false), Decision::ServeAndRefresh);
        slot.begin(at(now));
        slot.fail(fault(FaultKind::UpstreamUnavailable), at(now), 1.0);
        let before = now;
        while slot.decide(at(now), false) == Decision::Serve {
            now += 1;
        }
        gaps.push(now - before);
    }
    assert_eq!(gaps[..7], [5, 10, 20, 40, 80, 160, 300]);
    assert_eq!(gaps.iter().max(), Some(&300));
    assert!(*gaps.last().unwrap() <= 40, "{gaps:?}");
}

#[test]
fn nobody_waits_for_another_try_after_one_that_failed() {
    let mut slot = Slot::default();
    slot.succeed(held(at(0), 240), Wanted::Any, at(0));
    slot.begin(at(40));
    assert_eq!(slot.decide(at(41), false), Decision::Wait(Some(s(43))));
    slot.fail(fault(FaultKind::UpstreamUnavailable), at(48), 1.0);
    assert_eq!(slot.decide(at(49), false), Decision::Serve);
    assert_eq!(slot.decide(at(80), false), Decision::ServeAndRefresh);
    slot.begin(at(80));
    assert_eq!(slot.decide(at(81), false), Decision::Serve);
    // A try that brought something is one that a short token may wait for again.
    slot.succeed(held(at(82), 240), Wanted::Any, at(82));
    assert!(matches!(
        slot.decide(at(120), false),
        Decision::Fetch(Some(_))
    ));
}

#[test]
fn the_longer_of_two_tokens_is_kept() {
    let mut slot = Slot::default();
    slot.succeed(held(at(0), 3_600), Wanted::Any, at(0));
    assert_eq!(
        slot.succeed(held(at(100), 2_000), Wanted::Any, at(100)),
        Renewal::Unchanged
    );
    assert_eq!(
        slot.usable(at(100)).unwrap().token.expires_on,
        at(3_600).wall
    );
    assert_eq!(
        slot.succeed(held(at(200), 3_600), Wanted::Any, at(200)),
        Renewal::Renewed
    );
}

#[test]
fn a_refusal_does_not_throw_a_valid_token_away() {
    let mut slot = Slot::default();
    slot.succeed(held(at(0), 3_600), Wanted::Any, at(0));
    slot.begin(at(2_000));
    slot.fail(SourceError::NotHere(String::new()), at(2_000), 0.0);
    assert_eq!(slot.decide(at(2_001), false), Decision::Serve);
    assert!(slot.is_failing() && slot.refusal().is_none());
}

#[test]
fn a_changed_credential_makes_the_token_at_hand_due_and_forgets_refusals() {
    let mut slot = Slot::default();
    slot.succeed(held(at(0), 3_600), Wanted::Any, at(0));
    slot.renew(at(10));
    assert_eq!(slot.decide(at(10), false), Decision::ServeAndRefresh);
    slot.begin(at(10));
    assert_eq!(
        slot.decide(at(10), false),
        Decision::Serve,
        "one is on its way"
    );
    // The new credential does not work yet: the token at hand is served on, and it is tried again.
    let refused = fault(FaultKind::UpstreamRefused);
    assert_eq!(slot.fail(refused.clone(), at(11), 1.0), refused);
    assert_eq!(slot.decide(at(12), false), Decision::Serve);
    assert_eq!(slot.decide(at(16), false), Decision::ServeAndRefresh);
    // A token by the new credential takes its place, even if it ends before.
    slot.begin(at(16));
    let new = held(at(17), 1_800);
    assert_eq!(slot.succeed(new, Wanted::Any, at(17)), Renewal::Renewed);
    assert_eq!(slot.decide(at(18), false), Decision::Serve);

    let mut slot = Slot::default();
    slot.begin(at(0));
    slot.fail(refused, at(0), 0.0);
    assert_eq!(slot.decide(at(1), false), Decision::Refuse(s(5)));
    slot.renew(at(1));
    assert_eq!(slot.decide(at(1), false), Decision::Fetch(None));
}

#[test]
fn what_the_credential_of_before_brought_does_not_count_as_the_new_ones() {
    let mut slot = Slot::default();
    slot.begin(at(0));
    slot.renew(at(1));
    slot.fail(fault(FaultKind::UpstreamRefused), at(2), 0.0);
    assert_eq!(slot.decide(at(2), false), Decision::Fetch(None));
    slot.begin(at(2));
    slot.renew(at(3));
    slot.succeed(held(at(4), 3_600), Wanted::Any, at(4));
    assert_eq!(slot.decide(at(4), false), Decision::ServeAndRefresh);
    slot.begin(at(4));
    slot.succeed(held(at(5), 3_600), Wanted::Any, at(5));
    assert_eq!(slot.decide(at(6), false), Decision::Serve);
}

#[test]
fn a_new_token_that_was_wanted_takes_the_place_of_a_longer_one() {
    let mut slot = Slot::default();
    slot.succeed(held(at(0), 3_600), Wanted::Any, at(0));
    slot.succeed(held(at(0), 1_800), Wanted::New, at(0));
    assert_eq!(slot.usable(at(0)).unwrap().left(at(0)), s(1_800));
}

#[test]
fn a_source_in_trouble_that_was_not_here_is_still_not_here() {
    let mut slot = Slot::default();
    let not_here = SourceError::NotHere("403".to_owned());
    slot.begin(at(0));
    slot.fail(not_here.clone(), at(0), 0.0);
    slot.begin(at(6));
    let told = slot.fail(fault(FaultKind::UpstreamUnavailable), at(7), 0.0);
    assert_eq!(told, not_here);
    assert_eq!(slot.refusal(), Some(&not_here));
    // A refusal is a word of its own.
    slot.begin(at(13));
    let refused = fault(FaultKind::UpstreamRefused);
    assert_eq!(slot.fail(refused.clone(), at(14), 0.0), refused);
    assert_eq!(slot.refusal(), Some(&refused));
}
