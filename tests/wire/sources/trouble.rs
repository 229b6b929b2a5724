//! Entra fails in every way it can: the program is told to try again, in time; nothing wrong is cached, no
//! owner is blamed, and when the trouble is over so is ours.

use std::time::Duration;

use lanyard::agent::obtain::ObtainConfig;
use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};

use super::cast::{SECRET, Wanted};
use super::composed::Settings;
use super::refused::{entra, is_clean, mends};
use super::stage::{APP_POD, Options, Stage, stage_with, stage_with_secret};

/// A stage that gives up on Entra soon.
async fn impatient() -> Stage {
    let obtain = ObtainConfig {
        answer_deadline: Duration::from_secs(3),
        ..ObtainConfig::default()
    };
    let stage = stage_with(Options {
        settings: Settings {
            obtain,
            ..Settings::default()
        },
        ..Options::default()
    })
    .await;
    stage.workload(&Wanted::default());
    stage.client_secret(SECRET);
    stage.usable().await;
    stage
}

/// The whole story of trouble that passes.
async fn trouble(effect: Effect) {
    let stage = impatient().await;
    stage.simulator.add_fault(entra(effect));
    for _ in 0..2 {
        let reply = stage.token(APP_POD, "").await;
        reply.is_error(503);
        assert!(reply.took < Duration::from_secs(10), "{reply:?}");
        is_clean(&stage, &reply.body);
    }
    let failed = stage.sum_of("lanyard_requests_failed_total{kind=\"upstream_");
    assert!(failed >= 2.0, "{failed} are counted");
    let called = "lanyard_upstream_requests_total{";
    let scraped = stage.scrape();
    let counted = |line: &&str| line.starts_with(called) && line.contains("service_principal");
    assert!(scraped.lines().any(|line| counted(&line)), "{scraped}");
    stage.simulator.clear_faults();
    mends(&stage).await;
    assert_eq!(stage.api.events(), [], "trouble of Entra's is no owner's");
}

fn aadsts(code: u32) -> Effect {
    Fault::aadsts(code).effect.unwrap()
}

fn status(code: u16) -> Effect {
    Effect::Status {
        code,
        retry_after: None,
        body: None,
    }
}

fn body(code: u16, text: &str) -> Effect {
    Effect::Status {
        code,
        retry_after: None,
        body: Some(text.to_owned()),
    }
}

#[tokio::test]
async fn internal_trouble() {
    trouble(status(500)).await;
}

#[tokio::test]
async fn unavailable() {
    trouble(status(503)).await;
}

#[tokio::test]
async fn aadsts90033_a_transient_error() {
    trouble(aadsts(90_033)).await;
}

#[tokio::test]
async fn aadsts50196_a_loop() {
    trouble(aadsts(50_196)).await;
}

#[tokio::test]
async fn a_page_of_html() {
    trouble(Effect::Html).await;
}

#[tokio::test]
async fn a_refusal_in_html() {
    trouble(body(400, "<html>canary eyJ0eXAi</html>")).await;
}

#[tokio::test]
async fn garbage() {
    trouble(Effect::Garbage).await;
}

#[tokio::test]
async fn cut_off() {
    trouble(Effect::Truncate).await;
}

#[tokio::test]
async fn ten_mebibytes() {
    trouble(Effect::Huge(10 << 20)).await;
}

#[tokio::test]
async fn nothing_in_it() {
    trouble(body(200, "")).await;
    trouble(body(200, "{}")).await;
}

#[tokio::test]
async fn an_answer_without_a_token() {
    trouble(Effect::Missing("access_token".to_owned())).await;
}

#[tokio::test]
async fn an_expired_token() {
    trouble(Effect::Expired).await;
}

#[tokio::test]
async fn reset() {
    trouble(Effect::Reset).await;
}

#[tokio::test]
async fn silence() {
    trouble(Effect::Silence).await;
}

/// What is only slow is waited for, and once for all who ask.
#[tokio::test]
async fn slowness_is_waited_for() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.mark();
    stage
        .simulator
        .add_fault(Fault::slow(Target::Entra, Duration::from_millis(700)));
    let resource = "https://management.azure.com/";
    let asks = (0..8).map(|_| stage.token_for(APP_POD, resource));
    for reply in futures_util::future::join_all(asks).await {
        assert_eq!(reply.claims()["aud"], resource);
    }
    assert_eq!(stage.exchanges().len(), 1);
}
