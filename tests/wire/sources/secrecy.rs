//! Invariant 4 for the new sources: neither client secrets, keys, passwords nor service accounts' tokens
//! are in any log line (at the lowest level), metric, Event or answer; after successes, refusals and
//! answers that repeat what was sent.

use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};

use super::cast::{self, CERTIFICATE, FEDERATED, SECRET, USUAL};
use super::certificates;
use super::stage::{APP_POD, Stage, stage_of};
use crate::secrecy::{capture, captured, is_clean};

/// Everything that may be seen of the agent: log, metrics, Events, and these answers.
fn shown(stage: &Stage, answers: &[String]) -> [(&'static str, String); 4] {
    [
        ("the log", captured()),
        ("the metrics", stage.scrape()),
        ("what the API server was told", stage.api.written()),
        ("an answer", answers.join("\n")),
    ]
}

/// What the search finds was there to be found.
fn has_teeth(log: &str, told: &[&str]) {
    for word in told {
        assert!(log.contains(word), "no `{word}` in the log:\n{log}");
    }
}

fn repeated(code: u16, text: &str) -> Fault {
    let body = serde_json::json!({
        "error": "invalid_client",
        "error_description": format!("AADSTS7000215: what you sent was {text} Trace ID: x"),
        "error_codes": [7_000_215],
    });
    let effect = Effect::Status {
        code,
        retry_after: None,
        body: Some(body.to_string()),
    };
    Fault::new(Target::Entra, effect).times(1)
}

/// Errors that hold what was sent, each with an audience of its own. The bodies.
async fn echoes(stage: &Stage, sent: &str) -> Vec<String> {
    let mut answers = Vec::new();
    let escaped = lanyard::model::escape::escaped(sent);
    for (n, (code, text)) in [
        (401, sent),
        (400, &escaped),
        (500, sent),
        (503, sent),
        (200, sent),
    ]
    .into_iter()
    .enumerate()
    {
        stage.simulator.add_fault(repeated(code, text));
        let reply = stage.token(APP_POD, &format!("/echo-{n}")).await;
        assert_ne!(reply.status, 200, "{reply:?}");
        answers.push(reply.body);
    }
    answers
}

#[tokio::test]
async fn client_secrets_show_nowhere() {
    capture();
    let stage = stage_of(&[USUAL]).await;
    stage
        .api
        .secret("shop", "app", &[("wrong-key", b"canary-of-the-wrong-key")]);
    stage.event("CredentialUnusable").await;
    let mut answers = vec![stage.token_at_last(APP_POD).await.body];
    stage.client_secret(SECRET);
    let token = stage
        .until("a token", APP_POD, |reply| reply.status == 200)
        .await
        .text("access_token");
    answers.extend(echoes(&stage, SECRET).await);
    stage.client_secret("canary~client.secret-that-is-wrong");
    stage.event_while_served("AADSTS7000215").await;
    let shown = shown(&stage, &answers);
    has_teeth(&shown[0].1, &["credential", "token decision", "7000215"]);
    for (place, text) in &shown {
        for canary in [
            SECRET,
            &lanyard::model::escape::escaped(SECRET),
            "canary-of-the-wrong-key",
            "canary~client.secret-that-is-wrong",
            // As the API server writes them.
            &base64(SECRET),
            &base64("canary-of-the-wrong-key"),
        ] {
            assert!(!text.contains(canary), "{place} holds {canary}:\n{text}");
        }
        is_clean(place, text, &token);
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn keys_and_assertions_show_nowhere() {
    capture();
    let stage = stage_of(&[CERTIFICATE]).await;
    let (pair, other) = (certificates::rsa("app"), certificates::rsa("other"));
    let data = [
        ("tls.crt", other.certificate.as_bytes()),
        ("tls.key", pair.key.as_bytes()),
    ];
    stage.api.secret("shop", "app-tls", &data);
    stage.event("CredentialUnusable").await;
    let mut answers = vec![stage.token_at_last(APP_POD).await.body];
    let thumbprint = stage.simulator.add_certificate("app", &pair.certificate);
    let thumbprint = thumbprint.unwrap();
    stage.api.secret("shop", "app-tls", &pair.data());
    stage
        .until("a token", APP_POD, |reply| reply.status == 200)
        .await;
    // Not registered: Entra's words name the thumbprint, which is no secret.
    stage.api.secret("shop", "app-tls", &other.data());
    stage.event_while_served("700027").await;
    stage
        .simulator
        .revoke_certificate("app", &thumbprint)
        .unwrap();
    let refused = stage.token(APP_POD, "/other").await;
    refused.is_error(400);
    answers.push(refused.body);
    let shown = shown(&stage, &answers);
    has_teeth(&shown[0].1, &["credential", "700027"]);
    for (place, text) in &shown {
        for line in pair.key.lines().chain(other.key.lines()) {
            let is_text = line.len() > 20 && !line.starts_with("-----");
            assert!(
                !(is_text && text.contains(line)),
                "{place} holds {line}:\n{text}"
            );
        }
        // Client assertions begin so, and no other text here does but tokens.
        assert!(!text.contains("eyJ"), "{place} holds a JWT:\n{text}");
    }
}

#[tokio::test]
async fn passwords_show_nowhere() {
    capture();
    let store = "servicePrincipal: {certificateRef: {name: app-p12, pkcs12Key: p12, passwordKey: password}}";
    let stage = stage_of(&[store]).await;
    let pair = certificates::rsa("app");
    let file = certificates::pkcs12(&pair, "canary-right-password");
    for password in ["canary-wrong-password", "canary-right-password"] {
        let data: [(&str, &[u8]); 2] = [("p12", &file), ("password", password.as_bytes())];
        stage.api.secret("shop", "app-p12", &data);
        if password.contains("wrong") {
            stage.event("CredentialUnusable").await;
        }
    }
    stage
        .simulator
        .add_certificate("app", &pair.certificate)
        .unwrap();
    stage
        .until("a token", APP_POD, |reply| reply.status == 200)
        .await;
    let shown = shown(&stage, &[]);
    has_teeth(&shown[0].1, &["credential"]);
    for (place, text) in &shown {
        for canary in ["canary-wrong-password", "canary-right-password"] {
            assert!(!text.contains(canary), "{place} holds {canary}:\n{text}");
            assert!(
                !text.contains(&base64(canary)),
                "{place} holds {canary}:\n{text}"
            );
        }
    }
}

#[tokio::test]
async fn service_accounts_tokens_show_nowhere() {
    capture();
    let stage = stage_of(&[FEDERATED]).await;
    stage.token_at_last(APP_POD).await.claims();
    // Entra repeats the assertion that it was sent, in whatever it says.
    let sent = stage.api.tokens().pop().unwrap();
    let mut answers = echoes(&stage, &sent).await;
    // Nobody is registered for this account.
    stage.apply(&cast::pod(
        "shop",
        "app-twin",
        "app",
        "visitor",
        super::stage::TWIN_POD,
    ));
    let refused = stage.token_at_last(super::stage::TWIN_POD).await;
    assert!(
        refused.body.contains("system:serviceaccount:shop:visitor"),
        "{refused:?}"
    );
    answers.push(refused.body);
    let tokens = stage.api.tokens();
    let shown = shown(&stage, &answers);
    has_teeth(&shown[0].1, &["token decision"]);
    for (place, text) in &shown {
        for token in &tokens {
            is_clean(place, text, token);
        }
        assert!(
            !text.contains("agents-own"),
            "{place} holds the agent's own token:\n{text}"
        );
    }
}
