//! What goes wrong upstream: typed, kept for seconds, and never another identity's trouble.

use super::super::fake::{Fake, Steps};
use super::*;

#[tokio::test(start_paused = true)]
async fn refusals_are_kept_by_kind() {
    let throttled = |after| {
        let fault = Fault::new(FaultKind::UpstreamThrottled, "slow down");
        SourceError::Fault(fault.with_retry_after(S(after)))
    };
    let cases = [
        (fault(FaultKind::UpstreamRefused), 5),
        (fault(FaultKind::UpstreamInvalid), 2),
        (fault(FaultKind::UpstreamUnavailable), 1),
        (throttled(0), 1),
        (throttled(4), 4),
        (throttled(3600), 30),
        (fault(FaultKind::Overloaded), 0),
    ];
    for (error, kept) in cases {
        let bench = bench();
        bench.fake.say(1, Reply::Fails(error.clone()));
        let first = ask(&bench, &grant(1), VAULT).await.unwrap_err();
        assert_eq!(SourceError::Fault(first), error);
        if kept > 0 {
            tokio::time::sleep(S(kept) - MS(1)).await;
            let second = ask(&bench, &grant(1), VAULT).await.unwrap_err();
            assert_eq!(bench.fake.calls(), 1, "{error:?}");
            // Final refusals carry no Retry-After, the others at least a second.
            assert_eq!(second.retry_after.is_some(), second.kind.may_retry());
            assert!(second.retry_after.is_none_or(|after| after >= S(1)));
            tokio::time::sleep(MS(1)).await;
        }
        assert!(ask(&bench, &grant(1), VAULT).await.is_err());
        assert_eq!(bench.fake.calls(), 2, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_call_is_left_silent() {
    let bench = bench();
    bench.fake.say(1, Reply::Silent);
    let begin = bench.broker.clock.mono();
    let fault = ask(&bench, &grant(1), VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamUnavailable);
    assert!(fault.retry_after.unwrap() >= S(1));
    assert!(bench.broker.clock.mono() - begin <= S(20));
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_source_is_answered_and_does_not_block_the_key() {
    let bench = bench();
    bench.fake.say(1, Reply::Panics);
    let fault = ask(&bench, &grant(1), VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Internal);
    bench.fake.say(1, Reply::Lives(S(3600)));
    tokio::time::sleep(S(1)).await;
    assert!(ask(&bench, &grant(1), VAULT).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_for_somebody_else_is_neither_served_nor_kept() {
    let bench = bench();
    bench.fake.say(1, Reply::Foreign);
    let fault = ask(&bench, &grant(1), VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamInvalid);
    assert!(
        bench
            .broker
            .try_cached(Request::new(&grant(1), VAULT, &asker("pod")))
            .is_none()
    );
    assert!(
        bench
            .broker
            .try_cached(Request::new(&grant(2), VAULT, &asker("pod")))
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn one_identity_s_trouble_leaves_the_others_served() {
    let troubles = [
        Reply::Silent,
        Reply::Foreign,
        Reply::Panics,
        Reply::Fails(fault(FaultKind::UpstreamInvalid)),
        Reply::Fails(fault(FaultKind::UpstreamUnavailable)),
    ];
    for trouble in troubles {
        let bench = bench();
        bench.fake.say(1, trouble);
        let broker = Arc::clone(&bench.broker);
        let bad = tokio::spawn(async move {
            broker
                .obtain(Request::new(&grant(1), VAULT, &asker("a")))
                .await
        });
        tokio::time::sleep(MS(1)).await;
        let begin = bench.broker.clock.mono();
        assert!(ask(&bench, &grant(2), VAULT).await.is_ok());
        assert!(bench.broker.clock.mono() - begin < S(1));
        assert!(bad.await.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_background_fetch_becomes_urgent_when_somebody_needs_it() {
    use super::super::source::{Call, TokenSource, Urgency};
    use crate::model::token::Token;

    /// Renewals that nobody waits for do not get their turn.
    struct Patient(Fake);
    impl TokenSource for Patient {
        async fn fetch(&self, call: Call, mut urgency: Urgency) -> Result<Token, SourceError> {
            urgency.urgent().await;
            self.0.fetch(call, urgency).await
        }
    }
    let clock = Steps::default().clock();
    let fake = Fake::new(clock.clone());
    fake.say(1, Reply::Lives(S(700)));
    let metrics = ObtainMetrics::register(&prometheus::Registry::new()).unwrap();
    let config = ObtainConfig {
        answer_deadline: S(1000),
        ..ObtainConfig::default()
    };
    let broker = Broker::new(
        config,
        Patient(fake.clone()),
        clock,
        metrics,
        TaskTracker::new(),
    );
    let (grant, pod) = (grant(1), asker("pod"));
    broker
        .obtain(Request::new(&grant, VAULT, &pod))
        .await
        .unwrap();
    // Renewal falls due, and its flight waits for as long as nobody needs it.
    tokio::time::sleep(S(395)).await;
    assert!(
        broker
            .try_cached(Request::new(&grant, VAULT, &pod))
            .is_some()
    );
    tokio::time::sleep(S(300)).await;
    assert_eq!(fake.calls(), 1);
    // The token has 5 s left: whoever asks joins that flight, and it goes.
    assert!(
        broker
            .obtain(Request::new(&grant, VAULT, &pod))
            .await
            .is_ok()
    );
    assert_eq!(fake.calls(), 2);
}
