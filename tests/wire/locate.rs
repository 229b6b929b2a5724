//! Which pod asks: an address that is nobody's, not yet somebody's, nobody's any more, or two
//! pods', gets "try again" and never a token.

use std::time::Duration;

use crate::testkit::{Options, stage, stage_with};
use crate::world::{DESK_POD, PAYMENTS, PAYMENTS_POD, UNKNOWN_POD, annotated, pod, pod_in_phase};

/// A wait that a test can sit out.
fn brief() -> Options {
    Options {
        pod_wait: Duration::from_millis(200),
        ..Options::default()
    }
}

#[tokio::test]
async fn an_unknown_pod_waits_and_is_answered_when_it_appears() {
    let stage = stage().await;
    let mut conversation = stage.connect(UNKNOWN_POD).await;
    conversation
        .send(crate::testkit::request(&crate::testkit::token_target("")))
        .await;
    let early = tokio::time::timeout(Duration::from_millis(200), conversation.reply()).await;
    assert!(early.is_err(), "held, not answered: {early:?}");
    stage.apply(&pod("shop", "somebody", "127.0.0.98"));
    let early = tokio::time::timeout(Duration::from_millis(100), conversation.reply()).await;
    assert!(early.is_err(), "another pod is not the one: {early:?}");
    stage.apply(&annotated("annotated", UNKNOWN_POD, "payments"));
    conversation.reply().await.is_token_of(PAYMENTS);
}

#[tokio::test]
async fn a_pod_unknown_for_good_is_told_to_try_again() {
    let stage = stage_with(brief()).await;
    let reply = stage.token(UNKNOWN_POD, "").await;
    reply.is_error(503);
    assert!(reply.took >= Duration::from_millis(150), "{reply:?}");
    assert!(stage.upstream().is_empty());
}

#[tokio::test]
async fn the_wait_of_one_pod_is_no_wait_for_another() {
    let stage = stage().await;
    let mut waiting = stage.connect(UNKNOWN_POD).await;
    waiting
        .send(crate::testkit::request(&crate::testkit::token_target("")))
        .await;
    let reply = stage.token(PAYMENTS_POD, "").await;
    reply.is_token_of(PAYMENTS);
    assert!(reply.took < Duration::from_secs(10), "{reply:?}");
}

#[tokio::test]
async fn an_ended_pod_gets_nothing_also_from_the_cache() {
    let stage = stage_with(brief()).await;
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    for phase in ["Succeeded", "Failed"] {
        stage.apply(&pod_in_phase("shop", "payments", PAYMENTS_POD, phase));
        stage.token(PAYMENTS_POD, "").await.is_error(503);
    }
    stage.apply(&pod("shop", "payments", PAYMENTS_POD));
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
}

#[tokio::test]
async fn a_deleted_pod_gets_nothing_also_on_an_open_connection() {
    let stage = stage_with(brief()).await;
    let mut conversation = stage.connect(PAYMENTS_POD).await;
    let ask = crate::testkit::request(&crate::testkit::token_target(""));
    conversation.send(&ask).await;
    conversation.reply().await.is_token_of(PAYMENTS);
    stage.delete(&pod("shop", "payments", PAYMENTS_POD));
    conversation.send(&ask).await;
    conversation.reply().await.is_error(503);
}

#[tokio::test]
async fn two_pods_with_one_address_get_neithers_identity() {
    let stage = stage_with(brief()).await;
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage.apply(&pod("shop", "reports", PAYMENTS_POD));
    let selectors = [String::new(), format!("&client_id={}", PAYMENTS.client_id)];
    for selector in selectors {
        stage.token(PAYMENTS_POD, &selector).await.is_error(503);
    }
}

#[tokio::test]
async fn a_reused_address_gets_the_new_pods_identity() {
    let stage = stage_with(brief()).await;
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage.delete(&pod("shop", "payments", PAYMENTS_POD));
    stage.apply(&pod("shop", "stranger", PAYMENTS_POD));
    let selector = format!("&client_id={}", PAYMENTS.client_id);
    stage
        .token(PAYMENTS_POD, &selector)
        .await
        .is_identity_not_found();
    stage.token(DESK_POD, &selector).await.is_token_of(PAYMENTS);
}
