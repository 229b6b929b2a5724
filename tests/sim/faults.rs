//! Each kind of fault, as a client sees it.

use std::time::{Duration, Instant};

use lanyard::sim::faults::{Effect, Fault, Target};
use lanyard::sim::{Simulator, World};

use crate::client::{Answer, get, send, token_target};
use crate::world::{PAYMENTS, REPORTS, start};

fn target() -> String {
    token_target(&format!("&client_id={PAYMENTS}"))
}

async fn with(effect: Effect) -> Simulator {
    let simulator = start("").await;
    simulator.add_fault(Fault::new(Target::Imds, effect).times(1));
    simulator
}

async fn ask(simulator: &Simulator) -> Answer {
    get(simulator.addresses().imds.unwrap(), &target()).await
}

/// After the one fault all is well again.
async fn healed(simulator: &Simulator) {
    assert_eq!(ask(simulator).await.status, 200);
}

async fn raw(simulator: &Simulator) -> std::io::Result<Vec<u8>> {
    let text = format!(
        "GET {} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n",
        target()
    );
    send(simulator.addresses().imds.unwrap(), &text).await
}

#[tokio::test]
async fn status_with_retry_after_and_body() {
    let status = Effect::Status {
        code: 503,
        retry_after: Some(7),
        body: None,
    };
    let simulator = with(status).await;
    let answer = ask(&simulator).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("7"))
    );
    assert_eq!(answer.json()["error"], "service_unavailable");
    assert_eq!(simulator.journal()[0].fault.as_deref(), Some("status"));
    healed(&simulator).await;
}

#[tokio::test]
async fn latency_delays_and_leaves_the_answer_right() {
    let simulator = start("").await;
    let late = Duration::from_millis(120);
    simulator.add_fault(Fault::slow(Target::Imds, late).times(1));
    let start = Instant::now();
    assert_eq!(ask(&simulator).await.status, 200);
    assert!(start.elapsed() >= late);
}

#[tokio::test]
async fn silence_is_accepted_and_never_answered() {
    let simulator = with(Effect::Silence).await;
    let silent = tokio::time::timeout(Duration::from_millis(300), raw(&simulator)).await;
    assert!(silent.is_err(), "nothing came and nothing ended");
    let entry = &simulator.journal()[0];
    assert_eq!(
        (entry.status, entry.fault.as_deref()),
        (None, Some("silence"))
    );
    healed(&simulator).await;
}

#[tokio::test]
async fn reset_is_a_reset() {
    let simulator = with(Effect::Reset).await;
    let error = raw(&simulator).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    healed(&simulator).await;
}

#[tokio::test]
async fn truncated_breaks_off_in_the_middle_of_the_promised_length() {
    let simulator = with(Effect::Truncate).await;
    let answer = Answer::parse(&raw(&simulator).await.unwrap());
    let promised: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.len(), promised / 2);
    assert!(answer.text().starts_with("{\"access_token\":\""));
    healed(&simulator).await;
}

#[tokio::test]
async fn garbage_html_and_a_huge_body() {
    let simulator = with(Effect::Garbage).await;
    let garbage = ask(&simulator).await;
    assert_eq!(garbage.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&garbage.body).is_err());
    let simulator = with(Effect::Html).await;
    assert_eq!(
        ask(&simulator).await.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let simulator = with(Effect::Huge(10 << 20)).await;
    assert!(ask(&simulator).await.body.len() > 10 << 20);
}

#[tokio::test]
async fn tokens_may_be_expired_short_or_lack_a_field() {
    let number = |answer: &Answer, name: &str| {
        answer.json()[name]
            .as_str()
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    let simulator = with(Effect::Expired).await;
    let answer = ask(&simulator).await;
    assert_eq!(answer.status, 200);
    assert!(number(&answer, "expires_in") < 0);
    let simulator = with(Effect::Lifetime(Duration::from_secs(90))).await;
    assert!((60..=90).contains(&number(&ask(&simulator).await, "expires_in")));
    healed(&simulator).await;
    let simulator = with(Effect::Missing("expires_in".to_owned())).await;
    assert!(ask(&simulator).await.json().get("expires_in").is_none());
}

#[tokio::test]
async fn a_fault_for_one_identity_spares_the_other() {
    let simulator = start("").await;
    simulator.add_fault(Fault::status(Target::Imds, 500).for_client(PAYMENTS));
    let address = simulator.addresses().imds.unwrap();
    let other = get(address, &token_target(&format!("&client_id={REPORTS}"))).await;
    assert_eq!((ask(&simulator).await.status, other.status), (500, 200));
    simulator.clear_faults();
    healed(&simulator).await;
}

#[tokio::test]
async fn the_world_file_may_hold_faults() {
    let simulator =
        start("faults: [{target: imds, status: 410, count: 1, match: {vm: NODE-1}}]").await;
    assert_eq!(simulator.faults().len(), 1);
    assert_eq!(ask(&simulator).await.status, 410);
    healed(&simulator).await;
    let wrong = format!(
        "{}\nfaults: [{{target: imds, flood: 1}}]\n",
        crate::world::WORLD
    );
    let message = World::from_yaml(&wrong).unwrap_err().to_string();
    assert!(message.contains("flood"), "{message}");
}
