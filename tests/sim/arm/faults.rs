//! Faults of ARM: each effect, for exactly the call that is meant, before or after it was carried out.

use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};

use super::{Rig, body, identity, pool};

fn status(code: u16, retry_after: Option<u32>) -> Fault {
    let effect = Effect::Status {
        code,
        retry_after,
        body: None,
    };
    Fault::new(Target::Arm, effect)
}

#[tokio::test]
async fn a_fault_strikes_the_call_that_it_names() {
    let rig = Rig::start("").await;
    rig.simulator.add_fault(
        status(429, Some(7))
            .for_method("PATCH")
            .for_path_part("/SCALESETS/")
            .times(1),
    );
    assert!(rig.simulator.faults().len() == 1);
    rig.simulator.clear_faults();
    let fault = status(429, Some(7))
        .for_method("PATCH")
        .for_path_part("virtualmachinescalesets/pool");
    rig.simulator.add_fault(fault.after(1).times(1));
    let add = body("UserAssigned", &["payments"], &[]);
    assert_eq!(rig.get(&pool()).await.status, 200);
    assert_eq!(
        rig.patch(&pool(), &add).await.status,
        200,
        "the first passes"
    );
    let struck = rig
        .patch(&pool(), &body("UserAssigned", &["reports"], &[]))
        .await;
    assert_eq!(
        (struck.status, struck.header("retry-after")),
        (429, Some("7"))
    );
    assert_eq!(rig.shown(&pool()).await, ["payments"], "not carried out");
    let last = rig
        .simulator
        .journal()
        .into_iter()
        .rfind(|entry| entry.method == "PATCH")
        .unwrap();
    assert_eq!(
        (last.fault.as_deref(), last.status),
        (Some("status"), Some(429))
    );
    assert_eq!(last.arm.unwrap().added, [identity("reports")]);
    assert_eq!(rig.patch(&pool(), &add).await.status, 200, "used up");
}

#[tokio::test]
async fn answers_that_make_no_sense() {
    let rig = Rig::start("").await;
    rig.simulator
        .add_fault(Fault::new(Target::Arm, Effect::Html).times(1));
    assert!(rig.get(&pool()).await.text().starts_with("<!DOCTYPE html>"));
    rig.simulator
        .add_fault(Fault::new(Target::Arm, Effect::Truncate).times(1));
    let cut = rig.get(&pool()).await;
    assert!(serde_json::from_slice::<serde_json::Value>(&cut.body).is_err());
    rig.simulator
        .add_fault(Fault::new(Target::Arm, Effect::Expired).times(1));
    let expired = rig.get(&pool()).await;
    assert_eq!(
        Rig::refusal(&expired),
        (401, "ExpiredAuthenticationToken".to_owned())
    );
    assert!(expired.header("www-authenticate").is_some());
    rig.simulator.add_fault(status(503, None).times(1));
    assert_eq!(
        Rig::refusal(&rig.get(&pool()).await),
        (503, "ServerTimeout".to_owned())
    );
}

#[tokio::test]
async fn a_lost_answer_may_be_that_of_a_write_that_was_made() {
    let rig = Rig::start("").await;
    let header = format!("Authorization: Bearer {}\r\n", rig.token);
    let add = body("UserAssigned", &["payments"], &[]);
    rig.simulator.add_fault(
        Fault::new(Target::Arm, Effect::Reset)
            .for_method("PATCH")
            .times(1),
    );
    assert!(
        rig.raw("PATCH", &pool(), &header, Some(&add))
            .await
            .is_err()
    );
    assert!(rig.shown(&pool()).await.is_empty(), "lost on the way there");
    let fault = Fault::new(Target::Arm, Effect::Reset).for_method("PATCH");
    rig.simulator.add_fault(fault.times(1).applied());
    assert!(
        rig.raw("PATCH", &pool(), &header, Some(&add))
            .await
            .is_err()
    );
    assert_eq!(
        rig.shown(&pool()).await,
        ["payments"],
        "lost on the way back"
    );
}

#[test]
fn what_arm_has_not_is_refused() {
    for text in [
        "{target: arm, lifetime: 5m}",
        "{target: arm, missing: access_token}",
        "{target: imds, silence: true, applied: true}",
    ] {
        assert!(serde_saphyr::from_str::<Fault>(text).is_err(), "{text}");
    }
    let fault: Fault = serde_saphyr::from_str(
        "{target: arm, reset: true, applied: true, match: {method: patch, pathPart: /pool, vm: pool}}",
    )
    .unwrap();
    let json = serde_json::to_string(&fault).unwrap();
    assert_eq!(serde_json::from_str::<Fault>(&json).unwrap(), fault);
}
