//! Invariant 4: a token is in the answer to its pod and nowhere else. Everything that the process
//! logs, at the most talkative level, and all metrics are searched for pieces of every token that
//! was made, after successes and after failures that had a token in their hands.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};
use parking_lot::Mutex;

use crate::testkit::{Options, Stage, request, stage, stage_with, token_target};
use crate::world::{
    DESK_POD, LEDGER, PAYMENTS, PAYMENTS_POD, REPORTS, REPORTS_POD, STRANGER_POD, TELLER_POD,
    THIEF_POD, UNKNOWN_POD,
};

thread_local! {
    /// What this thread logs, while a test wants to know.
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// What threads log that a runtime made for long work: whose they are nobody knows, so that each test
/// looks at all of it.
static AT_WORK: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// What tokio calls such threads.
const WORKER: &str = "tokio-";

/// Writes to this thread's log, if it keeps one.
#[derive(Clone, Copy)]
struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if thread::current()
            .name()
            .is_some_and(|name| name.starts_with(WORKER))
        {
            AT_WORK.lock().extend_from_slice(bytes);
        }
        LOG.with_borrow_mut(|log| log.iter_mut().for_each(|log| log.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of the lowest level.
const KEPT: &str = "kept from here on";

/// From here on this thread's lines are kept; the runtime of these tests has no other thread but for
/// long work, whose lines are always kept. One
/// subscriber for the whole process, since one for a thread misses call sites that another thread
/// came to first.
pub fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(|| ThisThread)
            .init();
    });
    LOG.set(Some(Vec::new()));
    tracing::trace!("{KEPT}");
}

/// What was kept; ends the keeping.
pub fn captured() -> String {
    let mut log = LOG.take().expect("capture() first");
    log.extend_from_slice(&AT_WORK.lock());
    String::from_utf8_lossy(&log).into_owned()
}

/// No 20 characters of the token in a row, but for its header, which all tokens share and which
/// says nothing.
#[track_caller]
pub fn is_clean(place: &str, text: &str, token: &str) {
    let body = token.split_once('.').map_or(token, |(_, body)| body);
    for at in 0..body.len().saturating_sub(20) {
        let piece = &body[at..at + 20];
        assert!(
            !text.contains(piece),
            "{place} holds `{piece}` of a token:\n{text}"
        );
    }
}

/// IMDS answers `payments` with this once; the pod gets an error without any of it.
async fn fails(stage: &Stage, effect: Effect, status: u16, token: &str) {
    let fault = Fault::new(Target::Imds, effect).for_client(PAYMENTS.client_id);
    stage.simulator.add_fault(fault.times(1));
    // Each time a resource of its own: refusals are kept for seconds.
    let resource = format!("https://{}.example", stage.upstream().len());
    let reply = stage.token_for(PAYMENTS_POD, &resource).await;
    reply.is_error(status);
    is_clean("an error", &reply.body, token);
    assert!(stage.simulator.faults().is_empty(), "it struck");
}

/// Every way to a token: cold, cached, by selector, renewed.
async fn successes(stage: &Stage) -> Vec<String> {
    let by_object = format!("&object_id={}", REPORTS.object_id);
    let mut tokens = Vec::new();
    for (pod, more, passed) in [
        (REPORTS_POD, "", 0),
        (REPORTS_POD, "", 0),
        (DESK_POD, by_object.as_str(), 0),
        (TELLER_POD, "", 0),
        (REPORTS_POD, "", 3600 * 17),
    ] {
        stage.let_pass(passed);
        let token = stage.token(pod, more).await.text("access_token");
        assert!(token.len() > 200);
        tokens.push(token);
    }
    tokens
}

#[tokio::test]
async fn tokens_are_in_answers_and_nowhere_else() {
    capture();
    let stage = stage().await;
    let tokens = successes(&stage).await;
    let (body, token) = (stage.token(REPORTS_POD, "").await.body, &tokens[0]);
    let with = |code, body: String| Effect::Status {
        code,
        retry_after: None,
        body: Some(body),
    };
    for spoilt in [
        body[..body.len() - 30].to_owned(),
        body.replace("\"expires_on\":\"", "\"expires_on\":\"x"),
        body.replace("Bearer", token),
        body.replace(REPORTS.client_id, token),
        format!(r#"{{"token":"{token}","access_token":7}}"#),
        format!("{token}\n"),
        format!("[\"{token}\"]"),
        body.clone(),
    ] {
        fails(&stage, with(200, spoilt), 503, token).await;
    }
    let words =
        |error: &str, text: &str| format!(r#"{{"error":"{error}","error_description":"{text}"}}"#);
    fails(
        &stage,
        with(400, words("bad", &format!("wrong: {token}!"))),
        400,
        token,
    )
    .await;
    fails(&stage, with(400, words(token, "in the word")), 400, token).await;
    fails(&stage, with(500, body.clone()), 503, token).await;
    fails(&stage, with(404, token.clone()), 503, token).await;
    fails(&stage, Effect::Expired, 503, token).await;
    fails(&stage, Effect::Truncate, 503, token).await;
    fails(
        &stage,
        Effect::Lifetime(Duration::from_secs(20)),
        503,
        token,
    )
    .await;
    // The thief is refused with the victim's token at hand.
    stage.token(THIEF_POD, "").await.is_identity_not_found();
    let ledger = format!("&client_id={}", LEDGER.client_id);
    stage
        .token(STRANGER_POD, &ledger)
        .await
        .is_identity_not_found();

    let (log, metrics) = (captured(), stage.scrape());
    for token in &tokens {
        is_clean("the log", &log, token);
        is_clean("the metrics", &metrics, token);
    }
    // Else it proves nothing: the log was on, at the lowest level, and told of these decisions.
    for told in [
        KEPT,
        "token decision",
        "granted",
        "identity_not_found",
        "request failed",
    ] {
        assert!(log.contains(told), "no `{told}` in the log:\n{log}");
    }
    let served = "lanyard_tokens_served_total{cache=\"hit\",source=\"imds\"}";
    assert!(metrics.contains(served), "{metrics}");
}

/// Where no pod is known the audit has the address, and a refusal without details has its words.
#[tokio::test]
async fn who_is_not_known_is_told_of_by_address() {
    capture();
    let options = Options {
        pod_wait: Duration::from_millis(50),
        ..Options::default()
    };
    let stage = stage_with(options).await;
    stage.token(UNKNOWN_POD, "").await.is_error(503);
    let log = captured();
    let told = format!("pod={UNKNOWN_POD}");
    assert!(
        log.lines()
            .any(|line| line.contains(&told) && line.contains("pod_unknown")),
        "{log}"
    );
}

/// A client may send a token (a header left from another call, a body, a query by mistake).
#[tokio::test]
async fn what_a_client_sends_as_credentials_is_not_logged_either() {
    capture();
    let stage = stage().await;
    let token = stage.token(REPORTS_POD, "").await.text("access_token");
    for sent in [
        format!(
            "GET {} HTTP/1.1\r\nMetadata: true\r\nAuthorization: Bearer {token}\r\n\r\n",
            token_target("")
        ),
        format!(
            "POST {} HTTP/1.1\r\nMetadata: true\r\nContent-Length: {}\r\n\r\n{token}",
            token_target(""),
            token.len()
        ),
        request(&token_target(&format!("&access_token={token}"))),
        request(&format!("/metadata/identity/oauth2/token/{token}")),
    ] {
        stage.send(PAYMENTS_POD, sent).await;
    }
    let log = captured();
    is_clean("the log", &log, &token);
    is_clean("the metrics", &stage.scrape(), &token);
    assert!(log.contains("token decision"), "{log}");
}

/// What a pod invents must not become a label: neither names nor numbers of series grow with it.
#[tokio::test]
async fn metrics_do_not_grow_with_what_pods_send() {
    let stage = stage().await;
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage.token(STRANGER_POD, "").await.is_identity_not_found();
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let before = series(&stage.scrape());
    for n in 0..30 {
        stage
            .token_for(PAYMENTS_POD, &format!("https://{n}.example/marker"))
            .await;
        stage
            .token(STRANGER_POD, &format!("&client_id=marker-{n}"))
            .await;
        stage.get(PAYMENTS_POD, &format!("/marker/{n}")).await;
        stage
            .get(
                PAYMENTS_POD,
                &format!("/metadata/marker{n}?api-version=2021-02-01"),
            )
            .await;
    }
    let after = stage.scrape();
    assert_eq!(series(&after), before);
    assert!(!after.contains("marker"), "{after}");
}
