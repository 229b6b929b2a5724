//! What the cache will not do for, and what it forgets when a credential changes.

use super::super::CacheState::{Hit, Refreshing};
use super::*;
use crate::model::ids::ObjectName;

fn with_claims<'a>(grant: &'a Grant, pod: &'a Asker) -> Request<'a> {
    Request {
        claims: Some("{}"),
        ..Request::new(grant, VAULT, pod)
    }
}

fn bypassing<'a>(grant: &'a Grant, pod: &'a Asker) -> Request<'a> {
    Request {
        bypass_cache: true,
        ..Request::new(grant, VAULT, pod)
    }
}

#[tokio::test(start_paused = true)]
async fn who_bypasses_the_cache_shares_the_flight_of_others_that_do_and_of_nobody_else() {
    let bench = bench();
    let grant = grant(1);
    let (usual, one, two) = (asker("usual"), asker("one"), asker("two"));
    let broker = &bench.broker;
    // The usual one's flight began before: its token may be older than the wish for a new one.
    let (a, b, c) = tokio::join!(
        broker.obtain(Request::new(&grant, VAULT, &usual)),
        broker.obtain(bypassing(&grant, &one)),
        broker.obtain(bypassing(&grant, &two)),
    );
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(!Arc::ptr_eq(&a.token, &b.token));
    assert!(Arc::ptr_eq(&b.token, &c.token));
    assert_eq!(bench.fake.calls(), 2);
    let cached = broker.try_cached(Request::new(&grant, VAULT, &usual));
    assert!(Arc::ptr_eq(&cached.unwrap().token, &b.token));
    assert!(broker.try_cached(bypassing(&grant, &usual)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_failed_bypass_is_told_and_leaves_the_token_at_hand() {
    let bench = bench();
    let (grant, pod) = (grant(1), asker("pod"));
    assert!(ask(&bench, &grant, VAULT).await.is_ok());
    bench
        .fake
        .say(1, Reply::Fails(fault(FaultKind::UpstreamUnavailable)));
    for request in [bypassing(&grant, &pod), with_claims(&grant, &pod)] {
        let fault = bench.broker.obtain(request).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::UpstreamUnavailable);
    }
    assert!(ask(&bench, &grant, VAULT).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_for_claims_is_held_against_the_grant_too() {
    let bench = bench();
    let (mut grant, pod) = (grant(1), asker("pod"));
    grant.scopes = Arc::new([scope("/subscriptions/s/resourceGroups/other")]);
    let fault = bench.broker.obtain(with_claims(&grant, &pod)).await;
    assert_eq!(fault.unwrap_err().kind, FaultKind::IdentityNotFound);
    bench.fake.say(1, Reply::Foreign);
    let fault = bench.broker.obtain(with_claims(&grant, &pod)).await;
    assert_eq!(fault.unwrap_err().kind, FaultKind::UpstreamInvalid);
    assert_eq!(bench.broker.table.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_breaks_no_call_off() {
    // A call that is broken off counts against the service: five of them would shut it for the node.
    let bench = bench();
    let (grant, pod) = (grant(1), asker("pod"));
    let asking = bench.broker.obtain(with_claims(&grant, &pod));
    assert!(tokio::time::timeout(MS(5), asking).await.is_err());
    assert_eq!(bench.fake.calls(), 1);
    assert_eq!(bench.broker.tasks.len(), 1, "the fetch goes on");
}

#[tokio::test(start_paused = true)]
async fn a_pods_share_of_new_tokens_is_five_and_then_one_in_ten_seconds() {
    let bench = bench();
    let (grant, pod) = (grant(1), asker("pod"));
    for _ in 0..5 {
        assert!(bench.broker.obtain(with_claims(&grant, &pod)).await.is_ok());
    }
    let fault = bench.broker.obtain(bypassing(&grant, &pod)).await;
    let fault = fault.unwrap_err();
    assert_eq!(fault.kind, FaultKind::PodThrottled);
    let after = fault.retry_after.unwrap();
    assert!(after > S(9) && after <= S(10), "{after:?}");
    tokio::time::sleep(after).await;
    assert!(bench.broker.obtain(bypassing(&grant, &pod)).await.is_ok());
    assert!(bench.broker.obtain(bypassing(&grant, &pod)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_changed_credential_renews_its_own_identitys_tokens_with_the_next_request() {
    let bench = bench();
    let own = |n| {
        let mut grant = grant(n);
        let mut identity = (*grant.identity).clone();
        identity.sources = vec![SourceFacts::Federated(None)];
        grant.identity = Arc::new(identity);
        grant
    };
    let (changed, other) = (own(1), own(2));
    let first = ask(&bench, &changed, VAULT).await.unwrap();
    assert!(ask(&bench, &other, VAULT).await.is_ok());
    let name = ObjectName::new("ns", "id-1");
    bench.broker.renew(|key| key.owner() == Some(&name));
    assert_eq!(ask(&bench, &other, VAULT).await.unwrap().cache, Hit);
    let meanwhile = ask(&bench, &changed, VAULT).await.unwrap();
    assert_eq!(meanwhile.cache, Refreshing);
    assert!(Arc::ptr_eq(&meanwhile.token, &first.token));
    settle().await;
    let renewed = ask(&bench, &changed, VAULT).await.unwrap();
    assert_eq!(renewed.cache, Hit);
    assert!(!Arc::ptr_eq(&renewed.token, &first.token));
    assert_eq!(bench.fake.calls(), 3);
}
