//! Token buckets: how many requests there are, and that 429 says when to come again.

use super::{Rig, body, lone, pool};

#[tokio::test]
async fn a_scale_set_is_written_twelve_times_and_then_waited_for() {
    let rig = Rig::start("").await;
    let add = body("UserAssigned", &["payments"], &[]);
    for left in (0..12).rev() {
        let answer = rig.patch(&pool(), &add).await;
        assert_eq!(answer.status, 200);
        let resource = answer.header("x-ms-ratelimit-remaining-resource").unwrap();
        let expected = format!("Microsoft.Compute/UpdateVMScaleSetResource;{left}");
        assert!(resource.starts_with(&expected), "{resource}");
    }
    let answer = rig.patch(&pool(), &add).await;
    assert_eq!(
        Rig::refusal(&answer),
        (429, "OperationNotAllowed".to_owned())
    );
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        answer.json()["error"]["details"][0]["code"],
        "TooManyRequests"
    );
    let other = body("SystemAssigned, UserAssigned", &["payments"], &[]);
    assert_eq!(
        rig.patch(&lone(), &other).await.status,
        200,
        "each resource has its own"
    );
    assert_eq!(rig.get(&pool()).await.status, 200, "reads have their own");
    assert_eq!(rig.simulator.stats().arm_throttled, 1);
}

#[tokio::test]
async fn a_subscription_says_what_it_has_left() {
    let rig = Rig::start("").await;
    let first = rig.get(&pool()).await;
    let left = |answer: &crate::client::Answer, name: &str| -> u32 {
        let header = format!("x-ms-ratelimit-remaining-subscription-{name}");
        answer.header(&header).expect("the header").parse().unwrap()
    };
    assert_eq!(left(&first, "reads"), 249);
    let write = rig
        .patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    assert_eq!(left(&write, "writes"), 199);
    for name in [
        "x-ms-request-id",
        "x-ms-correlation-request-id",
        "x-ms-routing-request-id",
    ] {
        assert!(write.header(name).is_some(), "{name}");
    }
    let refused = rig.get("/subscriptions/x/nothing").await;
    assert!(
        refused.header("x-ms-request-id").is_some(),
        "on every answer"
    );
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let rig = Rig::start("arm: {throttle: false}").await;
    let add = body("UserAssigned", &["payments"], &[]);
    for _ in 0..40 {
        assert_eq!(rig.patch(&pool(), &add).await.status, 200);
    }
    assert_eq!(rig.simulator.stats().arm_throttled, 0);
}
