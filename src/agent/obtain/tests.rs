//! The broker over a source in memory, on paused time.

mod anew;
mod bounds;
mod histories;
mod renewal;
mod trouble;

use std::sync::Arc;

use super::CacheState::{Hit, Miss};
use super::fake::{BEGIN, Bench, MS, Reply, S, VAULT, asker, bench, fault, grant, scope};
use super::source::SourceError;
use super::*;
use crate::model::facts::SourceFacts;
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::{Asker, Grant};

async fn ask(bench: &Bench, grant: &Grant, resource: &str) -> Result<Obtained, Fault> {
    let pod = asker("pod");
    match bench.broker.try_cached(Request::new(grant, resource, &pod)) {
        Some(obtained) => Ok(obtained),
        None => {
            bench
                .broker
                .obtain(Request::new(grant, resource, &pod))
                .await
        }
    }
}

/// Lets tasks that were started run, without moving time by more than the source's latency.
async fn settle() {
    tokio::time::sleep(MS(100)).await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_cold_askers_cause_one_fetch() {
    let bench = bench();
    let mut askers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let broker = Arc::clone(&bench.broker);
        askers.spawn(async move {
            let asker = asker(&format!("pod-{n}"));
            broker
                .obtain(Request::new(&grant(1), VAULT, &asker))
                .await
                .unwrap()
        });
    }
    let all = askers.join_all().await;
    assert_eq!(bench.fake.calls(), 1);
    let first = &all[0];
    assert!(
        all.iter()
            .all(|one| one.cache == Miss && one.source == "imds")
    );
    assert!(all.iter().all(|one| Arc::ptr_eq(&one.token, &first.token)));
    let cached = |n, resource| {
        bench
            .broker
            .try_cached(Request::new(&grant(n), resource, &asker("x")))
    };
    assert_eq!(cached(1, VAULT).unwrap().cache, Hit);
    // The resource counts byte for byte, as it is echoed.
    for other in [
        "https://vault.azure.net/",
        "https://VAULT.azure.net",
        "",
        "https://vault.azure.ne",
    ] {
        assert!(cached(1, other).is_none(), "{other}");
    }
    assert!(cached(2, VAULT).is_none());
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_do_not_die_with_the_first() {
    let bench = bench();
    let broker = Arc::clone(&bench.broker);
    let first = tokio::spawn(async move {
        let _ = broker
            .obtain(Request::new(&grant(1), VAULT, &asker("first")))
            .await;
    });
    tokio::time::sleep(MS(1)).await;
    assert_eq!(bench.fake.calls(), 1);
    let broker = Arc::clone(&bench.broker);
    let second = tokio::spawn(async move {
        broker
            .obtain(Request::new(&grant(1), VAULT, &asker("second")))
            .await
    });
    tokio::time::sleep(MS(1)).await;
    first.abort();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(bench.fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_id_of_somebody_else_gets_no_token_of_his_cached_or_not() {
    let theirs = grant(1);
    // The attack: their client id, in an object of mine, with a resource id that policy admits me.
    let mut mine = grant(2);
    let mut identity = (*mine.identity).clone();
    identity.client_id = theirs.identity.client_id;
    for resource_id in [identity.resource_id.clone(), None] {
        identity.resource_id = resource_id;
        mine.identity = Arc::new(identity.clone());
        let bench = bench();
        let cold = ask(&bench, &mine, VAULT).await.unwrap_err();
        assert_eq!(cold.kind, FaultKind::IdentityNotFound);
        assert_eq!(
            (cold.retry_after, &*cold.public),
            (None, "Identity not found")
        );
        assert!(!cold.to_string().contains("eyJ"));
        // Its owner is not hurt by the attempt, and the attacker gains nothing by his use.
        assert!(ask(&bench, &theirs, VAULT).await.is_ok());
        assert!(ask(&bench, &theirs, VAULT).await.is_ok());
        let warm = ask(&bench, &mine, VAULT).await.unwrap_err();
        assert_eq!(warm.kind, FaultKind::IdentityNotFound);
        assert_eq!(bench.fake.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_withdrawn_counts_at_once() {
    let (bench, mut grant) = (bench(), grant(1));
    assert!(ask(&bench, &grant, VAULT).await.is_ok());
    grant.scopes = Arc::new([scope("/subscriptions/s/resourceGroups/rg")]);
    assert!(
        bench
            .broker
            .try_cached(Request::new(&grant, VAULT, &asker("pod")))
            .is_none()
    );
    assert_eq!(
        ask(&bench, &grant, VAULT).await.unwrap_err().kind,
        FaultKind::IdentityNotFound
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_source_is_tried_when_the_first_cannot_and_not_when_it_refuses() {
    let bench = bench();
    let mut twice = grant(1);
    let mut identity = (*twice.identity).clone();
    identity.sources = vec![SourceFacts::Imds, SourceFacts::Imds];
    twice.identity = Arc::new(identity);
    bench
        .fake
        .say(1, Reply::Fails(fault(FaultKind::UpstreamRefused)));
    assert_eq!(
        ask(&bench, &twice, VAULT).await.unwrap_err().kind,
        FaultKind::UpstreamRefused
    );
    let mut none = grant(2);
    let mut identity = (*none.identity).clone();
    identity.sources = vec![];
    none.identity = Arc::new(identity);
    assert_eq!(
        ask(&bench, &none, VAULT).await.unwrap_err().kind,
        FaultKind::IdentityNotFound
    );
    assert_eq!(bench.fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_identity_is_held_for_and_then_told_to_come_again() {
    let (bench, mut new) = (bench(), grant(1));
    bench
        .fake
        .say(1, Reply::Fails(SourceError::NotHere("unknown".into())));
    new.first_seen = BEGIN - S(60);
    let begin = bench.broker.clock.mono();
    let fault = ask(&bench, &new, VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NotYetAssigned);
    assert!(fault.retry_after.unwrap() >= S(1));
    let took = bench.broker.clock.mono() - begin;
    assert!(took >= S(2) && took <= S(4), "{took:?}");
    let times = bench.fake.times(1);
    assert!(
        times.len() >= 3 && times.is_sorted_by(|a, b| *b >= *a + S(1)),
        "{times:?}"
    );

    // It appears while a caller is held: he gets it.
    let broker = Arc::clone(&bench.broker);
    let grant = new.clone();
    let held = tokio::spawn(async move {
        broker
            .obtain(Request::new(&grant, VAULT, &asker("pod")))
            .await
    });
    tokio::time::sleep(S(1)).await;
    assert!(!held.is_finished());
    bench.fake.say(1, Reply::Lives(S(3600)));
    assert!(held.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_was_never_assigned_is_refused_at_once_and_for_five_seconds() {
    let bench = bench();
    bench
        .fake
        .say(1, Reply::Fails(SourceError::NotHere("unknown".into())));
    let mut old = grant(1);
    old.first_seen = BEGIN - Duration::from_mins(10);
    let begin = bench.broker.clock.mono();
    for _ in 0..50 {
        let fault = ask(&bench, &old, VAULT).await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.retry_after),
            (FaultKind::IdentityNotFound, None)
        );
    }
    assert!(bench.broker.clock.mono() - begin < S(1));
    assert_eq!(bench.fake.calls(), 1);
    tokio::time::sleep(MS(4_900)).await;
    assert!(ask(&bench, &old, VAULT).await.is_err());
    assert_eq!(bench.fake.calls(), 1);
    tokio::time::sleep(MS(200)).await;
    assert!(ask(&bench, &old, VAULT).await.is_err());
    assert_eq!(bench.fake.calls(), 2);
    // The same refusal is "not yet" for a grant that is new.
    let mut new = grant(1);
    new.first_seen = bench.broker.clock.wall();
    assert_eq!(
        ask(&bench, &new, VAULT).await.unwrap_err().kind,
        FaultKind::NotYetAssigned
    );
}
