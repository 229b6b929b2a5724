//! `claims` and `bypass_cache`: a token that the cache will not do for, and how often a pod may want one.

use super::cast::{FEDERATED, IMDS, Wanted};
use super::stage::{APP_POD, BANK_POD, Stage, TWIN_POD, stage, stage_of, stage_with_secret};
use crate::testkit::Reply;
use crate::world::PAYMENTS;

/// `{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}`
const CLAIMS: &str = "&claims=%7B%22access_token%22%3A%7B%22nbf%22%3A%7B%22essential%22%3Atrue%2C%22value%22%3A%221700000000%22%7D%7D%7D";
const BYPASS: &str = "&bypass_cache=true";

fn token(reply: &Reply) -> String {
    reply.claims();
    reply.text("access_token")
}

fn with_claims(stage: &Stage) -> Vec<bool> {
    stage
        .exchanges()
        .into_iter()
        .map(|one| one.claims)
        .collect()
}

async fn claims_pass_through(stage: &Stage) {
    let cached = token(&stage.token_at_last(APP_POD).await);
    stage.mark();
    let one = token(&stage.token(APP_POD, CLAIMS).await);
    let two = token(&stage.token(APP_POD, CLAIMS).await);
    assert_eq!(with_claims(stage), [true, true]);
    assert!(one != two && one != cached && two != cached, "three tokens");
    // Nobody gets what was given for claims, and what was cached stays.
    stage.mark();
    for pod in [APP_POD, TWIN_POD] {
        assert_eq!(token(&stage.token(pod, "").await), cached);
    }
    assert!(stage.exchanges().is_empty());
}

#[tokio::test]
async fn claims_pass_through_by_secret() {
    claims_pass_through(&stage_with_secret().await).await;
}

#[tokio::test]
async fn claims_pass_through_by_federation() {
    claims_pass_through(&stage_of(&[FEDERATED]).await).await;
}

/// What was asked for with claims alone is not there for who asks without.
#[tokio::test]
async fn a_token_for_claims_is_not_cached() {
    let stage = stage_with_secret().await;
    let given = stage.until("a token", APP_POD, |_| true).await;
    drop(given);
    let other = stage.token(APP_POD, &format!("/other{CLAIMS}")).await;
    stage.mark();
    let plain = token(&stage.token(APP_POD, "/other").await);
    assert_ne!(plain, token(&other));
    assert_eq!(with_claims(&stage), [false]);
}

#[tokio::test]
async fn claims_that_are_none_are_refused_and_cost_nothing() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.mark();
    for bad in ["&claims=nonsense", "&claims=%5B%5D", "&claims=%22text%22"] {
        stage.token(APP_POD, bad).await.is_error_at_once(400);
    }
    assert!(stage.since().is_empty());
}

#[tokio::test]
async fn bypass_cache_gets_a_new_token_that_takes_the_old_ones_place() {
    let stage = stage_with_secret().await;
    let cached = token(&stage.token_at_last(APP_POD).await);
    assert_eq!(
        token(&stage.token(APP_POD, "&bypass_cache=false").await),
        cached
    );
    stage.mark();
    let new = token(&stage.token(APP_POD, BYPASS).await);
    assert_ne!(new, cached);
    assert_eq!(stage.exchanges().len(), 1);
    assert_eq!(token(&stage.token(TWIN_POD, "").await), new);
    assert_eq!(stage.exchanges().len(), 1);
}

/// By IMDS, too, which has a cache of its own.
#[tokio::test]
async fn bypass_cache_goes_past_imds_own_cache() {
    let stage = stage().await;
    stage.workload(&Wanted {
        client: PAYMENTS,
        sources: &[IMDS],
        ..Wanted::default()
    });
    let cached = token(&stage.token(APP_POD, "").await);
    let new = token(&stage.token(APP_POD, BYPASS).await);
    assert_ne!(new, cached);
    assert_eq!(token(&stage.token(APP_POD, "").await), new);
}

/// IMDS knows no claims; what it has cached is just what was challenged.
#[tokio::test]
async fn claims_go_past_imds_own_cache() {
    let stage = stage().await;
    stage.workload(&Wanted {
        client: PAYMENTS,
        sources: &[IMDS],
        ..Wanted::default()
    });
    let cached = token(&stage.token(APP_POD, "").await);
    assert_ne!(token(&stage.token(APP_POD, CLAIMS).await), cached);
    assert_eq!(token(&stage.token(APP_POD, "").await), cached);
}

/// Beyond its rate a pod is told when to come back, keeps what is cached, and harms nobody.
async fn rate(parameter: &str) {
    let stage = stage_with_secret().await;
    stage.workload(&Wanted {
        namespace: "bank",
        uid: "uid-of-the-banks",
        ..Wanted::default()
    });
    let data: [(&str, &[u8]); 1] = [("clientSecret", super::cast::SECRET.as_bytes())];
    stage.api.secret("bank", "app", &data);
    let cached = token(&stage.token_at_last(APP_POD).await);
    stage.mark();
    let mut refused = Vec::new();
    for _ in 0..12 {
        let reply = stage.token(APP_POD, parameter).await;
        if reply.status != 200 {
            refused.push(reply);
        }
    }
    assert!(refused.len() >= 5, "{} of 12 refused", refused.len());
    for reply in &refused {
        reply.is_error_at_once(429);
    }
    assert_eq!(stage.exchanges().len(), 12 - refused.len());
    // The pod itself, by the cache; and others, in every way.
    let held = token(&stage.token(APP_POD, "").await);
    assert_eq!(held == cached, parameter == CLAIMS);
    let banks = stage.until("the bank's token", BANK_POD, |reply| reply.status == 200);
    banks.await;
    token(&stage.token(BANK_POD, parameter).await);
    token(&stage.token(TWIN_POD, parameter).await);
}

#[tokio::test]
async fn claims_have_a_rate() {
    rate(CLAIMS).await;
}

#[tokio::test]
async fn bypass_cache_has_a_rate() {
    rate(BYPASS).await;
}
