//! What owners put into Secrets, and shouldn't have: the program gets a final JSON error at once, the
//! owner an Event on the identity that says what to mend, nothing of the Secret shows anywhere, and what
//! is mended works without a restart.

use super::cast::{self, CERTIFICATE, SECRET, Wanted};
use super::certificates;
use super::stage::{APP_POD, Stage, USABLE, stage_of};
use crate::world::Identity;

/// A Secret's keys and values.
type Data<'a> = &'a [(&'a str, &'a [u8])];

/// The whole story: refused with a word of `said` in the Event, told in the metric, mended.
async fn refused(stage: &Stage, said: &[&str], canaries: &[&str]) {
    let reply = stage
        .until("a refusal", APP_POD, |reply| reply.status != 503)
        .await;
    reply.is_error_at_once(400);
    let event = stage.event("CredentialUnusable").await;
    assert_eq!(event.about, "AzureIdentity/shop/app", "{event:?}");
    for word in said {
        assert!(event.note.contains(word), "no `{word}` in {event:?}");
    }
    stage
        .eventually("the metric", || stage.metric(USABLE) == Some(0.0))
        .await;
    let shown = [reply.body.clone(), stage.api.written(), stage.scrape()];
    for (shown, canary) in shown
        .iter()
        .flat_map(|shown| canaries.iter().map(move |one| (shown, one)))
    {
        assert!(!shown.contains(canary), "{canary} in {shown}");
    }
    assert!(stage.exchanges().is_empty(), "Entra was asked");
}

async fn mended(stage: &Stage, identity: Identity) {
    let reply = stage
        .until("a token", APP_POD, |reply| reply.status == 200)
        .await;
    assert_eq!(reply.claims()["appid"], identity.client_id);
    stage
        .eventually("the metric", || stage.metric(USABLE) == Some(1.0))
        .await;
}

async fn bad(
    source: &str,
    secret: &str,
    data: Data<'_>,
    said: &[&str],
    canaries: &[&str],
) -> Stage {
    let stage = stage_of(&[source]).await;
    stage.api.secret("shop", secret, data);
    refused(&stage, said, canaries).await;
    stage
}

async fn with_certificate(stage: &Stage, pair: &certificates::Pair) {
    stage
        .simulator
        .add_certificate("app", &pair.certificate)
        .unwrap();
    stage.api.secret("shop", "app-tls", &pair.data());
    mended(stage, cast::APP).await;
}

#[tokio::test]
async fn a_secret_that_is_missing() {
    let stage = stage_of(&[cast::USUAL]).await;
    refused(&stage, &["shop/app", "does not exist"], &[]).await;
    stage.client_secret(SECRET);
    mended(&stage, cast::APP).await;
}

#[tokio::test]
async fn a_secret_that_goes_after_it_was_there() {
    let stage = super::stage::stage_with_secret().await;
    mended(&stage, cast::APP).await;
    stage.mark();
    stage.api.delete_secret("shop", "app");
    stage.event("CredentialUnusable").await;
    // The token that is held stays good; a new one is not to be had.
    assert_eq!(stage.token(APP_POD, "").await.status, 200);
    stage.token(APP_POD, "/other").await.is_error(400);
    assert!(stage.exchanges().is_empty());
    stage.client_secret(SECRET);
    mended(&stage, cast::APP).await;
}

#[tokio::test]
async fn a_secret_that_agents_may_not_read() {
    use super::apiserver::{Call, Mood};
    let stage = super::stage::stage().await;
    stage.api.mood(Call::Secrets, Mood::Refuses(403));
    stage.workload(&Wanted::default());
    refused(&stage, &["shop/app", "agent.secrets"], &[]).await;
}

#[tokio::test]
async fn a_secret_without_the_key() {
    let data: Data<'_> = &[("client-secret", b"canary-under-another-key")];
    let said = ["clientSecret", "client-secret"];
    let stage = bad(cast::USUAL, "app", data, &said, &["canary-under"]).await;
    stage.client_secret(SECRET);
    mended(&stage, cast::APP).await;
}

#[tokio::test]
async fn a_secret_whose_key_is_empty() {
    let stage = bad(
        cast::USUAL,
        "app",
        &[("clientSecret", b"")],
        &["clientSecret"],
        &[],
    )
    .await;
    stage.client_secret(SECRET);
    mended(&stage, cast::APP).await;
}

#[tokio::test]
async fn a_certificate_and_a_key_that_do_not_match() {
    let (one, other) = (certificates::rsa("one"), certificates::rsa("other"));
    let data: Data<'_> = &[
        ("tls.crt", one.certificate.as_bytes()),
        ("tls.key", other.key.as_bytes()),
    ];
    let stage = bad(
        CERTIFICATE,
        "app-tls",
        data,
        &["shop/app-tls"],
        &[other.canary()],
    )
    .await;
    with_certificate(&stage, &one).await;
}

#[tokio::test]
async fn an_encrypted_key() {
    let pair = certificates::rsa("app");
    let locked = certificates::encrypted(&pair.key, "canary-password");
    let data: Data<'_> = &[
        ("tls.crt", pair.certificate.as_bytes()),
        ("tls.key", locked.as_bytes()),
    ];
    let canary = locked.lines().nth(5).unwrap();
    let stage = bad(
        CERTIFICATE,
        "app-tls",
        data,
        &["tls.key", "encrypted"],
        &[canary],
    )
    .await;
    with_certificate(&stage, &pair).await;
}

#[tokio::test]
async fn a_certificate_that_has_expired() {
    let old = certificates::expired("app");
    let stage = bad(
        CERTIFICATE,
        "app-tls",
        &old.data(),
        &["expired", "2020"],
        &[old.canary()],
    )
    .await;
    with_certificate(&stage, &certificates::rsa("app")).await;
}

#[tokio::test]
async fn a_key_on_an_elliptic_curve() {
    let pair = certificates::elliptic("app");
    let canary = pair.key.lines().nth(1).unwrap();
    let stage = bad(CERTIFICATE, "app-tls", &pair.data(), &["RSA"], &[canary]).await;
    with_certificate(&stage, &certificates::rsa("app")).await;
}

#[tokio::test]
async fn a_key_that_is_none() {
    let pair = certificates::rsa("app");
    let data: Data<'_> = &[
        ("tls.crt", pair.certificate.as_bytes()),
        ("tls.key", b"canary: not PEM at all"),
    ];
    let stage = bad(CERTIFICATE, "app-tls", data, &["tls.key"], &["canary: not"]).await;
    with_certificate(&stage, &pair).await;
}

const STORE: &str = "servicePrincipal: {certificateRef: {name: app-p12, pkcs12Key: keystore.p12, passwordKey: password}}";

#[tokio::test]
async fn a_store_with_a_wrong_password() {
    let pair = certificates::rsa("app");
    let store = certificates::pkcs12(&pair, "right-password");
    let data: Data<'_> = &[("keystore.p12", &store), ("password", b"canary-wrong")];
    let stage = bad(
        STORE,
        "app-p12",
        data,
        &["password"],
        &["canary-wrong", "right-password"],
    )
    .await;
    stage
        .simulator
        .add_certificate("app", &pair.certificate)
        .unwrap();
    let data: Data<'_> = &[("keystore.p12", &store), ("password", b"right-password")];
    stage.api.secret("shop", "app-p12", data);
    mended(&stage, cast::APP).await;
}

#[tokio::test]
async fn a_store_that_is_broken() {
    let data: Data<'_> = &[
        ("keystore.p12", b"canary: no store"),
        ("password", b"canary-pw"),
    ];
    bad(
        STORE,
        "app-p12",
        data,
        &["keystore.p12"],
        &["canary: no", "canary-pw"],
    )
    .await;
}
