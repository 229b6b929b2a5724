//! The source `servicePrincipal`: secrets and certificates, and how they roll.

use std::time::{Duration, Instant};

use lanyard::agent::credentials::Seen;
use lanyard::agent::obtain::CacheState;
use lanyard::model::fault::FaultKind;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};

use crate::rig::{APP, Rig, SECRET, VAULT, by_certificate, by_secret, grant_by, rig, rig_of};

const NEW: &str = "s3cr3t-value-2";
const PATIENCE: Duration = Duration::from_secs(30);

struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "app");
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn values(&self) -> [(&'static str, &str); 2] {
        [("tls.crt", &self.certificate), ("tls.key", &self.key)]
    }
}

/// The credentials that Entra accepted or refused, in the order of the requests.
fn credentials(rig: &Rig) -> Vec<(String, Option<u32>)> {
    let entries = rig.exchanges().into_iter();
    let told = entries.map(|entry| {
        let exchange = entry.exchange.unwrap();
        (exchange.credential.unwrap_or_default(), entry.aadsts)
    });
    told.collect()
}

/// Asks until a token comes by a fetch of its own kind; bounded.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_secret_gets_a_token_that_is_cached() {
    let (rig, grant) = (rig().await, grant_by(APP, vec![by_secret()]));
    rig.need(&grant);
    rig.secret(&grant, &[("clientSecret", SECRET)]);
    let first = rig.ask_for(&grant, VAULT).await.unwrap();
    assert_eq!(
        (first.cache, first.source),
        (CacheState::Miss, "service_principal")
    );
    let again = rig.ask_for(&grant, VAULT).await.unwrap();
    assert_eq!(again.cache, CacheState::Hit);
    assert_eq!(again.token.expose(), first.token.expose());
    assert_eq!(rig.exchanges().len(), 1);
    assert_eq!(rig.azure.stats().imds_requests, 0);
    let series = "lanyard_upstream_requests_total{outcome=\"ok\",source=\"service_principal\"}";
    assert_eq!(rig.metric(series), "1");
}

#[tokio::test]
async fn a_secret_that_is_being_read_is_waited_for() {
    let (rig, grant) = (rig().await, grant_by(APP, vec![by_secret()]));
    let (asking, telling) = tokio::join!(rig.ask_for(&grant, VAULT), async {
        tokio::task::yield_now().await;
        rig.need(&grant);
        tokio::task::yield_now().await;
        rig.secret(&grant, &[("clientSecret", SECRET)]);
    });
    let () = telling;
    assert!(asking.is_ok());
}

#[tokio::test]
async fn what_is_wrong_with_a_secret_is_final_and_told_in_the_log_only() {
    let (rig, grant) = (rig().await, grant_by(APP, vec![by_secret()]));
    rig.need(&grant);
    rig.secret(&grant, &[("password", "canary")]);
    let fault = rig.ask_for(&grant, VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::CredentialUnusable);
    assert_eq!(fault.retry_after, None);
    assert!(
        fault
            .detail
            .contains("no key `clientSecret` (it has password)")
    );
    assert!(!fault.public.contains("password") && !fault.to_string().contains("canary"));
    rig.seen(&grant, &Seen::Missing);
    rig.broker.renew(|_| true);
    let fault = rig.ask_for(&grant, VAULT).await.unwrap_err();
    assert!(fault.detail.contains("does not exist"), "{fault}");
    // While the API server is away and it was never read: that passes.
    let other = grant_by(APP, vec![by_certificate()]);
    rig.need(&other);
    rig.seen(&other, &Seen::Away("no answer"));
    rig.broker.renew(|_| true);
    let fault = rig.ask_for(&other, VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamUnavailable);
    assert!(rig.exchanges().is_empty());
}

#[tokio::test]
async fn an_authority_that_takes_rs256_only_is_remembered() {
    let pair = Pair::new();
    let app = format!("certificates: [{:?}]", pair.certificate);
    let rig = rig_of(&app, "entra: {assertionAlgorithms: [RS256]}\n").await;
    let grant = grant_by(APP, vec![by_certificate()]);
    rig.need(&grant);
    rig.secret(&grant, &pair.values());
    assert!(rig.ask_for(&grant, VAULT).await.is_ok());
    assert!(rig.ask_for(&grant, "https://b.example").await.is_ok());
    let algorithms = rig.exchanges().into_iter();
    let algorithms: Vec<_> = algorithms
        .map(|entry| entry.exchange.unwrap().algorithm.unwrap())
        .collect();
    assert_eq!(algorithms, ["PS256", "RS256", "RS256"]);
}

#[tokio::test]
async fn a_new_secret_is_used_at_once_and_the_token_at_hand_meanwhile() {
    let (rig, grant) = (rig().await, grant_by(APP, vec![by_secret()]));
    rig.need(&grant);
    rig.secret(&grant, &[("clientSecret", SECRET)]);
    let old = rig.ask_for(&grant, VAULT).await.unwrap();
    rig.azure
        .add_secret("app", serde_json::from_value(NEW.into()).unwrap())
        .unwrap();
    rig.secret(&grant, &[("clientSecret", NEW)]);
    // Nobody waits for it.
    let meanwhile = rig.ask_for(&grant, VAULT).await.unwrap();
    assert_eq!(meanwhile.token.expose(), old.token.expose());
    assert_eq!(meanwhile.cache, CacheState::Refreshing);
    until("the new token is served", async || {
        let now = rig.ask_for(&grant, VAULT).await.unwrap();
        now.token.expose() != old.token.expose()
    })
    .await;
    let used = credentials(&rig);
    assert_eq!(used.len(), 2, "one renewal: {used:?}");
    assert_ne!(used[0].0, used[1].0);
}

#[tokio::test]
async fn a_secret_that_entra_does_not_know_yet_gives_way_to_the_one_before() {
    let (rig, grant) = (rig().await, grant_by(APP, vec![by_secret()]));
    rig.need(&grant);
    rig.secret(&grant, &[("clientSecret", SECRET)]);
    assert!(rig.ask_for(&grant, VAULT).await.is_ok());
    rig.secret(&grant, &[("clientSecret", NEW)]);
    let other = rig.ask_for(&grant, "https://b.example").await;
    assert!(other.is_ok(), "by the old one: {other:?}");
    let used = credentials(&rig);
    assert_eq!(used[1].1, Some(7_000_215), "{used:?}");
    assert_eq!((&used[2].0, used[2].1), (&used[0].0, None), "{used:?}");
}

#[tokio::test]
async fn when_all_are_refused_entras_words_are_the_answer() {
    let (rig, grant) = (rig().await, grant_by(APP, vec![by_secret()]));
    rig.need(&grant);
    rig.secret(&grant, &[("clientSecret", "canary-of-a-secret")]);
    let fault = rig.ask_for(&grant, VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UpstreamRefused);
    assert!(fault.public.contains("AADSTS7000215"), "{fault}");
    assert!(!fault.to_string().contains("canary"), "{fault}");
    assert_eq!(rig.exchanges().len(), 1);
    // Kept for a while, and forgotten with the Secret's next change.
    assert!(rig.ask_for(&grant, VAULT).await.is_err());
    assert_eq!(rig.exchanges().len(), 1);
    rig.secret(&grant, &[("clientSecret", SECRET)]);
    assert!(rig.ask_for(&grant, VAULT).await.is_ok());
}

#[tokio::test]
async fn a_certificate_s_successor_is_used_after_the_old_one_is_revoked() {
    let (old, new) = (Pair::new(), Pair::new());
    let app = format!("certificates: [{:?}]", old.certificate);
    let rig = rig_of(&app, "").await;
    let grant = grant_by(APP, vec![by_certificate()]);
    rig.need(&grant);
    rig.secret(&grant, &old.values());
    assert!(rig.ask_for(&grant, VAULT).await.is_ok());
    let thumbprint = credentials(&rig)[0].0.replace("certificate:", "");
    rig.azure.add_certificate("app", &new.certificate).unwrap();
    rig.azure.revoke_certificate("app", &thumbprint).unwrap();
    let refused = rig.ask_for(&grant, "https://b.example").await.unwrap_err();
    assert!(refused.public.contains("AADSTS700027"), "{refused}");
    rig.secret(&grant, &new.values());
    assert!(rig.ask_for(&grant, "https://b.example").await.is_ok());
    let used = credentials(&rig);
    assert_eq!(used.len(), 3, "{used:?}");
}

#[tokio::test]
async fn without_a_tenant_the_agents_counts() {
    let (rig, mut grant) = (rig().await, grant_by(APP, vec![by_secret()]));
    let mut identity = (*grant.identity).clone();
    identity.tenant_id = None;
    grant.identity = identity.into();
    rig.need(&grant);
    rig.secret(&grant, &[("clientSecret", SECRET)]);
    assert!(rig.ask_for(&grant, VAULT).await.is_ok());
}
