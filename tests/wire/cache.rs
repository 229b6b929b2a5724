//! Invariant 5 on the wire: one upstream call for one key, a valid token while there is one, and
//! nobody gets what was cached for somebody else.

use std::time::{Duration, Instant};

use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};

use crate::testkit::{AT_ONCE, Options, PATIENCE, Stage, request, stage, stage_with, token_target};
use crate::world::{
    self, ABSENT_POD, ANNOTATED_POD, DESK_POD, Identity, LEDGER, PAYMENTS, PAYMENTS_POD,
    TELLER_POD, THIEF_POD,
};

/// A stage whose IMDS is slow enough that requests overlap.
async fn slow() -> Stage {
    let azure = "imds: {latency: 400ms}";
    stage_with(Options {
        azure,
        ..Options::default()
    })
    .await
}

/// Waits until that many requests have reached IMDS.
async fn upstream_has(stage: &Stage, calls: usize) {
    let begun = Instant::now();
    while stage.upstream().len() < calls {
        assert!(begun.elapsed() < PATIENCE, "{:?}", stage.upstream());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn two_hundred_pods_at_once_are_one_upstream_call() {
    let stage = slow().await;
    let pods: Vec<String> = (1..=200).map(|n| format!("127.1.0.{n}")).collect();
    let manifests: Vec<String> = pods
        .iter()
        .enumerate()
        .map(|(n, ip)| {
            world::pod("shop", "payments", ip).replace(
                "name: payments, namespace",
                &format!("name: p{n}, namespace"),
            )
        })
        .collect();
    stage.apply(&manifests.join("\n---\n"));
    let mut asked = Vec::new();
    for pod in &pods {
        asked.push(stage.connect(pod).await);
    }
    for conversation in &mut asked {
        conversation.send(request(&token_target(""))).await;
    }
    for conversation in &mut asked {
        conversation.reply().await.is_token_of(PAYMENTS);
    }
    assert_eq!(stage.upstream().len(), 1);
    // Warm, it stays the one.
    for conversation in &mut asked {
        conversation.send(request(&token_target(""))).await;
        conversation.reply().await.is_token_of(PAYMENTS);
    }
    assert_eq!(stage.upstream().len(), 1);
}

#[tokio::test]
async fn one_identity_by_different_selectors_is_one_call() {
    let stage = slow().await;
    for more in [
        format!("&client_id={}", PAYMENTS.client_id),
        format!("&object_id={}", PAYMENTS.object_id),
        format!("&msi_res_id={}", PAYMENTS.resource_id.to_uppercase()),
    ] {
        stage.token(DESK_POD, &more).await.is_token_of(PAYMENTS);
    }
    assert_eq!(stage.upstream().len(), 1);
}

#[tokio::test]
async fn another_resource_is_another_token_also_by_a_slash() {
    let stage = stage().await;
    for resource in [
        "https://a.example",
        "https://a.example/",
        "https://A.example",
        "https://b.example",
    ] {
        for _ in 0..2 {
            let claims = stage.token_for(PAYMENTS_POD, resource).await.claims();
            assert_eq!(claims["aud"], resource);
        }
    }
    assert_eq!(stage.upstream().len(), 4);
}

#[tokio::test]
async fn waiting_callers_do_not_die_with_the_first() {
    let stage = slow().await;
    let mut first = stage.connect(PAYMENTS_POD).await;
    first.send(request(&token_target(""))).await;
    upstream_has(&stage, 1).await;
    let mut second = stage.connect(DESK_POD).await;
    let target = token_target(&format!("&client_id={}", PAYMENTS.client_id));
    second.send(request(&target)).await;
    drop(first);
    second.reply().await.is_token_of(PAYMENTS);
    assert_eq!(stage.upstream().len(), 1);
}

/// A first token of `life`, then IMDS fails.
async fn renewal_fails(life: u64) -> Stage {
    let stage = stage().await;
    let effect = Effect::Lifetime(Duration::from_secs(life));
    stage
        .simulator
        .add_fault(Fault::new(Target::Imds, effect).times(1));
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage.simulator.add_fault(Fault::status(Target::Imds, 503));
    stage
}

#[tokio::test]
async fn a_valid_token_is_served_while_renewal_fails_down_to_its_last_seconds() {
    let stage = renewal_fails(3600).await;
    for passed in [1900, 1000, 500, 160] {
        stage.let_pass(passed);
        let reply = stage.token(PAYMENTS_POD, "").await;
        reply.is_token_of(PAYMENTS);
        assert!(reply.text("expires_in").parse::<u64>().unwrap() > 30);
    }
    stage.let_pass(20);
    let reply = stage.token(PAYMENTS_POD, "").await;
    reply.is_error(503);
    assert!(stage.upstream().len() > 1, "it was tried for");
}

#[tokio::test]
async fn an_expired_token_is_never_served() {
    let stage = renewal_fails(600).await;
    stage.let_pass(601);
    stage.token(PAYMENTS_POD, "").await.is_error(503);
    stage.simulator.clear_faults();
    let begun = Instant::now();
    loop {
        let reply = stage.token(PAYMENTS_POD, "").await;
        if reply.status == 200 {
            return reply.is_token_of(PAYMENTS);
        }
        reply.is_error(503);
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn past_half_its_life_a_token_is_served_at_once_and_renewed_beside() {
    let stage = stage().await;
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage
        .simulator
        .add_fault(Fault::slow(Target::Imds, Duration::from_secs(4)));
    stage.let_pass(24 * 3600 * 7 / 10);
    let mut conversation = stage.connect(PAYMENTS_POD).await;
    for _ in 0..5 {
        conversation.send(request(&token_target(""))).await;
        let reply = conversation.reply().await;
        reply.is_token_of(PAYMENTS);
        assert!(reply.took < AT_ONCE, "{reply:?}");
    }
    upstream_has(&stage, 2).await;
    assert_eq!(
        stage.upstream().len(),
        2,
        "one renewal, not one for each request"
    );
}

#[tokio::test]
async fn a_refusal_of_azures_is_not_asked_for_again_and_again() {
    let stage = stage().await;
    for _ in 0..10 {
        stage.token(ABSENT_POD, "").await.is_identity_not_found();
    }
    let calls = stage.upstream().len();
    assert!((1..=2).contains(&calls), "{calls}");
}

/// The attack on a shared cache: `stolen` names the bank's client id with a resource id that the
/// shop's policy admits. The token alone says whose it is, and IMDS would give it.
async fn theft(stage: &Stage) {
    for more in [
        String::new(),
        format!("&client_id={}", LEDGER.client_id),
        format!("&msi_res_id={}", PAYMENTS.resource_id),
    ] {
        stage.token(THIEF_POD, &more).await.is_identity_not_found();
    }
}

#[tokio::test]
async fn another_teams_client_id_gets_no_token_cold() {
    let stage = stage().await;
    theft(&stage).await;
    // Nor is the victim worse off for it.
    stage.token(TELLER_POD, "").await.is_token_of(LEDGER);
}

#[tokio::test]
async fn another_teams_client_id_gets_no_token_that_is_cached() {
    let stage = stage().await;
    stage.token(TELLER_POD, "").await.is_token_of(LEDGER);
    theft(&stage).await;
    stage.token(TELLER_POD, "").await.is_token_of(LEDGER);
}

#[tokio::test]
async fn another_teams_client_id_gets_no_token_while_one_is_on_its_way() {
    let stage = slow().await;
    let mut victim = stage.connect(TELLER_POD).await;
    victim.send(request(&token_target(""))).await;
    upstream_has(&stage, 1).await;
    stage.token(THIEF_POD, "").await.is_error(400);
    victim.reply().await.is_token_of(LEDGER);
}

#[tokio::test]
async fn another_teams_client_id_gets_no_token_however_little_is_stated() {
    let stage = stage().await;
    stage.token(TELLER_POD, "").await.is_token_of(LEDGER);
    let stolen = |spec: &str| {
        format!(
            "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {{name: stolen, namespace: shop}}\nspec: {{{spec}}}"
        )
    };
    let Identity {
        client_id,
        object_id,
        resource_id,
    } = LEDGER;
    for spec in [
        format!("clientID: {client_id}"),
        format!("clientID: {client_id}, tenantID: {}", world::TENANT),
        format!("clientID: {client_id}, objectID: {object_id}"),
        format!("clientID: {client_id}, objectID: {object_id}, resourceID: {resource_id}"),
        format!(
            "clientID: {client_id}, objectID: {}, resourceID: {}",
            PAYMENTS.object_id, PAYMENTS.resource_id
        ),
    ] {
        stage.apply(&stolen(&spec));
        stage.token(THIEF_POD, "").await.is_identity_not_found();
    }
}

#[tokio::test]
async fn a_grant_taken_back_ends_the_tokens_also_the_cached() {
    let stage = stage().await;
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage
        .token(ANNOTATED_POD, &format!("&client_id={}", PAYMENTS.client_id))
        .await
        .is_token_of(PAYMENTS);
    stage.delete(&world::binding(
        "shop",
        "payments",
        "payments, desk, annotated",
    ));
    stage.token(PAYMENTS_POD, "").await.is_identity_not_found();
    stage
        .token(ANNOTATED_POD, &format!("&client_id={}", PAYMENTS.client_id))
        .await
        .is_identity_not_found();
}
