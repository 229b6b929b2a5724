//! A token's life in the cache: renewed ahead, kept when that fails, never served too long.

use super::super::CacheState::{Hit, Refreshing, Stale};
use super::*;

/// Asks every `gap` until `end` (monotonic); everything must be answered.
async fn ask_until(bench: &Bench, gap: Duration, end: Duration) -> Vec<Obtained> {
    let mut all = Vec::new();
    while bench.broker.clock.mono() < end {
        all.push(ask(bench, &grant(1), VAULT).await.unwrap());
        tokio::time::sleep(gap).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_once_about_half_way_and_nobody_waits() {
    let bench = bench();
    bench.fake.say(1, Reply::Lives(S(3600)));
    let all = ask_until(&bench, S(10), S(2300)).await;
    assert!(
        all[1..]
            .iter()
            .all(|one| matches!(one.cache, Hit | Refreshing))
    );
    let times = bench.fake.times(1);
    assert_eq!(times.len(), 2);
    assert!(times[1] >= S(1800) && times[1] <= S(2170), "{times:?}");
    assert!(!bench.fake.last_was_urgent());
    assert!(all.iter().all(|one| one.left > S(300)));
    // Nobody asks: nothing is renewed.
    tokio::time::sleep(S(86_400)).await;
    assert_eq!(bench.fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_valid_token_is_served_while_renewal_fails_until_thirty_seconds_before_its_end() {
    let bench = bench();
    bench.fake.say(1, Reply::Lives(S(3600)));
    let first = ask(&bench, &grant(1), VAULT).await.unwrap();
    bench
        .fake
        .say(1, Reply::Fails(fault(FaultKind::UpstreamUnavailable)));
    let end = first.token.expires_on - BEGIN;
    let all = ask_until(&bench, S(7), end - S(40)).await;
    assert!(all.iter().all(|one| Arc::ptr_eq(&one.token, &first.token)));
    assert_eq!(all.last().unwrap().cache, Stale);
    let tries = bench.fake.calls();
    assert!((8..60).contains(&tries), "{tries} tries in half an hour");
    tokio::time::sleep_until(bench.broker.clock.instant(end - S(30))).await;
    let fault = ask(&bench, &grant(1), VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamUnavailable);
    assert!(fault.retry_after.unwrap() >= S(1));
    // The source is back: so is the token.
    bench.fake.say(1, Reply::Lives(S(3600)));
    tokio::time::sleep(S(5)).await;
    assert!(ask(&bench, &grant(1), VAULT).await.unwrap().left > S(3500));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_served_a_moment_before_the_boundary_and_not_on_it() {
    let bench = bench();
    bench.fake.say(1, Reply::Lives(S(3600)));
    let end = ask(&bench, &grant(1), VAULT)
        .await
        .unwrap()
        .token
        .expires_on
        - BEGIN;
    bench.fake.say(1, Reply::Silent);
    let broker = &bench.broker;
    tokio::time::sleep_until(broker.clock.instant(end - MS(30_001))).await;
    // The first try for a longer one is waited for; it takes until the token is of no use.
    let begun = broker.try_cached(Request::new(&grant(1), VAULT, &asker("pod")));
    assert!(begun.is_none());
    tokio::time::sleep_until(broker.clock.instant(end - S(30))).await;
    assert!(
        broker
            .try_cached(Request::new(&grant(1), VAULT, &asker("pod")))
            .is_none()
    );
    let fault = ask(&bench, &grant(1), VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamUnavailable);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_end_is_not_asked_about_again_for_a_while() {
    let bench = bench();
    // IMDS has two hours left on its own cache's token, and then a new one.
    bench.fake.say(1, Reply::Until(BEGIN + S(7200)));
    ask_until(&bench, S(5), S(7200 - 660)).await;
    let times = bench.fake.times(1);
    for pair in times[1..].windows(2) {
        let left = S(7200) - pair[0];
        assert!(pair[1] - pair[0] >= S(300).max(left / 10), "{times:?}");
    }
    assert!(times.len() >= 4 && times.len() <= 14, "{times:?}");
    bench.fake.say(1, Reply::Until(BEGIN + S(7200 + 86_400)));
    ask_until(&bench, S(5), S(7200 - 300)).await;
    let all = ask_until(&bench, S(5), S(8000)).await;
    assert!(all.iter().all(|one| one.left > S(300)));
}

#[tokio::test(start_paused = true)]
async fn with_a_short_token_a_longer_one_is_tried_for_first() {
    let bench = bench();
    bench.fake.say(1, Reply::Lives(S(3600)));
    ask(&bench, &grant(1), VAULT).await.unwrap();
    tokio::time::sleep(S(3310)).await;
    // At 290 s left, without a request since: the caller gets the longer one.
    let longer = ask(&bench, &grant(1), VAULT).await.unwrap();
    assert!(longer.left > S(3500));

    // None can be had: the short one is served, after a bounded wait, and soon without any.
    bench.fake.say(1, Reply::Silent);
    tokio::time::sleep(S(3310)).await;
    let clock = &bench.broker.clock;
    let begin = clock.mono();
    assert_eq!(ask(&bench, &grant(1), VAULT).await.unwrap().cache, Stale);
    assert_eq!(clock.mono() - begin, super::super::slot::SHORT_WAIT);
    let begin = clock.mono();
    for _ in 0..20 {
        assert_eq!(ask(&bench, &grant(1), VAULT).await.unwrap().cache, Stale);
    }
    assert_eq!(clock.mono(), begin);
    assert_eq!(bench.fake.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_source_with_short_tokens_only_is_not_asked_for_every_request() {
    let bench = bench();
    bench.fake.say(1, Reply::Lives(S(200)));
    for _ in 0..500 {
        assert!(ask(&bench, &grant(1), VAULT).await.unwrap().left > S(30));
        tokio::time::sleep(MS(1000)).await;
    }
    let calls = bench.fake.calls();
    assert!(calls <= 19, "{calls} calls in 500 s");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_back_prolongs_nothing() {
    let bench = bench();
    bench.fake.say(1, Reply::Lives(S(3600)));
    ask(&bench, &grant(1), VAULT).await.unwrap();
    bench.steps.step(-7200);
    tokio::time::sleep(S(3599)).await;
    assert!(
        bench
            .broker
            .try_cached(Request::new(&grant(1), VAULT, &asker("pod")))
            .is_none()
    );
    // Set forward: by wall time, which everybody else goes by, it has ended.
    bench.steps.step(7200);
    let again = ask(&bench, &grant(1), VAULT).await.unwrap();
    assert!(again.left > S(3500));
    bench.steps.step(3580);
    let again = ask(&bench, &grant(1), VAULT).await.unwrap();
    assert!(again.left > S(3500));
    assert_eq!(bench.fake.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_draining_broker_renews_nothing_ahead_but_fetches_what_somebody_waits_for() {
    let bench = bench();
    bench.fake.say(1, Reply::Lives(S(3600)));
    ask(&bench, &grant(1), VAULT).await.unwrap();
    bench.broker.set_draining();
    assert!(bench.fake.drained());
    tokio::time::sleep(S(3000)).await;
    assert!(ask(&bench, &grant(1), VAULT).await.is_ok());
    settle().await;
    assert_eq!(bench.fake.calls(), 1);
    tokio::time::sleep(S(400)).await;
    assert!(ask(&bench, &grant(1), VAULT).await.unwrap().left > S(3500));
    assert_eq!(bench.fake.calls(), 2);
    // The other instance died: renewals go on.
    bench.broker.resume();
    assert!(!bench.fake.drained());
    tokio::time::sleep(S(3000)).await;
    assert!(ask(&bench, &grant(1), VAULT).await.is_ok());
    settle().await;
    assert_eq!(bench.fake.calls(), 3);
}
