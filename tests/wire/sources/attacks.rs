//! Nobody gets a token by another's credential: not by naming his client id, his Secret or his identity,
//! not by taking a name over, and not after the grant went.

use std::time::Duration;

use lanyard::sim::Fault;
use lanyard::sim::faults::Target;

use super::apiserver::{Call, Mood};
use super::cast::{self, FEDERATED, SECRET, USUAL, Wanted};
use super::stage::{
    APP_POD, BANK_POD, Stage, TWIN_POD, claims, stage, stage_of, stage_with_secret,
};

/// The bank's own object for the shop's application.
const BANKS: Wanted<'_> = Wanted {
    namespace: "bank",
    name: "app",
    uid: "uid-of-the-banks",
    generation: 1,
    client: cast::APP,
    sources: &[USUAL],
    more: "",
};

fn banks_secret(stage: &Stage, secret: &str) {
    stage
        .api
        .secret("bank", "app", &[("clientSecret", secret.as_bytes())]);
}

/// The same client id, policy admits it, the token is in the cache: without a credential of its own
/// that is worth nothing.
#[tokio::test]
async fn the_same_client_id_with_another_secret_gets_nothing_of_the_cache() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.workload(&BANKS);
    stage.token_at_last(BANK_POD).await.is_error(400);
    banks_secret(&stage, "guessed");
    stage.event("CredentialUnusable").await;
    stage.mark();
    let refused = stage.until("Entra's refusal", BANK_POD, |reply| {
        reply.body.contains("AADSTS7000215")
    });
    refused.await.is_error(400);
    assert!(
        !stage.exchanges().is_empty(),
        "asked with what the bank has"
    );
    // The victim is served meanwhile.
    stage.token(APP_POD, "").await.claims();
}

/// An `AzureIdentity` has no way to name a Secret of another namespace.
#[tokio::test]
async fn a_secret_of_another_namespace_cannot_be_named() {
    let stage = stage_with_secret().await;
    stage.workload(&BANKS);
    stage.token_at_last(BANK_POD).await.is_error(400);
    let asked = |part: &str| stage.api.asked(part);
    assert_eq!(
        asked("/secrets"),
        asked("/shop/secrets") + asked("/bank/secrets")
    );
    assert!(asked("/bank/secrets") > 0);
    for name in [
        "shop/app",
        "../../shop/secrets/app",
        "app?namespace=shop",
        "%2e%2e",
    ] {
        let source = format!("servicePrincipal: {{secretRef: {{name: '{name}'}}}}");
        let wanted = Wanted {
            sources: &[&source],
            ..BANKS
        };
        let value = serde_saphyr::from_str(&wanted.identity()).unwrap();
        let read = lanyard::api::object::read(value, &wanted.identity());
        assert!(read.is_err(), "{name}: {read:?}");
    }
}

/// The name again, with another UID and another Secret: neither the token nor the credential of the
/// one that was deleted.
#[tokio::test]
async fn a_recreated_identity_inherits_nothing() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.delete(&Wanted::default().identity());
    stage.token(APP_POD, "").await.is_identity_not_found();
    stage.mark();
    let heir = Wanted {
        uid: "uid-of-the-heir",
        sources: &["servicePrincipal: {secretRef: {name: heirs}}"],
        ..Wanted::default()
    };
    stage.apply(&heir.identity());
    stage.token_at_last(APP_POD).await.is_error(400);
    assert!(
        stage.exchanges().is_empty(),
        "the predecessor's secret was used"
    );
    stage
        .api
        .secret("shop", "heirs", &[("clientSecret", b"wrong")]);
    let refused = stage.until("Entra's refusal", APP_POD, |reply| {
        reply.body.contains("AADSTS7000215")
    });
    refused.await.is_error(400);
}

/// The same without a deletion that we saw, as after a watch that was away.
#[tokio::test]
async fn an_identity_that_was_replaced_unseen_inherits_nothing() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.mark();
    let heir = Wanted {
        uid: "uid-of-the-heir",
        sources: &["servicePrincipal: {secretRef: {name: heirs}}"],
        ..Wanted::default()
    };
    stage.apply(&heir.identity());
    stage.token_at_last(APP_POD).await.is_error(400);
    assert!(stage.exchanges().is_empty());
}

/// A spec that changed is another credential: the token of the one before is not served.
#[tokio::test]
async fn a_new_generation_is_fetched_anew() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage
        .api
        .secret("shop", "other", &[("password", SECRET.as_bytes())]);
    let changed = Wanted {
        generation: 2,
        sources: &["servicePrincipal: {secretRef: {name: other, key: password}}"],
        ..Wanted::default()
    };
    stage.mark();
    stage.apply(&changed.identity());
    stage.token_at_last(APP_POD).await.claims();
    assert_eq!(stage.exchanges().len(), 1);
    let wrong = Wanted {
        generation: 3,
        sources: &["servicePrincipal: {secretRef: {name: other, key: nothing}}"],
        ..Wanted::default()
    };
    stage.apply(&wrong.identity());
    stage.token_at_last(APP_POD).await.is_error(400);
}

/// Manifests in a folder have neither UID nor generation: another credential is another one all the same.
#[tokio::test]
async fn without_uid_and_generation_a_credential_is_nobody_elses() {
    let stage = stage_with_secret().await;
    let plain = Wanted {
        uid: "''",
        generation: 0,
        ..Wanted::default()
    };
    stage.apply(&plain.identity());
    stage.token_at_last(APP_POD).await.claims();
    stage.mark();
    let heir = Wanted {
        sources: &["servicePrincipal: {secretRef: {name: heirs}}"],
        ..plain
    };
    stage.apply(&heir.identity());
    stage.token_at_last(APP_POD).await.is_error(400);
    assert!(stage.exchanges().is_empty());
}

/// Two service accounts, one identity: each is held against Entra by itself.
#[tokio::test]
async fn a_service_account_gets_no_token_of_anothers() {
    let stage = stage_of(&[FEDERATED]).await;
    stage.apply(&cast::pod("shop", "app-twin", "app", "visitor", TWIN_POD));
    stage.token_at_last(APP_POD).await.claims();
    let refused = stage.token_at_last(TWIN_POD).await;
    refused.is_error(400);
    let words = refused.text("error_description");
    assert!(
        words.contains("system:serviceaccount:shop:visitor"),
        "{words}"
    );
    // A pod that is made again with the other account is another asker.
    stage.apply(&cast::pod("shop", "app-twin", "app", "app", TWIN_POD));
    stage
        .until("its own token", TWIN_POD, |reply| reply.status == 200)
        .await;
}

/// What is asked of the API server is bound to the very pod, for the one audience.
#[tokio::test]
async fn the_exchanged_token_is_the_pods_own() {
    let stage = stage_of(&[FEDERATED]).await;
    stage.token_at_last(TWIN_POD).await.claims();
    let requested = stage.api.requested();
    assert_eq!(requested.len(), 1, "{requested:?}");
    let spec = &requested[0]["spec"];
    assert_eq!(spec["audiences"], serde_json::json!([cast::EXCHANGE]));
    assert_eq!(spec["boundObjectRef"]["kind"], "Pod");
    assert_eq!(spec["boundObjectRef"]["name"], "app-twin");
    assert_eq!(spec["boundObjectRef"]["uid"], "uid-app-twin");
    let life = spec["expirationSeconds"].as_i64().unwrap();
    assert!((600..=3600).contains(&life), "{life}");
    let token = &stage.api.tokens()[0];
    assert_eq!(claims(token)["sub"], "system:serviceaccount:shop:app");
}

/// The grant goes while the token is on its way: it reaches nobody.
async fn a_pod_whose_binding_went(stage: &Stage) {
    stage
        .simulator
        .add_fault(Fault::slow(Target::Entra, Duration::from_millis(1500)));
    let asking = stage.token(APP_POD, "/slow");
    let revoking = async {
        stage
            .eventually("a call to Entra", || !stage.since().is_empty())
            .await;
        let binding = crate::world::binding("shop", "app", "app");
        stage.delete(&binding);
    };
    let (reply, ()) = tokio::join!(asking, revoking);
    assert_eq!(reply.status, 400, "{reply:?}");
    reply.is_error(400);
    assert!(!reply.body.contains("eyJ"), "{reply:?}");
    stage.simulator.clear_faults();
    stage.token(APP_POD, "/slow").await.is_identity_not_found();
    stage.token(APP_POD, "").await.is_identity_not_found();
}

#[tokio::test]
async fn a_binding_that_goes_during_the_fetch_by_secret() {
    let stage = stage_with_secret().await;
    stage.token_at_last(APP_POD).await.claims();
    stage.mark();
    a_pod_whose_binding_went(&stage).await;
}

#[tokio::test]
async fn a_binding_that_goes_during_the_fetch_by_federation() {
    let stage = stage_of(&[FEDERATED]).await;
    stage.token_at_last(APP_POD).await.claims();
    stage.mark();
    a_pod_whose_binding_went(&stage).await;
}

/// The pod goes, and its address is another's, while the API server is asked for its token.
#[tokio::test]
async fn an_heir_of_the_address_gets_nothing() {
    let stage = stage_of(&[FEDERATED]).await;
    stage.api.mood(Call::Tokens, Mood::Slow(1500));
    let asking = stage.token(APP_POD, "");
    let replacing = async {
        stage
            .eventually("a TokenRequest", || stage.api.asked("/token") > 0)
            .await;
        stage.delete(&cast::pod("shop", "app", "app", "app", APP_POD));
        stage.apply(&cast::pod("shop", "heir", "heir", "heir", APP_POD));
    };
    let (reply, ()) = tokio::join!(asking, replacing);
    assert_ne!(reply.status, 200, "{reply:?}");
    assert!(!reply.body.contains("eyJ"), "{reply:?}");
    stage.token(APP_POD, "").await.is_identity_not_found();
}

/// An application that no policy lists, although a Secret proves it.
#[tokio::test]
async fn an_application_that_no_policy_lists_is_refused() {
    let stage = stage().await;
    stage.workload(&Wanted {
        client: cast::FOREIGN,
        ..Wanted::default()
    });
    stage.client_secret("foreign-secret");
    stage.token_at_last(APP_POD).await.is_error(400);
}

/// An identity switched from one source to another under load fails no request.
#[tokio::test]
async fn an_identity_switched_to_another_source_fails_no_request() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let stage = stage().await;
    let by_imds = Wanted {
        client: crate::world::PAYMENTS,
        sources: &[cast::IMDS],
        ..Wanted::default()
    };
    stage.workload(&by_imds);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = async {
        while !stop.load(Ordering::Relaxed) {
            let (one, two) = tokio::join!(stage.token(APP_POD, ""), stage.token(TWIN_POD, ""));
            one.claims();
            two.claims();
            asked.fetch_add(1, Ordering::Relaxed);
        }
    };
    let switch = async {
        for generation in 2..12 {
            let sources: &[&str] = if generation % 2 == 0 {
                &[FEDERATED]
            } else {
                &[cast::IMDS]
            };
            let wanted = Wanted {
                generation,
                sources,
                ..by_imds
            };
            let before = asked.load(Ordering::Relaxed);
            stage.apply(&wanted.identity());
            stage
                .eventually("some more tokens", || {
                    asked.load(Ordering::Relaxed) > before + 3
                })
                .await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, switch);
    assert!(stage.exchanges().len() >= 5);
}
