//! Rings as the rest of the agent sees them.

use prometheus::TextEncoder;
use serde_json::json;

use super::testkit::{KEYS, certificate_pem, data, secret, year};
use super::*;
use crate::agent::events::reason::Reason;
use crate::agent::events::{Regarding, Tellings};
use crate::agent::testkit::{guid, object};
use crate::api::object::Object;
use crate::kubernetes::SecretData;

mod following;

/// The identity `shop/app` with this credential in the Secret `creds`.
pub(super) fn identity(
    credential: &serde_json::Value,
) -> (Arc<IdentityFacts>, Arc<CredentialFacts>) {
    let object = object(
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
        "metadata": {"namespace": "shop", "name": "app", "uid": "uid-app"},
        "spec": {"clientID": guid(7), "tenantID": guid(8), "tokenSources": [{"servicePrincipal": credential}]}}),
    );
    let Object::Identity(facts) = object else {
        panic!("an identity");
    };
    let SourceFacts::ServicePrincipal(credential) = facts.sources[0].clone() else {
        panic!("a service principal");
    };
    (Arc::new(facts), credential)
}

pub(super) fn by_secret() -> (Arc<IdentityFacts>, Arc<CredentialFacts>) {
    identity(&json!({"secretRef": {"name": "creds"}}))
}

fn by_certificate() -> (Arc<IdentityFacts>, Arc<CredentialFacts>) {
    identity(&json!({"certificateRef": {"name": "creds"}}))
}

fn creds() -> ObjectName {
    ObjectName::new("shop", "creds")
}

/// A store at a given time, and what it tells.
struct Scene {
    credentials: Credentials,
    registry: Registry,
    tellings: Tellings,
    now: Arc<RwLock<Duration>>,
}

fn scene(now: Duration) -> Scene {
    let registry = Registry::new();
    let events = Events::register(&registry).unwrap();
    let (tellings, _) = events.start();
    let now = Arc::new(RwLock::new(now));
    let wall = now.clone();
    let credentials = Credentials::register(&registry, events, move || *wall.read()).unwrap();
    Scene {
        credentials,
        registry,
        tellings,
        now,
    }
}

impl Scene {
    fn need(&self, needed: &[&(Arc<IdentityFacts>, Arc<CredentialFacts>)]) {
        self.credentials.need(
            needed
                .iter()
                .map(|(identity, credential)| (identity, credential)),
        );
    }

    fn ring(&self, of: &(Arc<IdentityFacts>, Arc<CredentialFacts>)) -> Result<Arc<Ring>, Unusable> {
        self.credentials.ring(&of.0, &of.1)
    }

    fn there(&self, data: &SecretData) {
        self.credentials.take(&creds(), &Seen::There(data));
    }

    fn told(&mut self) -> Vec<(Reason, String)> {
        let told = std::iter::from_fn(|| self.tellings.try_recv().ok());
        told.map(|telling| {
            assert_eq!(telling.regarding, Regarding::Identity);
            assert_eq!(
                (telling.name.to_string(), &*telling.uid),
                ("shop/app".to_owned(), "uid-app")
            );
            (telling.reason, telling.note)
        })
        .collect()
    }

    fn metrics(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }
}

fn client_secret(text: &str) -> SecretData {
    data([("clientSecret", text.as_bytes())])
}

#[tokio::test]
async fn a_ring_is_there_once_its_secret_was_read_and_who_asks_early_waits() {
    let (scene, app) = (scene(year(2026)), by_secret());
    assert_eq!(scene.ring(&app).unwrap_err().problem, Problem::NotRead);
    let (credentials, asked) = (scene.credentials.clone(), app.clone());
    let waiting = tokio::spawn(async move { credentials.ring_when_read(&asked.0, &asked.1).await });
    scene.need(&[&app]);
    assert_eq!(scene.ring(&app).unwrap_err().problem, Problem::NotRead);
    assert!(!waiting.is_finished());
    scene.there(&client_secret("hunter2"));
    let ring = waiting.await.unwrap().unwrap();
    let candidates = ring.candidates(year(2026));
    assert!(candidates.len() == 1 && candidates[0].is_same(&secret("hunter2")));
    assert!(
        scene
            .metrics()
            .contains(r#"lanyard_credential_usable{identity="shop/app"} 1"#)
    );
}

#[tokio::test]
async fn a_broken_secret_keeps_what_worked_and_a_deleted_one_ends_it() {
    let (mut scene, app) = (scene(year(2026)), by_secret());
    scene.need(&[&app]);
    scene.there(&client_secret("hunter2"));
    let ring = scene.ring(&app).unwrap();
    scene.there(&data([("other", &b"x"[..])]));
    scene.credentials.take(&creds(), &Seen::Forbidden);
    scene.credentials.take(&creds(), &Seen::Away("no answer"));
    assert_eq!(scene.ring(&app).unwrap().candidates(year(2026)).len(), 1);
    let told = scene.told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|(reason, note)| {
        *reason == Reason::CredentialUnusable && note.contains("of before stays in use")
    }));
    assert!(
        told[0].1.contains("`clientSecret` (it has other)"),
        "{told:?}"
    );
    assert!(told[1].1.contains("agent.secrets"), "{told:?}");

    scene.credentials.take(&creds(), &Seen::Missing);
    let unusable = scene.ring(&app).unwrap_err();
    assert_eq!(unusable.problem, Problem::Missing);
    assert!(!unusable.may_retry());
    assert!(
        ring.candidates(year(2026)).is_empty(),
        "revoked for whoever holds the ring, too"
    );
    assert_eq!(scene.told().len(), 1);
    assert!(
        scene
            .metrics()
            .contains(r#"lanyard_credential_usable{identity="shop/app"} 0"#)
    );
}

#[tokio::test]
async fn while_the_api_server_was_never_reached_it_is_worth_another_try() {
    let (mut scene, app) = (scene(year(2026)), by_secret());
    scene.need(&[&app]);
    scene
        .credentials
        .take(&creds(), &Seen::Away("no answer within 15 s"));
    let unusable = scene.ring(&app).unwrap_err();
    assert!(unusable.may_retry() && unusable.to_string().contains("no answer within 15 s"));
    assert!(scene.told().is_empty(), "it passes by itself");
    scene.there(&client_secret("hunter2"));
    assert!(scene.ring(&app).is_ok());
}

#[tokio::test]
async fn a_refusal_is_told_and_counted_with_its_code_and_nothing_else() {
    let (mut scene, app) = (scene(year(2026)), by_secret());
    scene.need(&[&app]);
    scene.there(&client_secret("hunter2"));
    let ring = scene.ring(&app).unwrap();
    for _ in 0..3 {
        let one = ring.candidates(year(2026)).remove(0);
        ring.refused(&one, 7_000_215, year(2026));
    }
    let told = scene.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, Reason::CredentialRefused);
    assert!(
        told[0]
            .1
            .contains("the client secret of Secret shop/creds (AADSTS7000215)"),
        "{told:?}"
    );
    let metrics = scene.metrics();
    assert!(
        metrics
            .contains(r#"lanyard_credential_refused_total{code="7000215",identity="shop/app"} 3"#)
    );
    assert!(metrics.contains(r#"lanyard_credential_usable{identity="shop/app"} 0"#));
    assert!(!metrics.contains("hunter2") && !format!("{told:?}{ring:?}").contains("hunter2"));
    ring.proved(&secret("hunter2"));
    assert!(
        scene
            .metrics()
            .contains(r#"lanyard_credential_usable{identity="shop/app"} 1"#)
    );
}

#[tokio::test]
async fn a_new_credential_calls_the_hook_once() {
    let (scene, app) = (scene(year(2026)), by_secret());
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    scene
        .credentials
        .on_new(move |identity| called.send(identity.name.clone()).unwrap());
    scene.need(&[&app]);
    for (text, new) in [
        ("one", 1),
        ("one", 0),
        ("two", 1),
        ("", 0),
        ("two", 0),
        ("one", 1),
    ] {
        scene.there(&client_secret(text));
        let called = std::iter::from_fn(|| calls.try_recv().ok()).count();
        assert_eq!(called, new, "{text}");
    }
}

#[tokio::test]
async fn an_end_is_announced_in_time_and_an_expired_certificate_is_unusable() {
    let (mut scene, app) = (scene(year(2026)), by_certificate());
    scene.need(&[&app]);
    let (certificate, key) = (certificate_pem(&KEYS[0], 2026), KEYS[0].serialize_pem());
    scene.there(&data([
        ("tls.crt", certificate.as_bytes()),
        ("tls.key", key.as_bytes()),
    ]));
    assert!(scene.told().is_empty());
    let end = year(2028);
    let series = format!(
        r#"lanyard_credential_expiry_timestamp_seconds{{identity="shop/app"}} {}"#,
        end.as_secs()
    );
    assert!(scene.metrics().contains(&series), "{}", scene.metrics());
    let ring = scene.ring(&app).unwrap();
    for days in (0..40).rev() {
        ring.remind(end.saturating_sub(Duration::from_hours(24 * days)), false);
    }
    let told = scene.told();
    let ends: Vec<&str> = told
        .iter()
        .map(|(_, note)| {
            note.split("2028-01-01, ")
                .nth(1)
                .unwrap()
                .split('.')
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(ends, ["in 30 days", "in 7 days", "in 1 day"]);
    assert!(
        told.iter()
            .all(|(reason, _)| *reason == Reason::CredentialExpiring)
    );

    let after = end + Duration::from_mins(6);
    *scene.now.write() = after;
    assert_eq!(scene.ring(&app).unwrap_err().problem, Problem::Expired(end));
    ring.remind(after, true);
    let told = scene.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, Reason::CredentialUnusable);
    assert!(told[0].1.contains("expired on 2028-01-01"), "{told:?}");
}

#[tokio::test]
async fn rings_and_series_go_with_their_identity_and_another_tenant_is_another_ring() {
    let (scene, app) = (scene(year(2026)), by_secret());
    scene.need(&[&app]);
    scene.there(&client_secret("hunter2"));
    let ring = scene.ring(&app).unwrap();
    let wanted = scene.credentials.wanted().borrow().get(&creds());
    let mut facts = (*app.0).clone();
    facts.generation += 1;
    let same = (Arc::new(facts.clone()), app.1.clone());
    scene.need(&[&same]);
    assert!(
        Arc::ptr_eq(&ring, &scene.ring(&same).unwrap()),
        "its history counts on"
    );
    facts.tenant_id = Some(guid(9).parse().unwrap());
    let moved = (Arc::new(facts), app.1.clone());
    assert_eq!(scene.ring(&moved).unwrap_err().problem, Problem::NotRead);
    scene.need(&[&moved]);
    assert_eq!(scene.ring(&moved).unwrap_err().problem, Problem::NotRead);
    assert_ne!(
        scene.credentials.wanted().borrow().get(&creds()),
        wanted,
        "to be read for the new ring"
    );
    scene.need(&[]);
    ring.refused(&secret("hunter2"), 7_000_215, year(2026));
    ring.proved(&secret("hunter2"));
    assert!(ring.candidates(year(2026)).is_empty());
    assert!(!scene.metrics().contains("shop"), "{}", scene.metrics());
    assert_eq!(scene.credentials.wanted().borrow().get(&creds()), None);
}
