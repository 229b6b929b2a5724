//! Invariant 4 for what proves an identity: nothing of a Secret's values is in a log line (at the most
//! talkative level), a metric, an Event, an error or `Debug`, however broken the Secret is.

#![allow(
    clippy::format_push_string,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says so by panicking"
)]

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lanyard::agent::credentials::{Credentials, folder};
use lanyard::agent::events::Events;
use lanyard::agent::manifests;
use lanyard::api::object::{Object, read};
use lanyard::model::facts::{CredentialFacts, IdentityFacts, SourceFacts};
use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

/// Part of every value that must not be seen.
const CANARY: &str = "c4n4ry";
const PATIENCE: Duration = Duration::from_secs(30);
/// 2026-11-21.
const NOW: Duration = Duration::from_secs(1_795_000_000);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn capture() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

/// An identity `shop/NAME` with this source.
fn identity(name: &str, source: &Value) -> (Arc<IdentityFacts>, Arc<CredentialFacts>) {
    let document = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")},
        "spec": {"clientID": "00000000-0000-4000-8000-000000000001", "tenantID": "00000000-0000-4000-8000-000000000002",
            "tokenSources": [{"servicePrincipal": source}]}});
    let Some(Object::Identity(facts)) = read(document, "1").unwrap() else {
        panic!("an identity");
    };
    let SourceFacts::ServicePrincipal(credential) = facts.sources[0].clone() else {
        panic!("a service principal");
    };
    (Arc::new(facts), credential)
}

/// Secrets, each wrong in its own way: name, source, the rest of the document.
fn broken(key: &KeyPair, other: &KeyPair) -> Vec<(&'static str, Value, String)> {
    let certificate = CertificateParams::new(Vec::new()).unwrap();
    let certificate = certificate.self_signed(key).unwrap().pem();
    let pem = |certificate: &str, key: &str| {
        let values = json!({"tls.crt": certificate, "tls.key": key});
        format!("\"stringData\": {values}")
    };
    let tls = |name: &str| json!({"certificateRef": {"name": name}});
    let secret = |name: &str| json!({"secretRef": {"name": name}});
    let ec = KeyPair::generate().unwrap();
    vec![
        (
            "refused",
            secret("refused"),
            format!("\"stringData\": {{\"clientSecret\": \"{CANARY}\"}}"),
        ),
        (
            "other-key",
            secret("other-key"),
            format!("\"stringData\": {{\"other\": \"{CANARY}\"}}"),
        ),
        (
            "no-base64",
            secret("no-base64"),
            format!("\"data\": {{\"clientSecret\": \"{CANARY}!\"}}"),
        ),
        (
            "no-map",
            secret("no-map"),
            format!("\"data\": \"{CANARY}\""),
        ),
        (
            "cut-off",
            secret("cut-off"),
            format!("\"stringData\": {{\"clientSecret\": \"{CANARY}"),
        ),
        ("garbage", tls("garbage"), pem(CANARY, CANARY)),
        (
            "block",
            tls("block"),
            pem(
                &certificate,
                &format!("-----BEGIN PRIVATE KEY-----\n{CANARY}=\n-----END PRIVATE KEY-----\n"),
            ),
        ),
        (
            "mismatch",
            tls("mismatch"),
            pem(&certificate, &other.serialize_pem()),
        ),
        ("ec", tls("ec"), pem(&certificate, &ec.serialize_pem())),
        (
            "store",
            json!({"certificateRef": {"name": "store", "pkcs12Key": "p12", "passwordKey": "password"}}),
            format!("\"stringData\": {{\"p12\": \"{CANARY}\", \"password\": \"{CANARY}\"}}"),
        ),
    ]
}

/// No 12 characters in a row of what must not be seen.
#[track_caller]
fn is_clean(place: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        for at in 0..=secret.len() - 12 {
            let piece = &secret[at..at + 12];
            assert!(!text.contains(piece), "{place} holds `{piece}`:\n{text}");
        }
    }
    let encoded = STANDARD.encode(CANARY);
    assert!(
        !text.contains(CANARY) && !text.contains(&encoded),
        "{place}:\n{text}"
    );
}

#[tokio::test]
async fn nothing_of_a_secret_is_told_however_broken_it_is() {
    let log = Log::capture();
    let [key, other] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
    let secrets: Vec<String> = [&key, &other]
        .map(|key| STANDARD.encode(key.serialize_der()))
        .into();
    let cases = broken(&key, &other);
    let path = tempfile::tempdir().unwrap();
    for (name, _, rest) in &cases {
        let head = json!({"namespace": "shop", "name": name});
        let text = format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"metadata\": {head}, {rest}}}\n"
        );
        std::fs::write(path.path().join(format!("{name}.yaml")), text).unwrap();
    }
    let registry = Registry::new();
    let events = Events::register(&registry).unwrap();
    let (mut tellings, _) = events.start();
    let credentials = Credentials::register(&registry, events, || NOW).unwrap();
    let (batches, _kept) = tokio::sync::mpsc::channel(16);
    tokio::spawn(manifests::follow(path.path().to_owned(), false, batches));
    tokio::spawn(folder::follow(path.path().to_owned(), credentials.clone()));
    let needed: Vec<_> = cases
        .iter()
        .map(|(name, source, _)| identity(name, source))
        .collect();
    credentials.need(
        needed
            .iter()
            .map(|(identity, credential)| (identity, credential)),
    );

    let mut said = String::new();
    for (identity, credential) in &needed {
        let reading = credentials.ring_when_read(identity, credential);
        match tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("read in time")
        {
            Err(unusable) => said.push_str(&format!("{unusable} {unusable:?}\n")),
            Ok(ring) => {
                let candidates = ring.candidates(NOW);
                ring.refused(&candidates[0], 7_000_215, NOW);
                said.push_str(&format!("{ring:?} {candidates:?}\n"));
            }
        }
    }
    let told: Vec<_> = std::iter::from_fn(|| tellings.try_recv().ok()).collect();
    let told = format!("{told:#?}");
    let metrics = TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    let log = log.text();
    for (place, text) in [
        ("an error", &said),
        ("an Event", &told),
        ("a metric", &metrics),
        ("the log", &log),
    ] {
        is_clean(place, text, &secrets);
    }
    // Else it proves nothing: each was read, and told of.
    for (name, ..) in &cases {
        assert!(
            told.contains(&format!("shop/{name}")),
            "no Event of {name}: {told}"
        );
        assert!(
            log.contains(&format!("shop/{name}")),
            "no line of {name}: {log}"
        );
    }
    for words in [
        "has no key `clientSecret`",
        "belongs to none",
        "RSA only",
        "AADSTS7000215",
    ] {
        assert!(told.contains(words), "no Event says `{words}`: {told}");
    }
}
