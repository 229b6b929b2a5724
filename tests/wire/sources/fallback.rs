//! Two sources of one identity: the second is tried where the first is "not possible here", and never
//! where it refused or failed. Each pair, each way.

use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};

use super::apiserver::{Call, Mood};
use super::cast::{self, APP, FEDERATED, IMDS, USUAL, Wanted};
use super::stage::{APP_POD, Stage, stage};
use crate::world::{Identity, PAYMENTS};

/// `client` by two sources, in this order.
async fn stage_of_two(client: Identity, sources: [&str; 2]) -> Stage {
    let stage = stage().await;
    stage.client_secret(cast::SECRET);
    stage.workload(&Wanted {
        client,
        sources: &sources,
        ..Wanted::default()
    });
    if sources.contains(&USUAL) {
        stage.usable().await;
    }
    stage
}

/// The agent has no right to ask for tokens of service accounts in this namespace.
fn not_federated_here(stage: &Stage) {
    stage.api.mood(Call::Tokens, Mood::Refuses(403));
}

/// The node does not carry `payments`, and the agent has waited long enough for that.
fn not_on_this_node(stage: &Stage) {
    stage.simulator.assign("node-1", &[]).unwrap();
    stage.let_pass(3600);
}

async fn gets(stage: &Stage, client: Identity) {
    let reply = stage.token_at_last(APP_POD).await;
    assert_eq!(reply.claims()["appid"], client.client_id);
}

#[tokio::test]
async fn federated_then_imds() {
    let stage = stage_of_two(PAYMENTS, [FEDERATED, IMDS]).await;
    not_federated_here(&stage);
    gets(&stage, PAYMENTS).await;
    assert!(stage.exchanges().is_empty());
    assert_eq!(stage.imds_calls(), 1);
}

#[tokio::test]
async fn imds_then_federated() {
    let stage = stage_of_two(PAYMENTS, [IMDS, FEDERATED]).await;
    not_on_this_node(&stage);
    gets(&stage, PAYMENTS).await;
    assert_eq!(stage.exchanges().len(), 1);
}

#[tokio::test]
async fn imds_then_service_principal() {
    let stage = stage_of_two(APP, [IMDS, USUAL]).await;
    stage.let_pass(3600);
    gets(&stage, APP).await;
    assert_eq!(stage.exchanges().len(), 1);
}

#[tokio::test]
async fn federated_then_service_principal() {
    let stage = stage_of_two(APP, [FEDERATED, USUAL]).await;
    not_federated_here(&stage);
    gets(&stage, APP).await;
    let used = stage.exchanges();
    assert_eq!(used.len(), 1);
    assert!(
        used[0].credential.as_ref().unwrap().starts_with("secret:"),
        "{used:?}"
    );
}

/// The first is possible: the second is not even asked.
#[tokio::test]
async fn the_first_that_works_is_the_only_one() {
    let stage = stage_of_two(PAYMENTS, [FEDERATED, IMDS]).await;
    gets(&stage, PAYMENTS).await;
    assert_eq!(stage.imds_calls(), 0);
    let stage = stage_of_two(PAYMENTS, [IMDS, FEDERATED]).await;
    gets(&stage, PAYMENTS).await;
    assert!(stage.exchanges().is_empty());
}

/// Never after a refusal of Entra's, although the second would give a token.
#[tokio::test]
async fn never_after_a_refusal_of_a_federation() {
    for second in [IMDS, USUAL] {
        let client = if second == IMDS { PAYMENTS } else { APP };
        let stage = stage_of_two(client, [FEDERATED, second]).await;
        stage.simulator.add_fault(Fault::aadsts(700_213).times(1));
        for _ in 0..2 {
            stage.token_at_last(APP_POD).await.is_error(400);
        }
        assert_eq!(
            (stage.exchanges().len(), stage.imds_calls()),
            (1, 0),
            "{second}"
        );
    }
}

#[tokio::test]
async fn never_after_a_refusal_of_a_secret() {
    for (second, client) in [(IMDS, PAYMENTS), (FEDERATED, APP)] {
        let stage = stage_of_two(client, [USUAL, second]).await;
        stage.simulator.add_fault(Fault::aadsts(700_016).times(1));
        for _ in 0..2 {
            stage.token_at_last(APP_POD).await.is_error(400);
        }
        assert_eq!(
            (stage.exchanges().len(), stage.imds_calls()),
            (1, 0),
            "{second}"
        );
    }
}

#[tokio::test]
async fn never_after_a_refusal_of_imds() {
    for (second, client) in [(FEDERATED, PAYMENTS), (USUAL, PAYMENTS)] {
        let stage = stage_of_two(client, [IMDS, second]).await;
        let effect = Effect::Status {
            code: 400,
            retry_after: None,
            body: Some(r#"{"error":"invalid_resource","error_description":"no"}"#.to_owned()),
        };
        stage.simulator.add_fault(Fault::new(Target::Imds, effect));
        for _ in 0..2 {
            stage.token_at_last(APP_POD).await.is_error(400);
        }
        assert!(stage.exchanges().is_empty(), "{second}");
    }
}

/// Trouble is not "not possible here": another source would hide it, and double the load.
#[tokio::test]
async fn never_while_the_first_only_fails() {
    let stage = stage_of_two(PAYMENTS, [FEDERATED, IMDS]).await;
    stage.simulator.add_fault(Fault::status(Target::Entra, 503));
    stage.token(APP_POD, "").await.is_error(503);
    assert_eq!(stage.imds_calls(), 0);
    let stage = stage_of_two(PAYMENTS, [IMDS, FEDERATED]).await;
    stage.simulator.add_fault(Fault::status(Target::Imds, 500));
    stage.token(APP_POD, "").await.is_error(503);
    assert!(stage.exchanges().is_empty());
}

/// A Secret that is missing is its owner's mistake: it is told, and not hidden by another source.
#[tokio::test]
async fn never_where_a_secret_is_missing() {
    let stage = stage().await;
    stage.workload(&Wanted {
        client: PAYMENTS,
        sources: &[USUAL, IMDS],
        ..Wanted::default()
    });
    stage.token_at_last(APP_POD).await.is_error(400);
    stage.event("CredentialUnusable").await;
    assert_eq!(stage.imds_calls(), 0);
}

/// The API server only fails: that passes, and is no reason for another source.
#[tokio::test]
async fn never_while_the_api_server_only_fails() {
    let stage = stage_of_two(PAYMENTS, [FEDERATED, IMDS]).await;
    stage.api.mood(Call::Tokens, Mood::Refuses(500));
    stage.token(APP_POD, "").await.is_error(503);
    assert_eq!(stage.imds_calls(), 0);
    stage.api.mood(Call::Tokens, Mood::Works);
    gets(&stage, PAYMENTS).await;
}

/// A pod that is gone for the API server, and not yet for us, gets "try again" and nobody's token.
#[tokio::test]
async fn a_pod_that_is_gone_gets_no_token() {
    let stage = stage_of_two(PAYMENTS, [FEDERATED, IMDS]).await;
    stage.api.pod_is_gone("app");
    stage.token(APP_POD, "").await.is_error(503);
    assert_eq!((stage.exchanges().len(), stage.imds_calls()), (0, 0));
    // Its sibling is served.
    let twin = super::stage::TWIN_POD;
    assert_eq!(
        stage
            .until("a token", twin, |reply| reply.status == 200)
            .await
            .status,
        200
    );
}
