//! Asynchronous operations: accepted, watched, ended well or badly, in each other's way.

use std::time::{Duration, Instant};

use lanyard::sim::arm::{Failure, Operations, ProvisioningState};

use super::{Rig, body, identity, lone, pool};
use crate::client::Answer;

/// The target of an address in a header.
fn target(answer: &Answer, header: &str) -> String {
    let url = answer.header(header).expect("the header");
    let rest = url.strip_prefix("http://arm.test:1");
    rest.expect("the host that was asked").to_owned()
}

#[tokio::test]
async fn a_long_write_is_accepted_and_done_at_its_end() {
    let rig = Rig::start("").await;
    rig.simulator
        .arm()
        .set_operations("pool", Operations::Hold)
        .unwrap();
    let add = body("UserAssigned", &["payments"], &[]);
    let accepted = rig.patch(&pool(), &add).await;
    assert_eq!(accepted.status, 202);
    assert!(accepted.header("retry-after").is_some());
    assert_eq!(
        accepted.json()["properties"]["provisioningState"],
        "Updating"
    );
    let watch = target(&accepted, "azure-asyncoperation");
    let location = target(&accepted, "location");

    let status = rig.get(&watch).await;
    assert_eq!(
        (status.status, &status.json()["status"]),
        (200, &"InProgress".into())
    );
    assert_eq!(rig.get(&location).await.status, 202);
    let shown = rig.get(&pool()).await.json();
    assert_eq!(shown["properties"]["provisioningState"], "Updating");
    assert!(rig.shown(&pool()).await.is_empty(), "not yet");
    let busy = rig.patch(&pool(), &add).await;
    assert_eq!(Rig::refusal(&busy), (409, "Conflict".to_owned()));

    rig.simulator.arm().release("pool", None).unwrap();
    assert_eq!(rig.get(&watch).await.json()["status"], "Succeeded");
    let done = rig.get(&location).await;
    assert_eq!(done.status, 200);
    assert!(
        done.text().contains("userAssignedIdentities"),
        "{}",
        done.text()
    );
    assert_eq!(rig.shown(&pool()).await, ["payments"]);
    let call = rig
        .simulator
        .journal()
        .into_iter()
        .filter_map(|entry| entry.arm);
    let mut started = call.filter_map(|call| call.operation);
    assert!(watch.contains(&started.next().unwrap()) && started.next().is_none());
}

#[tokio::test]
async fn a_write_takes_the_time_that_the_world_says() {
    let rig = Rig::start("arm: {operationDuration: 300ms}").await;
    let accepted = rig
        .patch(&lone(), &body("UserAssigned", &["payments"], &[]))
        .await;
    assert_eq!(accepted.status, 202);
    let watch = target(&accepted, "azure-asyncoperation");
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.get(&watch).await.json()["status"] != "Succeeded" {
        assert!(Instant::now() < deadline, "no end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.shown(&lone()).await, ["payments"]);
}

#[tokio::test]
async fn a_failed_operation_changes_nothing_and_says_why() {
    let rig = Rig::start("").await;
    let arm = rig.simulator.arm();
    arm.set_operations("pool", Operations::Hold).unwrap();
    let accepted = rig
        .patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    let failure = Failure {
        code: "OverconstrainedAllocationRequest".to_owned(),
        message: "no room".to_owned(),
    };
    arm.release("pool", Some(failure)).unwrap();
    let status = rig
        .get(&target(&accepted, "azure-asyncoperation"))
        .await
        .json();
    assert_eq!(status["status"], "Failed");
    assert_eq!(status["error"]["code"], "OverconstrainedAllocationRequest");
    let shown = rig.get(&pool()).await.json();
    assert_eq!(shown["properties"]["provisioningState"], "Failed");
    assert!(rig.shown(&pool()).await.is_empty());
    assert!(arm.release("pool", None).is_err(), "nothing runs");
    arm.set_operations("pool", Operations::World).unwrap();
    assert_eq!(
        rig.patch(&pool(), &body("UserAssigned", &["payments"], &[]))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn one_that_hangs_delays_no_other() {
    let rig = Rig::start("").await;
    rig.simulator
        .arm()
        .set_operations("pool", Operations::Hold)
        .unwrap();
    let add = body("SystemAssigned, UserAssigned", &["payments"], &[]);
    assert_eq!(rig.patch(&pool(), &add).await.status, 202);
    assert_eq!(rig.patch(&lone(), &add).await.status, 200);
}

#[tokio::test]
async fn a_resource_deleted_under_its_operation_cancels_it() {
    let rig = Rig::start("").await;
    let arm = rig.simulator.arm();
    arm.set_operations(
        "lone",
        Operations::Take {
            milliseconds: 600_000,
        },
    )
    .unwrap();
    let accepted = rig
        .patch(&lone(), &body("UserAssigned", &["payments"], &[]))
        .await;
    arm.delete_compute("lone").unwrap();
    let status = rig
        .get(&target(&accepted, "azure-asyncoperation"))
        .await
        .json();
    assert_eq!(status["status"], "Canceled");
    assert_eq!(Rig::refusal(&rig.get(&lone()).await).1, "ResourceNotFound");
}

#[tokio::test]
async fn somebody_elses_work_is_in_the_way() {
    let rig = Rig::start("").await;
    let arm = rig.simulator.arm();
    let add = body("UserAssigned", &["payments"], &[]);
    for (state, code) in [
        (ProvisioningState::Updating, "Conflict"),
        (ProvisioningState::Deleting, "OperationNotAllowed"),
    ] {
        arm.set_state("pool", state).unwrap();
        assert_eq!(
            Rig::refusal(&rig.patch(&pool(), &add).await),
            (409, code.to_owned())
        );
    }
    arm.set_state("pool", ProvisioningState::Failed).unwrap();
    assert_eq!(rig.patch(&pool(), &add).await.status, 200);
    let state = rig.get(&pool()).await.json()["properties"]["provisioningState"].clone();
    assert_eq!(state, "Succeeded");
}

#[tokio::test]
async fn a_poisoned_identity_is_named_or_not_or_late() {
    use lanyard::sim::arm::Poison;
    let rig = Rig::start("").await;
    let arm = rig.simulator.arm();
    let both = body("UserAssigned", &["payments", "reports"], &[]);
    arm.poison("reports", Some(Poison::Named)).unwrap();
    let answer = rig.patch(&pool(), &both).await;
    assert!(
        answer.text().contains(&identity("reports")),
        "{}",
        answer.text()
    );
    arm.poison("reports", Some(Poison::Unnamed)).unwrap();
    let answer = rig.patch(&pool(), &both).await;
    assert_eq!(
        Rig::refusal(&answer),
        (400, "FailedIdentityOperation".to_owned())
    );
    assert!(
        !answer.text().contains("userAssignedIdentities/reports"),
        "{}",
        answer.text()
    );
    arm.poison("reports", Some(Poison::Late)).unwrap();
    let answer = rig.patch(&pool(), &both).await;
    assert_eq!(answer.status, 202);
    let status = rig
        .get(&target(&answer, "azure-asyncoperation"))
        .await
        .json();
    assert_eq!(status["error"]["code"], "FailedIdentityOperation");
    assert!(rig.shown(&pool()).await.is_empty());
    arm.poison("reports", None).unwrap();
    assert_eq!(rig.patch(&pool(), &both).await.status, 200);
}

#[tokio::test]
async fn an_operation_is_not_for_strangers_and_a_made_up_one_is_not_there() {
    let rig = Rig::start("").await;
    let made_up = format!(
        "{}/providers/Microsoft.Compute/locations/westeurope/operations/7",
        super::SUB
    );
    assert_eq!(rig.get(&made_up).await.status, 404);
    let bytes = rig.raw("GET", &made_up, "", None).await.unwrap();
    assert_eq!(Answer::parse(&bytes).status, 401);
}
