//! Situation → status, headers, speed: the table that decides whether a client's credential chain
//! goes on in milliseconds or hangs for a minute. "At once" is measured against holds of many
//! seconds.

use std::time::{Duration, Instant};

use lanyard::agent::obtain::ObtainConfig;
use lanyard::serve::clock;
use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};

use crate::testkit::{AT_ONCE, Options, PATIENCE, Stage, request, stage, stage_with, token_target};
use crate::world::{
    self, ABSENT, ABSENT_POD, ANNOTATED_POD, DESK_POD, PAYMENTS, PAYMENTS_POD, REPORTS,
    REPORTS_POD, STRANGER_POD,
};

/// Azure refuses with these words, and with this status.
fn azure_says(stage: &Stage, code: u16, error: &str, description: &str) {
    let body = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);
    let effect = Effect::Status {
        code,
        retry_after: None,
        body: Some(body),
    };
    let fault = Fault::new(Target::Imds, effect);
    stage
        .simulator
        .add_fault(fault.for_client(PAYMENTS.client_id));
}

#[tokio::test]
async fn a_malformed_request_at_once_whoever_asks() {
    let stage = stage().await;
    let forwarded = format!(
        "GET {} HTTP/1.1\r\nMetadata: true\r\nX-Forwarded-For: x\r\n\r\n",
        token_target("")
    );
    for pod in [PAYMENTS_POD, STRANGER_POD, world::UNKNOWN_POD] {
        stage.send(pod, &forwarded).await.is_error_at_once(400);
        for target in [
            "/metadata/identity/oauth2/token?api-version=2018-02-01",
            "/metadata/identity/oauth2/token?resource=x",
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x&client_id=a&object_id=b",
        ] {
            stage.get(pod, target).await.is_error_at_once(400);
        }
    }
}

#[tokio::test]
async fn no_identity_or_not_this_one_at_once() {
    let stage = stage().await;
    stage.token(STRANGER_POD, "").await.is_identity_not_found();
    let reports = format!("&client_id={}", REPORTS.client_id);
    stage
        .token(PAYMENTS_POD, &reports)
        .await
        .is_identity_not_found();
}

#[tokio::test]
async fn a_resource_that_the_identity_may_not_be_used_for() {
    let stage = stage().await;
    let limited = world::identity("shop", "payments", PAYMENTS).replace(
        "spec: {",
        "spec: {allowedResources: ['https://vault.azure.net/'], ",
    );
    stage.apply(&limited);
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage
        .token_for(PAYMENTS_POD, "https://management.azure.com")
        .await
        .is_error_at_once(400);
}

#[tokio::test]
async fn several_identities_and_no_word_which() {
    let stage = stage().await;
    let reply = stage.token(DESK_POD, "").await;
    reply.is_error_at_once(400);
    assert_eq!(reply.text("error"), "invalid_request");
    // A default binding is such a word, an annotation another; both are no guess.
    let default = world::binding("shop", "payments", "payments, desk, annotated");
    stage.apply(&format!("{default}\n  default: true"));
    stage.token(DESK_POD, "").await.is_token_of(PAYMENTS);
    stage.token(ANNOTATED_POD, "").await.is_token_of(REPORTS);
}

#[tokio::test]
async fn an_annotation_that_cannot_be_fulfilled_is_told_and_never_slid_over() {
    let stage = stage().await;
    for wanted in [
        "absent,payments",
        "nothing,payments",
        "payments,bank/ledger",
    ] {
        stage.apply(&world::annotated("annotated", ANNOTATED_POD, wanted));
        stage.token(ANNOTATED_POD, "").await.is_error_at_once(400);
        // What is granted can still be named.
        let payments = format!("&client_id={}", PAYMENTS.client_id);
        stage
            .token(ANNOTATED_POD, &payments)
            .await
            .is_token_of(PAYMENTS);
        let ledger = format!("&client_id={}", world::LEDGER.client_id);
        stage
            .token(ANNOTATED_POD, &ledger)
            .await
            .is_identity_not_found();
    }
}

#[tokio::test]
async fn an_identity_that_azure_does_not_have_here_is_400_at_once() {
    let stage = stage().await;
    stage.token(ABSENT_POD, "").await.is_identity_not_found();
}

/// The new identity, as the agent sees it for the first time.
async fn a_new_identity(not_yet_hold: Duration) -> Stage {
    let obtain = ObtainConfig {
        not_yet_hold,
        ..ObtainConfig::default()
    };
    let stage = stage_with(Options {
        obtain,
        ..Options::default()
    })
    .await;
    stage.delete(&world::identity("shop", "absent", ABSENT));
    stage.apply_at(
        &world::identity("shop", "absent", ABSENT),
        clock::since_epoch(),
    );
    stage
}

#[tokio::test]
async fn a_new_identity_that_azure_does_not_show_yet_is_held_and_then_503() {
    let stage = a_new_identity(Duration::from_millis(1500)).await;
    let reply = stage.token(ABSENT_POD, "").await;
    reply.is_error(503);
    assert!(reply.took >= Duration::from_millis(900), "{reply:?}");
    assert!(stage.upstream().len() >= 2, "it was tried for meanwhile");
}

#[tokio::test]
async fn a_new_identity_that_azure_shows_in_time_is_served_to_who_waits() {
    let stage = a_new_identity(Duration::from_secs(15)).await;
    let mut waiting = stage.connect(ABSENT_POD).await;
    waiting.send(request(&token_target(""))).await;
    let begun = Instant::now();
    while stage.upstream().is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage
        .simulator
        .assign("node-1", &["payments", "absent"])
        .unwrap();
    waiting.reply().await.is_token_of(ABSENT);
}

#[tokio::test]
async fn r14_what_entra_refuses_is_400_with_its_words() {
    let words = "AADSTS700016: Application with identifier 'x' was not found";
    for (code, error) in [
        (400, "unauthorized_client"),
        (400, "invalid_resource"),
        (401, "unauthorized"),
        (403, "forbidden"),
    ] {
        let stage = stage().await;
        azure_says(&stage, code, error, words);
        let reply = stage.token(PAYMENTS_POD, "").await;
        reply.is_error_at_once(400);
        assert_eq!(
            (reply.text("error"), reply.text("error_description")),
            (error.to_owned(), words.to_owned())
        );
    }
}

#[tokio::test]
async fn r13_azures_throttling_is_429_with_its_own_retry_after() {
    let stage = stage().await;
    let effect = Effect::Status {
        code: 429,
        retry_after: Some(7),
        body: None,
    };
    stage.simulator.add_fault(Fault::new(Target::Imds, effect));
    let reply = stage.token(PAYMENTS_POD, "").await;
    reply.is_error_at_once(429);
    assert_eq!(reply.header("retry-after"), Some("7"));
    // IMDS said when: it is not asked again before, by nobody's request.
    stage.token(PAYMENTS_POD, "").await.is_error(429);
    assert_eq!(stage.upstream().len(), 1);
}

#[tokio::test]
async fn r14_trouble_behind_a_cached_token_is_not_the_clients() {
    let stage = stage().await;
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    for code in [429, 500, 503, 404, 410, 400] {
        stage.simulator.clear_faults();
        stage.simulator.add_fault(Fault::status(Target::Imds, code));
        stage.let_pass(1000);
        let reply = stage.token(PAYMENTS_POD, "").await;
        reply.is_token_of(PAYMENTS);
        assert!(reply.took < AT_ONCE);
    }
}

#[tokio::test]
async fn r15_silence_behind_us_is_an_answer_in_time_from_us() {
    let obtain = ObtainConfig {
        answer_deadline: Duration::from_secs(2),
        ..ObtainConfig::default()
    };
    let stage = stage_with(Options {
        obtain,
        ..Options::default()
    })
    .await;
    stage
        .simulator
        .add_fault(Fault::new(Target::Imds, Effect::Silence));
    let reply = stage.token(PAYMENTS_POD, "").await;
    reply.is_error(503);
    assert!(reply.took < Duration::from_secs(6), "{reply:?}");
}

#[tokio::test]
async fn a_pod_over_its_share_is_429_and_others_are_served() {
    let stage = stage().await;
    let mut statuses = Vec::new();
    for n in 0..40 {
        let reply = stage
            .token_for(PAYMENTS_POD, &format!("https://{n}.example"))
            .await;
        if reply.status != 200 {
            reply.is_error_at_once(429);
        }
        statuses.push(reply.status);
    }
    assert!(
        statuses.contains(&200) && statuses.contains(&429),
        "{statuses:?}"
    );
    stage.token(REPORTS_POD, "").await.is_token_of(REPORTS);
    // What it has it may have again.
    stage
        .token_for(PAYMENTS_POD, "https://0.example")
        .await
        .is_token_of(PAYMENTS);
}

#[tokio::test]
async fn a_grant_that_goes_while_its_token_is_fetched_is_gone() {
    let stage = stage().await;
    let slow = Fault::slow(Target::Imds, Duration::from_millis(500));
    stage.simulator.add_fault(slow);
    let mut asking = stage.connect(PAYMENTS_POD).await;
    asking.send(request(&token_target(""))).await;
    let begun = Instant::now();
    while stage.upstream().is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.delete(&world::binding("shop", "payments", "payments"));
    asking.reply().await.is_identity_not_found();
}

#[tokio::test]
async fn an_agent_that_drains_answers_what_is_open_and_says_close() {
    let stage = stage().await;
    let mut waiting = stage.connect(world::UNKNOWN_POD).await;
    waiting.send(request(&token_target(""))).await;
    let mut open = stage.connect(PAYMENTS_POD).await;
    open.send(request(&token_target(""))).await;
    open.reply().await.is_token_of(PAYMENTS);
    // Sent before the drain, answered in it.
    stage
        .simulator
        .add_fault(Fault::slow(Target::Imds, Duration::from_millis(300)));
    let mut late = stage.connect(REPORTS_POD).await;
    late.send(request(&token_target(""))).await;
    let begun = Instant::now();
    while stage.upstream().len() < 2 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.drain.begin();
    let reply = late.reply().await;
    reply.is_token_of(REPORTS);
    assert_eq!(reply.header("connection"), Some("close"));
    // A request may be on its way on an idle connection: it gets one more answer.
    open.send(request(&token_target(""))).await;
    let reply = open.reply().await;
    reply.is_token_of(PAYMENTS);
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(open.rest().await, b"");
    stage.apply(&world::annotated(
        "annotated",
        world::UNKNOWN_POD,
        "payments",
    ));
    waiting.reply().await.is_token_of(PAYMENTS);
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(stage.address).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still taking connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
