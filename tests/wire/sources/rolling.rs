//! Credentials that roll: a changed Secret counts at once for new tokens, valid tokens are served
//! meanwhile, and what was there before is used until what replaced it works.

use std::time::{Duration, Instant};

use lanyard::sim::faults::{Effect, Target};
use lanyard::sim::world::Secret;
use lanyard::sim::{Fault, secret_id};

use super::cast::{CERTIFICATE, SECRET, Wanted};
use super::certificates::{self, Pair};
use super::stage::{APP_POD, Stage, stage_of, stage_with_secret};

const NEW: &str = "canary~client.secret-2_second";
/// What the issue promises is a second; a loaded machine gets some more.
const SOON: Duration = Duration::from_secs(3);

fn accepted(text: &str) -> Secret {
    Secret {
        value: text.to_owned(),
        expires: None,
    }
}

fn by_secret(text: &str) -> String {
    format!("secret:{}", secret_id(text))
}

/// The credentials that were used since the mark, in order.
fn used(stage: &Stage) -> Vec<String> {
    let all = stage.exchanges().into_iter();
    all.map(|one| one.credential.unwrap_or_default()).collect()
}

/// A token that was never asked for before, as often as it takes until `credential` gave one.
async fn until_used(stage: &Stage, credential: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let number = begun.elapsed().as_millis();
        stage
            .token(APP_POD, &format!("/new-{number}"))
            .await
            .claims();
        if used(stage)
            .iter()
            .any(|one| one.eq_ignore_ascii_case(credential))
        {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < SOON, "{:?}", used(stage));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_new_secret_is_used_at_once_and_what_is_held_is_served() {
    let stage = stage_with_secret().await;
    let held = stage.token_at_last(APP_POD).await;
    stage.simulator.add_secret("app", accepted(NEW)).unwrap();
    stage.mark();
    stage.client_secret(NEW);
    let took = until_used(&stage, &by_secret(NEW)).await;
    assert!(took < SOON);
    // The held token is good still; it is renewed by the new secret beside being served.
    assert_eq!(stage.token(APP_POD, "").await.status, 200);
    stage
        .served_until("the renewal", || {
            let seen = stage.since();
            let vault = |entry: &&lanyard::sim::Entry| {
                entry.resource.as_deref() == Some(crate::testkit::VAULT) && entry.exchange.is_some()
            };
            seen.iter().any(|entry| vault(&entry))
        })
        .await;
    let renewed = stage
        .until("the renewed token", APP_POD, |reply| {
            reply.status == 200 && reply.text("access_token") != held.text("access_token")
        })
        .await;
    renewed.claims();
    assert_eq!(stage.api.events(), []);
}

/// The old one is revoked, then the new one is written: nobody notices.
#[tokio::test]
async fn a_revoked_secret_is_replaced_without_a_failed_request() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.simulator.add_secret("app", accepted(NEW)).unwrap();
    stage.client_secret(NEW);
    until_used(&stage, &by_secret(NEW)).await;
    stage
        .simulator
        .revoke_secret("app", &secret_id(SECRET))
        .unwrap();
    stage.mark();
    for n in 0..5 {
        stage.token(APP_POD, &format!("/after-{n}")).await.claims();
    }
    assert_eq!(used(&stage), vec![by_secret(NEW); 5]);
}

/// Revoked before it was replaced: held tokens are served, new ones are refused with words; the new
/// secret mends that at once.
#[tokio::test]
async fn a_secret_that_was_revoked_first_is_told_and_mended() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage
        .simulator
        .revoke_secret("app", &secret_id(SECRET))
        .unwrap();
    stage.token(APP_POD, "/other").await.is_error(400);
    assert!(
        stage
            .event("CredentialRefused")
            .await
            .note
            .contains("7000215")
    );
    assert_eq!(stage.token(APP_POD, "").await.status, 200);
    stage.simulator.add_secret("app", accepted(NEW)).unwrap();
    stage.client_secret(NEW);
    let begun = Instant::now();
    while stage.token(APP_POD, "/other").await.status != 200 {
        assert!(begun.elapsed() < SOON, "refused still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Entra takes minutes to know a new secret everywhere: until then the old one serves, and no request
/// fails.
#[tokio::test]
async fn a_secret_that_entra_does_not_know_yet_harms_nobody() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.mark();
    stage.client_secret(NEW);
    stage
        .served_until("the new secret to be tried", || {
            used(&stage).contains(&by_secret(NEW))
        })
        .await;
    for n in 0..5 {
        stage.token(APP_POD, &format!("/early-{n}")).await.claims();
    }
    let tried = used(&stage);
    assert!(tried.contains(&by_secret(SECRET)), "{tried:?}");
    let refused = tried.iter().filter(|one| **one == by_secret(NEW)).count();
    assert!(
        (1..=2).contains(&refused),
        "not with each request: {tried:?}"
    );
    // Now it does.
    stage.simulator.add_secret("app", accepted(NEW)).unwrap();
    stage.let_pass(120);
    stage.mark();
    until_used(&stage, &by_secret(NEW)).await;
    stage
        .simulator
        .revoke_secret("app", &secret_id(SECRET))
        .unwrap();
    stage.token(APP_POD, "/late").await.claims();
}

/// An expired secret among the application's: AADSTS7000222 in its own words.
#[tokio::test]
async fn an_expired_secret_is_told_as_such() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    let expired = Secret {
        value: NEW.to_owned(),
        expires: Some(jiff::Timestamp::UNIX_EPOCH),
    };
    stage.simulator.add_secret("app", expired).unwrap();
    stage.client_secret(NEW);
    let event = stage.event_while_served("7000222").await;
    assert_eq!(event.about, "AzureIdentity/shop/app");
    stage.token(APP_POD, "/other").await.claims();
}

fn register(stage: &Stage, pair: &Pair) -> String {
    let thumbprint = stage.simulator.add_certificate("app", &pair.certificate);
    format!("certificate:{}", thumbprint.unwrap())
}

#[tokio::test]
async fn a_new_certificate_is_used_at_once_and_the_old_until_it_is_registered() {
    let stage = stage_of(&[CERTIFICATE]).await;
    let (old, new) = (certificates::rsa("app"), certificates::rsa("app"));
    let by_old = register(&stage, &old);
    stage.api.secret("shop", "app-tls", &old.data());
    stage.token_at_last(APP_POD).await.claims();
    assert_eq!(used(&stage), [by_old.as_str()]);
    // Written before it is registered, as cert-manager does.
    stage.mark();
    stage.api.secret("shop", "app-tls", &new.data());
    for n in 0..4 {
        stage.token(APP_POD, &format!("/early-{n}")).await.claims();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let by_new = register(&stage, &new);
    stage.let_pass(120);
    stage.mark();
    until_used(&stage, &by_new).await;
    let thumbprint = by_old.strip_prefix("certificate:").unwrap();
    stage
        .simulator
        .revoke_certificate("app", thumbprint)
        .unwrap();
    stage.token(APP_POD, "/late").await.claims();
}

/// Both in one Secret: the newest that works.
#[tokio::test]
async fn several_certificates_in_one_secret() {
    let stage = stage_of(&[CERTIFICATE]).await;
    let (old, new) = (certificates::rsa("app"), certificates::rsa("app"));
    let by_old = register(&stage, &old);
    let (certificates, keys) = (
        format!("{}{}", new.certificate, old.certificate),
        format!("{}{}", new.key, old.key),
    );
    let data = [
        ("tls.crt", certificates.as_bytes()),
        ("tls.key", keys.as_bytes()),
    ];
    stage.api.secret("shop", "app-tls", &data);
    stage.token_at_last(APP_POD).await.claims();
    assert!(used(&stage).contains(&by_old), "{:?}", used(&stage));
}

/// A Secret that is broken by its change: what worked before goes on, and the owner hears of it.
#[tokio::test]
async fn a_secret_that_is_broken_by_a_change_keeps_what_worked() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.api.secret("shop", "app", &[("clientSecrets", b"x")]);
    stage.event("CredentialUnusable").await;
    stage.token(APP_POD, "").await.claims();
    stage.client_secret(SECRET);
    stage.token_at_last(APP_POD).await.claims();
}

/// Entra fails just when the secret changed: the held token stays, and no event blames the owner.
#[tokio::test]
async fn a_renewal_that_fails_keeps_the_held_token() {
    let stage = stage_with_secret().await;
    let held = stage.token_at_last(APP_POD).await.text("access_token");
    stage.simulator.add_fault(Fault::new(
        Target::Entra,
        Effect::Status {
            code: 503,
            retry_after: None,
            body: None,
        },
    ));
    stage.simulator.add_secret("app", accepted(NEW)).unwrap();
    stage.mark();
    stage.client_secret(NEW);
    stage
        .served_until("a failed renewal", || {
            let seen = stage.since();
            seen.iter().any(|entry| entry.status == Some(503))
        })
        .await;
    for _ in 0..5 {
        assert_eq!(stage.token(APP_POD, "").await.text("access_token"), held);
    }
    assert_eq!(stage.api.events(), []);
}

/// An expiry that comes near is announced, on the identity and as a metric.
#[tokio::test]
async fn an_end_that_comes_near_is_announced() {
    let stage = stage_of(&[CERTIFICATE]).await;
    let pair = certificates::rsa("app");
    register(&stage, &pair);
    // It ends with the year 2099: five days before that.
    let end = 4_102_444_800_u64;
    let now = lanyard::serve::clock::since_epoch().as_secs();
    stage.let_pass(end - now - 5 * 86_400);
    stage.api.secret("shop", "app-tls", &pair.data());
    let event = stage.event("CredentialExpiring").await;
    assert_eq!(event.about, "AzureIdentity/shop/app");
    assert!(event.note.contains("shop/app-tls"), "{event:?}");
    let series = "lanyard_credential_expiry_timestamp_seconds{identity=\"shop/app\"}";
    #[allow(clippy::cast_precision_loss)]
    let end = end as f64;
    assert_eq!(stage.metric(series), Some(end));
    // The series goes with the identity.
    stage.delete(&Wanted::default().identity());
    stage
        .eventually("no series", || stage.metric(series).is_none())
        .await;
}
