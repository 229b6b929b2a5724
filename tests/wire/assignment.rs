//! `--assignments=required` on the wire: what a pod is told while its identity is on its way to the
//! node, when it has arrived, and when Azure refused.

use lanyard::model::compute::Compute;

use crate::testkit::{Stage, request, stage, token_target};
use crate::world::{PAYMENTS, PAYMENTS_POD, REPORTS, REPORTS_POD};

const SET: &str = "/subscriptions/5ab5c71b-0000-4000-8000-000000000001/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool1";

fn name() -> String {
    SET.parse::<Compute>().unwrap().assignment_name()
}

/// The node's assignment with `payments` in this state.
fn assignment(state: &str) -> String {
    format!(
        "apiVersion: lanyard.dev/v1alpha1\nkind: AzureAssignment\nmetadata: {{name: {}}}\n\
         spec: {{computeID: {SET}, identities: [{{resourceID: {id}, owned: true}}]}}\n\
         status: {{identities: [{{resourceID: {id}, state: {state}, since: '2026-01-01T00:00:00Z', reason: LinkedAuthorizationFailed}}]}}",
        name(),
        id = PAYMENTS
            .resource_id
            .to_ascii_uppercase()
            .replace("/SUBSCRIPTIONS/", "/subscriptions/")
    )
}

/// A stage where assignments count, and none is known.
async fn required() -> Stage {
    let stage = stage().await;
    stage.require_assignments(&name());
    stage
}

#[tokio::test]
async fn a_waiting_request_is_answered_when_the_identity_arrives() {
    let stage = required().await;
    stage.apply(&assignment("Pending"));
    let mut pod = stage.connect(PAYMENTS_POD).await;
    pod.send(request(&token_target(""))).await;
    stage.until_waiting().await;
    stage.apply(&assignment("Assigned"));
    let reply = pod.reply().await;
    reply.is_token_of(PAYMENTS);
    // Others are not meant by it.
    stage.token(REPORTS_POD, "").await.is_error(503);
    assert_eq!(stage.upstream().len(), 1);
}

#[tokio::test]
async fn what_is_not_assigned_is_told_to_try_again_and_imds_is_not_asked() {
    let stage = required().await;
    let reply = stage.token(PAYMENTS_POD, "").await;
    reply.is_error(503);
    assert!(stage.upstream().is_empty());
}

#[tokio::test]
async fn azures_refusal_is_final_and_a_cached_token_outlives_it() {
    let stage = required().await;
    stage.apply(&assignment("Failed"));
    let reply = stage.token(PAYMENTS_POD, "").await;
    reply.is_error_at_once(400);
    assert!(
        reply
            .text("error_description")
            .starts_with("Identity not found")
    );
    assert!(!reply.body.contains("LinkedAuthorizationFailed"));
    assert!(stage.upstream().is_empty());
    stage.apply(&assignment("Assigned"));
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage.apply(&assignment("Removing"));
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
}

#[tokio::test]
async fn where_assignments_are_ignored_they_change_nothing() {
    let stage = stage().await;
    stage.apply(&assignment("Failed"));
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
    stage.token(REPORTS_POD, "").await.is_token_of(REPORTS);
}
