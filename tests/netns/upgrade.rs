//! Invariant 6: while one agent hands over to the next, no request of a granted pod fails.
//!
//! In: two agents on one node and load from a granted and a refused pod all the time. Out: not one
//! attempt without the right answer, and nothing in the cloud with a pod's address.

use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::lab::{Get, IMDS, Knocking, until};

use crate::guard::Guard;
use crate::harness::Stage;

const WAIT: Duration = Duration::from_secs(30);
const HANDOVERS: u16 = 3;

/// More of the expected answers have come in.
async fn goes_on(load: &Knocking, status: u16) -> Result<()> {
    let before = load.tally().status(status);
    let more = async || load.tally().status(status) > before + 20;
    Ok(until(WAIT, format!("more answers {status}"), more).await?)
}

pub async fn a_handover_fails_no_request(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    Guard::post(&cast).await?;
    let mut old = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let guard = Guard::begin(&cast).await?;
    let request = Get::token(VAULT_RESOURCE).within(Duration::from_secs(5));
    let granted = cast.payments.namespace().knock(IMDS, request.clone());
    let stranger = cast.stranger.namespace().knock(IMDS, request);
    goes_on(&granted, 200).await?;
    for number in 1..=HANDOVERS {
        let setup = cast
            .agent(&stage.backend)
            .second(&format!("agent-{number}"), 9464 + number);
        let new = cast.lab.agent(&setup).await?;
        goes_on(&granted, 200).await?;
        old.process.term();
        let status = old.process.wait_exit(WAIT).await?;
        ensure!(status.success(), "a drained agent ended with {status}");
        goes_on(&granted, 200).await?;
        goes_on(&stranger, 400).await?;
        old = new;
    }
    let (granted, stranger) = (granted.stop().await?, stranger.stop().await?);
    ensure!(
        granted.attempts() == granted.status(200),
        "the granted pod: {granted:?}"
    );
    ensure!(
        stranger.attempts() == stranger.status(400),
        "the stranger: {stranger:?}"
    );
    guard.nothing_leaked(&cast).await
}
