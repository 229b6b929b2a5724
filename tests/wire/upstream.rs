//! IMDS misbehaves in every way it can: the client gets a typed error in time, nothing wrong is
//! cached, other identities are served meanwhile, and when the trouble is over so is ours.

use std::time::{Duration, Instant};

use lanyard::agent::obtain::ObtainConfig;
use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};

use crate::testkit::{Options, PATIENCE, Reply, Stage, VAULT, stage_with};
use crate::world::{DESK_POD, PAYMENTS, PAYMENTS_POD, REPORTS, REPORTS_POD, STRANGER_POD};

/// A stage that gives up on IMDS soon.
async fn impatient() -> Stage {
    let obtain = ObtainConfig {
        answer_deadline: Duration::from_secs(3),
        ..ObtainConfig::default()
    };
    stage_with(Options {
        obtain,
        ..Options::default()
    })
    .await
}

fn imds(effect: Effect) -> Fault {
    Fault::new(Target::Imds, effect)
}

/// As an SDK does: again while it is told to try again.
async fn token_at_last(stage: &Stage, pod: &str) -> Reply {
    resource_at_last(stage, pod, VAULT).await
}

async fn resource_at_last(stage: &Stage, pod: &str, resource: &str) -> Reply {
    let begun = Instant::now();
    loop {
        let reply = stage.token_for(pod, resource).await;
        if !matches!(reply.status, 429 | 503) {
            return reply;
        }
        reply.is_error(reply.status);
        assert!(begun.elapsed() < PATIENCE, "{reply:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The whole story of one kind of trouble with `payments`.
async fn trouble(effect: Effect, status: u16) {
    let stage = impatient().await;
    stage
        .simulator
        .add_fault(imds(effect).for_client(PAYMENTS.client_id));
    for _ in 0..2 {
        let reply = stage.token(PAYMENTS_POD, "").await;
        reply.is_error(status);
        assert!(!reply.body.contains("eyJ"), "{reply:?}");
        assert!(reply.took < Duration::from_secs(10), "{reply:?}");
    }
    // Others: cold, from the same pod and from another, and those that get nothing anyway.
    let other = stage
        .token(DESK_POD, &format!("&client_id={}", REPORTS.client_id))
        .await;
    other.is_token_of(REPORTS);
    stage.token(REPORTS_POD, "").await.is_token_of(REPORTS);
    stage.token(STRANGER_POD, "").await.is_identity_not_found();
    stage.simulator.clear_faults();
    token_at_last(&stage, PAYMENTS_POD)
        .await
        .is_token_of(PAYMENTS);
    // And it is cached like any other.
    let calls = stage.upstream().len();
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    assert_eq!(stage.upstream().len(), calls);
}

fn status(code: u16) -> Effect {
    Effect::Status {
        code,
        retry_after: None,
        body: None,
    }
}

#[tokio::test]
async fn garbage() {
    trouble(Effect::Garbage, 503).await;
}

#[tokio::test]
async fn a_page_of_html() {
    trouble(Effect::Html, 503).await;
}

#[tokio::test]
async fn truncated_json() {
    trouble(Effect::Truncate, 503).await;
}

#[tokio::test]
async fn a_whole_answer_of_cut_json() {
    let body = Some(r#"{"access_token":"eyJ0eXAi"#.to_owned());
    trouble(
        Effect::Status {
            code: 200,
            retry_after: None,
            body,
        },
        503,
    )
    .await;
}

#[tokio::test]
async fn an_expired_token() {
    trouble(Effect::Expired, 503).await;
}

#[tokio::test]
async fn ten_mebibytes() {
    trouble(Effect::Huge(10 << 20), 503).await;
}

#[tokio::test]
async fn a_reset_connection() {
    trouble(Effect::Reset, 503).await;
}

#[tokio::test]
async fn nothing_at_all() {
    trouble(Effect::Silence, 503).await;
}

#[tokio::test]
async fn an_answer_without_a_token() {
    trouble(Effect::Missing("access_token".to_owned()), 503).await;
}

#[tokio::test]
async fn json_of_another_shape() {
    let bodies = [
        "null",
        "[]",
        "\"eyJ\"",
        "{}",
        r#"{"access_token":7}"#,
        r#"{"access_token":""}"#,
    ];
    let stage = impatient().await;
    for (n, body) in bodies.into_iter().enumerate() {
        let resource = format!("https://{n}.example");
        let body = Some(body.to_owned());
        let mut fault = imds(Effect::Status {
            code: 200,
            retry_after: None,
            body,
        })
        .times(1);
        fault.matching.resource = Some(resource.clone());
        stage.simulator.add_fault(fault);
        stage.token_for(PAYMENTS_POD, &resource).await.is_error(503);
    }
    for n in 0..bodies.len() {
        let more = format!("https://{n}.example");
        resource_at_last(&stage, PAYMENTS_POD, &more)
            .await
            .is_token_of(PAYMENTS);
    }
}

#[tokio::test]
async fn status_404_being_updated() {
    trouble(status(404), 503).await;
}

#[tokio::test]
async fn status_410_gone_for_a_minute() {
    trouble(status(410), 503).await;
}

#[tokio::test]
async fn status_500() {
    trouble(status(500), 503).await;
}

#[tokio::test]
async fn status_503() {
    trouble(status(503), 503).await;
}

#[tokio::test]
async fn status_500_of_html() {
    let body = Some("<html>Bad gateway</html>".to_owned());
    trouble(
        Effect::Status {
            code: 502,
            retry_after: None,
            body,
        },
        503,
    )
    .await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    trouble(status(302), 503).await;
}

/// IMDS throttles the machine, not an identity: who has no token yet waits, who has one is served.
#[tokio::test]
async fn status_429() {
    let stage = impatient().await;
    stage.token(REPORTS_POD, "").await.is_token_of(REPORTS);
    stage.simulator.add_fault(Fault::status(Target::Imds, 429));
    for _ in 0..2 {
        stage.token(PAYMENTS_POD, "").await.is_error(429);
        let reply = stage.token(REPORTS_POD, "").await;
        reply.is_token_of(REPORTS);
        assert!(reply.took < crate::testkit::AT_ONCE);
    }
    stage.simulator.clear_faults();
    token_at_last(&stage, PAYMENTS_POD)
        .await
        .is_token_of(PAYMENTS);
}

/// A client that obeys would never come back: nobody is told to wait longer than IMDS ever is away.
#[tokio::test]
async fn a_retry_after_of_an_age_is_not_passed_on() {
    let stage = impatient().await;
    stage.simulator.add_fault(imds(Effect::Status {
        code: 429,
        retry_after: Some(u32::MAX),
        body: None,
    }));
    for _ in 0..2 {
        stage.token(PAYMENTS_POD, "").await.is_error(429);
    }
}

/// Somebody else's token, by whatever mistake: never handed out, never kept.
#[tokio::test]
async fn a_token_of_another_identity() {
    let stage = impatient().await;
    let theirs = stage.token(REPORTS_POD, "").await.body;
    let effect = Effect::Status {
        code: 200,
        retry_after: None,
        body: Some(theirs),
    };
    stage
        .simulator
        .add_fault(imds(effect).for_client(PAYMENTS.client_id).times(1));
    let reply = stage.token(PAYMENTS_POD, "").await;
    reply.is_error(503);
    assert!(!reply.body.contains("eyJ"), "{reply:?}");
    token_at_last(&stage, PAYMENTS_POD)
        .await
        .is_token_of(PAYMENTS);
}

/// The same when only the JWT gives it away.
#[tokio::test]
async fn a_token_of_another_identity_under_the_right_client_id() {
    let stage = impatient().await;
    let theirs = stage.token(REPORTS_POD, "").await.body;
    let forged = theirs.replace(REPORTS.client_id, PAYMENTS.client_id);
    assert_ne!(theirs, forged);
    let effect = Effect::Status {
        code: 200,
        retry_after: None,
        body: Some(forged),
    };
    stage
        .simulator
        .add_fault(imds(effect).for_client(PAYMENTS.client_id).times(1));
    stage.token(PAYMENTS_POD, "").await.is_error(503);
    token_at_last(&stage, PAYMENTS_POD)
        .await
        .is_token_of(PAYMENTS);
}

#[tokio::test]
async fn nobody_listens() {
    let mut stage = impatient().await;
    stage.token(REPORTS_POD, "").await.is_token_of(REPORTS);
    let address = stage.simulator.addresses().imds.unwrap();
    stage.azure_goes_away().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    stage.token(PAYMENTS_POD, "").await.is_error(503);
    stage.token(REPORTS_POD, "").await.is_token_of(REPORTS);
    stage.token(STRANGER_POD, "").await.is_identity_not_found();
}
