//! `claims` and `bypass_cache`: what is passed on, what is cached, how often a pod may.

use lanyard::agent::obtain::{CacheState, Request};
use lanyard::model::fault::FaultKind;
use lanyard::model::grant::{Asker, Grant};

use crate::rig::{APP, Rig, SECRET, VAULT, asker, by_secret, fresh_pod, grant, grant_by, rig};

const CLAIMS: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1702682181"}}}"#;

fn with_claims<'a>(grant: &'a Grant, pod: &'a Asker) -> Request<'a> {
    Request {
        claims: Some(CLAIMS),
        ..Request::new(grant, VAULT, pod)
    }
}

fn bypassing<'a>(grant: &'a Grant, pod: &'a Asker) -> Request<'a> {
    Request {
        bypass_cache: true,
        ..Request::new(grant, VAULT, pod)
    }
}

async fn rig_with_secret() -> (Rig, Grant) {
    let (rig, grant) = (rig().await, grant_by(APP, vec![by_secret()]));
    rig.need(&grant);
    rig.secret(&grant, &[("clientSecret", SECRET)]);
    (rig, grant)
}

#[tokio::test]
async fn claims_reach_entra_and_their_token_is_nobody_elses() {
    let (rig, grant) = rig_with_secret().await;
    let usual = rig.ask_for(&grant, VAULT).await.unwrap();
    let pod = fresh_pod();
    assert!(rig.broker.try_cached(with_claims(&grant, &pod)).is_none());
    let one = rig.broker.obtain(with_claims(&grant, &pod)).await.unwrap();
    let two = rig.broker.obtain(with_claims(&grant, &pod)).await.unwrap();
    assert_eq!((one.cache, two.cache), (CacheState::Miss, CacheState::Miss));
    let again = rig.ask_for(&grant, VAULT).await.unwrap();
    assert_eq!(again.token.expose(), usual.token.expose());
    let claims = rig.exchanges().into_iter();
    let claims: Vec<_> = claims.map(|entry| entry.exchange.unwrap().claims).collect();
    assert_eq!(claims, [false, true, true]);
}

#[tokio::test]
async fn claims_reach_imds_too_which_then_bypasses_its_cache() {
    let (rig, grant) = (rig().await, grant(1));
    let pod = fresh_pod();
    let usual = rig.ask(1).await.unwrap();
    let own = rig.broker.obtain(with_claims(&grant, &pod)).await.unwrap();
    assert_ne!(own.token.expose(), usual.token.expose());
    assert_eq!(
        rig.ask(1).await.unwrap().token.expose(),
        usual.token.expose()
    );
    let target = rig.azure.journal().pop().unwrap().target;
    assert!(
        target.contains("bypass_cache=true") && target.contains("&claims=%7B%22access_token"),
        "{target}"
    );
}

#[tokio::test]
async fn a_bypassing_request_replaces_what_is_cached() {
    let (rig, grant) = (rig().await, grant(1));
    let usual = rig.ask(1).await.unwrap();
    let pod = fresh_pod();
    let new = rig.broker.obtain(bypassing(&grant, &pod)).await.unwrap();
    assert_ne!(new.token.expose(), usual.token.expose());
    let cached = rig.ask(1).await.unwrap();
    assert_eq!(cached.token.expose(), new.token.expose());
    assert_eq!(cached.cache, CacheState::Hit);
}

#[tokio::test]
async fn a_pod_may_do_so_now_and_then() {
    let (rig, grant) = (rig().await, grant(1));
    let (greedy, other) = (asker("greedy"), asker("other"));
    let mut refused = 0;
    for n in 0..12 {
        let request = if n % 2 == 0 {
            bypassing(&grant, &greedy)
        } else {
            with_claims(&grant, &greedy)
        };
        if let Err(fault) = rig.broker.obtain(request).await {
            assert_eq!(fault.kind, FaultKind::PodThrottled);
            assert!(fault.retry_after.is_some());
            refused += 1;
        }
    }
    assert!((6..=7).contains(&refused), "{refused}");
    assert!(rig.broker.obtain(bypassing(&grant, &other)).await.is_ok());
    // The cache is there for it as before.
    let usual = Request::new(&grant, VAULT, &greedy);
    assert!(rig.broker.try_cached(usual).is_some());
}
