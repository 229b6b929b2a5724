//! The broker over a source in memory, on paused time.

use std::sync::Arc;

use super::CacheState::{Hit, Miss, Refreshing, Stale};
use super::fake::{BEGIN, MS, Reply, S, VAULT, asker, bench, bench_with, fault, grant, token};
use super::source::SourceError;
use super::*;
use crate::model::fault::FaultKind;

#[tokio::test(start_paused = true)]
async fn two_hundred_cold_askers_cause_one_fetch() {
    let bench = bench();
    let mut askers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let broker = Arc::clone(&bench.broker);
        askers.spawn(async move {
            let asker = asker(&format!("pod-{n}"));
            broker.obtain(&grant(1), VAULT, &asker).await.unwrap()
        });
    }
    let all = askers.join_all().await;
    assert_eq!(bench.fake.calls(), 1);
    assert!(
        all.iter()
            .all(|one| one.cache == Miss && one.source == "imds")
    );
    assert!(all.iter().all(|one| Arc::ptr_eq(&one.token, &all[0].token)));
    let cached = bench
        .broker
        .try_cached(&grant(1), VAULT, &asker("x"))
        .unwrap();
    assert_eq!(cached.cache, Hit);
    assert!(
        bench
            .broker
            .try_cached(&grant(1), "https://other", &asker("x"))
            .is_none()
    );
    assert!(
        bench
            .broker
            .try_cached(&grant(2), VAULT, &asker("x"))
            .is_none()
    );
}
