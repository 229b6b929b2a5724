//! The source `imds`: the agent's own encoding of it meets the simulator's. In real time, so waits are
//! bounded and no duration is asserted that a busy machine breaks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanyard::agent::obtain::{CacheState, Request};
use lanyard::model::fault::FaultKind;
use lanyard::serve::clock;
use lanyard::sim::faults::Effect;

use crate::rig::{IDENTITIES, VAULT, asker, client_id, grant, rig, rig_with};

#[tokio::test]
async fn a_real_token_is_fetched_once_and_then_served_from_the_cache() {
    let rig = rig().await;
    let first = rig.ask(1).await.unwrap();
    assert_eq!((first.cache, first.source), (CacheState::Miss, "imds"));
    assert_eq!(first.token.expose().split('.').count(), 3);
    assert!(first.left > Duration::from_hours(23));
    let pod = asker("pod-1");
    let again = rig
        .broker
        .try_cached(Request::new(&grant(1), VAULT, &pod))
        .unwrap();
    assert!(Arc::ptr_eq(&again.token, &first.token) && again.cache == CacheState::Hit);
    assert_eq!(rig.azure.stats().imds_requests, 1);
    let journal = rig.azure.journal();
    assert_eq!(journal[0].identity.as_deref(), Some("id-1"));
    assert_eq!(journal[0].resource.as_deref(), Some(VAULT));
}

#[tokio::test]
async fn another_team_s_client_id_is_refused_by_what_the_token_says() {
    let rig = rig().await;
    let mut mine = grant(2);
    let mut identity = (*mine.identity).clone();
    identity.client_id = client_id(1).parse().unwrap();
    mine.identity = Arc::new(identity);
    let pod = asker("attacker");
    for round in 0..2 {
        let fault = rig
            .broker
            .obtain(Request::new(&mine, VAULT, &pod))
            .await
            .unwrap_err();
        assert_eq!(fault.kind, FaultKind::IdentityNotFound, "round {round}");
        assert!(
            rig.broker
                .try_cached(Request::new(&mine, VAULT, &pod))
                .is_none()
        );
        assert!(rig.ask(1).await.is_ok());
    }
}

#[tokio::test]
async fn an_identity_that_is_assigned_while_a_pod_waits() {
    let rig = rig().await;
    assert_eq!(
        rig.ask(0).await.unwrap_err().kind,
        FaultKind::IdentityNotFound
    );
    let mut new = grant(0);
    new.first_seen = clock::since_epoch();
    let (broker, pod) = (Arc::clone(&rig.broker), asker("pod"));
    let before = rig.azure.stats().imds_requests;
    let waiting = tokio::spawn(async move { broker.obtain(Request::new(&new, VAULT, &pod)).await });
    // One more refusal, and then it appears.
    let begin = Instant::now();
    while rig.azure.stats().imds_requests == before && begin.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.azure.assign("node-1", &["id-0", "id-1"]).unwrap();
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn every_trouble_is_typed_leaves_the_others_served_and_leaves_nothing_behind() {
    use FaultKind::{UpstreamInvalid, UpstreamUnavailable};
    let rig = rig_with("imds: {throttle: false}\n").await;
    let status = |code, retry_after| Effect::Status {
        code,
        retry_after,
        body: None,
    };
    let troubles = [
        (Effect::Silence, UpstreamUnavailable),
        (Effect::Reset, UpstreamUnavailable),
        (Effect::Truncate, UpstreamUnavailable),
        (Effect::Garbage, UpstreamInvalid),
        (Effect::Html, UpstreamInvalid),
        (Effect::Huge(10 * 1024 * 1024), UpstreamInvalid),
        (Effect::Expired, UpstreamInvalid),
        (Effect::Missing("access_token".to_owned()), UpstreamInvalid),
        (status(500, None), UpstreamUnavailable),
        (status(410, None), UpstreamUnavailable),
        (status(403, None), FaultKind::UpstreamRefused),
    ];
    for (number, (effect, kind)) in troubles.into_iter().enumerate() {
        let (bad, good) = (&rig, number % (IDENTITIES - 2) + 2);
        bad.trouble(1, effect.clone());
        let trouble = async {
            let fault = bad.ask(1).await.unwrap_err();
            assert_eq!(fault.kind, kind, "{effect:?}: {fault}");
            // Only what may be tried again says when.
            let after = fault.retry_after;
            assert_eq!(after.is_some(), kind != FaultKind::UpstreamRefused);
            assert!(!fault.to_string().contains("eyJ"), "{effect:?}");
            Instant::now()
        };
        let others = async {
            assert!(rig.ask(good).await.is_ok(), "{effect:?}");
            Instant::now()
        };
        let (trouble, others) = tokio::join!(trouble, others);
        if effect == Effect::Silence {
            assert!(others < trouble, "the others wait for the silent one");
        }
        assert!(rig.ask(1).await.is_err(), "{effect:?}: kept for a while");
        rig.azure.clear_faults();
        rig.broker.retain(|_| false);
        assert!(rig.ask(1).await.is_ok(), "{effect:?} left something behind");
        rig.broker.retain(|_| false);
    }
}

#[tokio::test]
async fn a_429_is_passed_on_and_obeyed_for_everybody() {
    let rig = rig().await;
    let status = Effect::Status {
        code: 429,
        retry_after: Some(60),
        body: None,
    };
    rig.trouble(1, status);
    let fault = rig.ask(1).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamThrottled);
    assert!(fault.retry_after.unwrap() >= Duration::from_secs(1));
    let requests = rig.azure.stats().imds_requests;
    let fault = rig.ask(2).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamThrottled);
    assert_eq!(rig.azure.stats().imds_requests, requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_cold_is_never_throttled_by_imds() {
    // 200 pods, 11 identities, 4 resources: 44 keys, each asked for by many at once.
    let rig = rig_with("imds: {latency: 20ms}\n").await;
    let mut asks = tokio::task::JoinSet::new();
    for pod in 0..200 {
        for resource in 0..4 {
            let broker = Arc::clone(&rig.broker);
            asks.spawn(async move {
                let asker = asker(&format!("pod-{pod}"));
                let grant = grant(pod % (IDENTITIES - 1) + 1);
                let resource = format!("https://{resource}.example");
                broker.obtain(Request::new(&grant, &resource, &asker)).await
            });
        }
    }
    let answers = asks.join_all().await;
    assert!(answers.iter().all(Result::is_ok));
    let tokens: BTreeSet<_> = answers
        .iter()
        .flatten()
        .map(|one| one.token.expose().to_owned())
        .collect();
    let stats = rig.azure.stats();
    assert_eq!((stats.imds_requests, tokens.len()), (44, 44));
    assert_eq!(stats.throttled, 0);
    assert!(stats.most_concurrent <= 5, "{}", stats.most_concurrent);
}
