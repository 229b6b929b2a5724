//! What a pod can make the cache do to others: nothing.

use super::super::fake::bench_with;
use super::super::table::Bounds;
use super::*;
use crate::agent::rate::Rate;

fn generous(bounds: Bounds) -> Bench {
    bench_with(ObtainConfig {
        bounds,
        pod_fetches: Rate {
            per_second: 1000,
            burst: 1000,
        },
        ..ObtainConfig::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_floods_resources_evicts_its_own_keys_first() {
    let bench = generous(Bounds {
        per_identity: 8,
        total: 16,
    });
    let broker = &bench.broker;
    let (calm, flood) = (asker("calm"), asker("flood"));
    // The flooding pod was the first to ask for what the calm one uses, too.
    broker
        .obtain(Request::new(&grant(1), VAULT, &flood))
        .await
        .unwrap();
    assert!(
        broker
            .try_cached(Request::new(&grant(1), VAULT, &calm))
            .is_some()
    );
    broker
        .obtain(Request::new(&grant(1), "https://storage", &calm))
        .await
        .unwrap();
    broker
        .obtain(Request::new(&grant(2), VAULT, &calm))
        .await
        .unwrap();
    let calls = bench.fake.calls();
    for n in 0..500 {
        let resource = format!("https://{n}");
        broker
            .obtain(Request::new(&grant(1), &resource, &flood))
            .await
            .unwrap();
        broker
            .obtain(Request::new(&grant(3), &resource, &flood))
            .await
            .unwrap();
        tokio::time::sleep(MS(10)).await;
    }
    assert_eq!(bench.fake.calls(), calls + 1000);
    assert!(broker.table.len() <= 16);
    for (id, resource) in [(1, VAULT), (1, "https://storage"), (2, VAULT)] {
        assert!(
            broker
                .try_cached(Request::new(&grant(id), resource, &calm))
                .is_some(),
            "{id} {resource}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_over_its_share_is_told_so_and_others_are_not() {
    let bench = bench();
    let (calm, flood) = (asker("calm"), asker("flood"));
    let mut refused = 0;
    for n in 0..100 {
        if let Err(fault) = bench
            .broker
            .obtain(Request::new(&grant(1), &n.to_string(), &flood))
            .await
        {
            assert_eq!(fault.kind, FaultKind::PodThrottled);
            assert!(fault.retry_after.unwrap() >= S(1));
            refused += 1;
        }
    }
    assert!(refused >= 70, "{refused}");
    assert!(bench.broker.table.len() <= 30);
    assert!(
        bench
            .broker
            .obtain(Request::new(&grant(1), VAULT, &calm))
            .await
            .is_ok()
    );
    // What is cached is served to the flooding pod, too.
    assert!(
        bench
            .broker
            .obtain(Request::new(&grant(1), VAULT, &flood))
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_evicted_while_its_fetch_is_in_flight() {
    let bench = generous(Bounds {
        per_identity: 4,
        total: 100,
    });
    bench.fake.say(1, Reply::Silent);
    let mut asks = tokio::task::JoinSet::new();
    // The source asserts that no key has two fetches in flight.
    for n in 0..40 {
        let broker = Arc::clone(&bench.broker);
        asks.spawn(async move {
            let resource = (n % 8).to_string();
            broker
                .obtain(Request::new(&grant(1), &resource, &asker("flood")))
                .await
                .unwrap_err()
                .kind
        });
    }
    tokio::time::sleep(S(1)).await;
    bench.broker.retain(|_| false);
    let broker = Arc::clone(&bench.broker);
    asks.spawn(async move {
        broker
            .obtain(Request::new(&grant(1), "0", &asker("x")))
            .await
            .unwrap_err()
            .kind
    });
    let kinds = asks.join_all().await;
    assert_eq!(bench.fake.calls(), 4);
    assert!(kinds.contains(&FaultKind::Overloaded));
    assert!(!kinds.contains(&FaultKind::Internal));
}

#[tokio::test(start_paused = true)]
async fn only_identities_in_use_keep_their_keys() {
    let bench = bench();
    for n in 1..=3 {
        ask(&bench, &grant(n), VAULT).await.unwrap();
    }
    let kept = IdentityKey::of(&SourceFacts::Imds, &grant(2).identity, &asker("p"));
    bench.broker.retain(|key| *key == kept);
    assert_eq!(bench.broker.table.len(), 1);
    let cached = |n| {
        bench
            .broker
            .try_cached(Request::new(&grant(n), VAULT, &asker("pod")))
            .is_some()
    };
    assert!(!cached(1) && cached(2) && !cached(3));
    assert!(ask(&bench, &grant(1), VAULT).await.is_ok());
}
