//! What Azure refuses, throttles, or leaves without an answer.

use tokio::time::{Instant, sleep};

use super::*;
use crate::azure::arm::{ArmError, ArmErrorKind, Principal};

fn error(kind: ArmErrorKind) -> ArmError {
    ArmError::new(kind, "in Azure's words")
}

/// Seconds from each PATCH to the next.
fn pauses(rig: &Rig) -> Vec<u64> {
    let patches = rig.arm.patches();
    let between = patches.windows(2).map(|two| two[1].at - two[0].at);
    between.map(|pause| pause.as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn one_that_azure_names_is_set_aside_and_the_others_go_through_at_once() {
    let mut rig = Rig::new();
    rig.arm.with(|azure| {
        azure.bad = ids([7]);
        azure.names = true;
    });
    rig.want(ids(0..20));
    sleep(5 * SECOND).await;
    assert_eq!(rig.arm.patches().len(), 2);
    assert_eq!(rig.in_state(AssignmentState::Failed), ids([7]));
    assert_eq!(rig.in_state(AssignmentState::Assigned).len(), 19);
    assert_eq!(rig.doubted.try_recv(), Ok(id("i007")), "is it still there?");
    let told = rig.records.of(&rig.pool.id).unwrap();
    let entry = &told.record.entries[&id("i007")];
    assert_eq!(entry.reason.as_deref(), Some("BadIdentity"));
    let message = entry.message.as_deref().unwrap();
    assert!(message.contains("was not found; "), "{message}");
    // It is tried again, less and less often.
    sleep(Duration::from_hours(2)).await;
    let tries = rig.arm.patches().len() - 2;
    assert!((6..=9).contains(&tries), "{tries}");
    rig.arm.with(|azure| azure.bad.clear());
    sleep(Duration::from_mins(31)).await;
    assert_eq!(rig.in_state(AssignmentState::Assigned).len(), 20);
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_names_is_found_by_halving() {
    for vague in [false, true] {
        let rig = Rig::new();
        rig.arm.with(|azure| {
            azure.bad = ids([13]);
            azure.vague = vague;
        });
        rig.want(ids(0..20));
        sleep(5 * SECOND).await;
        assert!(rig.arm.patches().len() <= 9, "{}", rig.arm.patches().len());
        assert_eq!(rig.in_state(AssignmentState::Failed), ids([13]));
        assert_eq!(rig.in_state(AssignmentState::Assigned).len(), 19);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_fails_for_one_identity_is_searched_as_well() {
    let rig = Rig::new();
    rig.arm.with(|azure| azure.takes = Duration::from_hours(1));
    rig.want(ids(0..3));
    sleep(2 * SECOND).await;
    let mut refused = error(ArmErrorKind::BadIdentity);
    refused.identities = vec![id("i001")];
    rig.arm.with(|azure| {
        azure.end(&rig.pool, Some(refused));
        azure.takes = SECOND;
    });
    sleep(30 * SECOND).await;
    assert_eq!(rig.in_state(AssignmentState::Failed), ids([1]));
    assert_eq!(rig.in_state(AssignmentState::Assigned), ids([0, 2]));
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_comes_to_exist_is_tried_at_once() {
    let rig = Rig::new();
    rig.arm.with(|azure| azure.bad = ids([1]));
    rig.want(ids([1]));
    sleep(5 * SECOND).await;
    rig.board.tell_existence(&id("i001"), Existence::Missing);
    sleep(5 * SECOND).await;
    rig.arm.with(|azure| azure.bad.clear());
    rig.existence(&id("i001"), 1);
    sleep(SECOND).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
}

#[tokio::test(start_paused = true)]
async fn a_changed_azure_identity_is_a_reason_to_try_again() {
    let rig = Rig::new();
    rig.arm.with(|azure| azure.bad = ids([1]));
    rig.want(ids([1]));
    sleep(5 * SECOND).await;
    rig.arm.with(|azure| azure.bad.clear());
    let mut wanted = wants(&rig.pool, ids([1]));
    wanted.revisions.insert(id("i001"), 2);
    rig.applier.want(wanted);
    sleep(SECOND).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_retry_after() {
    let mut rig = Rig::new();
    let mut throttled = error(ArmErrorKind::Throttled);
    throttled.retry_after = Some(Duration::from_secs(90));
    rig.arm
        .with(|azure| azure.answers.push_back((false, throttled)));
    rig.want(ids([1]));
    sleep(5 * SECOND).await;
    let asked = rig.arm.with(|azure| azure.journal.len());
    assert_eq!(rig.reason().as_deref(), Some("Throttled"));
    rig.want(ids([1, 2]));
    sleep(30 * SECOND).await;
    // A new leader in the same process remembers it.
    rig.restart(vec![wants(&rig.pool, ids([1, 2]))]).await;
    sleep(50 * SECOND).await;
    assert_eq!(rig.arm.with(|azure| azure.journal.len()), asked);
    sleep(15 * SECOND).await;
    assert_eq!(rig.in_state(AssignmentState::Assigned), ids([1, 2]));
    assert!(pauses(&rig)[0] >= 90);
    assert_eq!(rig.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_by_one_whose_lease_may_end_meanwhile() {
    let rig = Rig::new();
    rig.arm.with(|azure| azure.prepares = 2 * SECOND);
    rig.want(ids([1]));
    sleep(SECOND).await;
    // While the token is fetched.
    rig.lease.lasts(None);
    sleep(Duration::from_mins(5)).await;
    assert_eq!(rig.arm.patches().len(), 0);
    rig.lease.lasts(Some(Duration::from_millis(8_900)));
    sleep(Duration::from_mins(5)).await;
    assert_eq!(rig.arm.patches().len(), 0);
    rig.lease.lasts(Some(Duration::from_secs(12)));
    sleep(5 * SECOND).await;
    assert_eq!(rig.arm.patches().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_operation_is_waited_for() {
    let rig = Rig::new();
    rig.arm.with(|azure| {
        let busy = (false, error(ArmErrorKind::Conflict));
        azure.answers.extend([busy.clone(), busy]);
    });
    rig.want(ids([1]));
    sleep(2 * SECOND).await;
    assert_eq!(rig.reason().as_deref(), Some("Conflict"));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
    assert_eq!((rig.arm.patches().len(), rig.trouble()), (3, None));
}

#[tokio::test(start_paused = true)]
async fn what_changed_meanwhile_is_read_again() {
    let rig = Rig::new();
    rig.want(ids([1]));
    sleep(2 * SECOND).await;
    rig.arm.with(|azure| azure.touch(&rig.pool));
    rig.want(ids([1, 2]));
    sleep(2 * SECOND).await;
    assert_eq!(rig.in_state(AssignmentState::Assigned), ids([1, 2]));
    assert_eq!((rig.arm.patches().len(), rig.arm.reads()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_patch_without_an_answer_is_looked_for_and_not_sent_again() {
    let rig = Rig::new();
    rig.arm.with(|azure| {
        azure.takes = 20 * SECOND;
        let lost = (true, error(ArmErrorKind::Unavailable));
        azure.answers.push_back(lost);
    });
    rig.want(ids([1]));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
    assert_eq!((rig.arm.patches().len(), rig.trouble()), (1, None));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_done_is_told_and_tried_less_and_less_often() {
    let rig = Rig::new();
    let mut forbidden = error(ArmErrorKind::Forbidden).about(&rig.pool.id);
    forbidden.status = Some(403);
    rig.arm.with(|azure| {
        let forbidden = std::iter::repeat_n((false, forbidden), 1000);
        azure.answers.extend(forbidden);
    });
    rig.want(ids([1]));
    sleep(5 * SECOND).await;
    let trouble = rig.trouble().unwrap();
    assert_eq!(&*trouble.reason, "Forbidden");
    assert!(
        trouble.message.contains("az role assignment create"),
        "{trouble:?}"
    );
    let writes = rig.records.writes().len();
    sleep(Duration::from_hours(2)).await;
    let tries = rig.arm.patches().len();
    assert!((12..=30).contains(&tries), "{tries}");
    assert_eq!(
        rig.records.writes().len(),
        writes,
        "the same words are not written again"
    );
    let last = rig.arm.patches().pop().unwrap().at;
    assert!(Instant::now() - last <= Duration::from_mins(12));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_not_there_is_told_while_it_has_nodes() {
    let rig = Rig::new();
    rig.arm.with(|azure| azure.machines.clear());
    rig.want(ids([1]));
    sleep(2 * SECOND).await;
    assert_eq!(rig.reason().as_deref(), Some("ComputeGone"));
    assert!(rig.records.of(&rig.pool.id).is_some());
    rig.applier.want(Wanted::nothing(rig.pool.clone()));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.records.of(&rig.pool.id), None);
    assert_eq!(rig.applier.shared.workers.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn nonsense_and_silence_disturb_nobody_else_and_pass() {
    for kind in [
        ArmErrorKind::Nonsense,
        ArmErrorKind::Unavailable,
        ArmErrorKind::Unauthenticated,
    ] {
        let rig = Rig::new();
        let other = compute("other");
        rig.arm.with(|azure| {
            azure.machine(&other);
            azure.reads.push_back(error(kind));
        });
        rig.want(ids([1]));
        sleep(Duration::from_millis(100)).await;
        rig.applier.want(wants(&other, ids([1])));
        sleep(2 * SECOND).await;
        assert_eq!(rig.reason().as_deref(), Some(kind.reason()));
        assert_eq!(rig.arm.assigned(&other), ids([1]));
        sleep(20 * SECOND).await;
        assert_eq!(
            (rig.trouble(), rig.arm.assigned(&rig.pool)),
            (None, ids([1]))
        );
    }
}

/// Somebody assigns it by hand after Azure refused us; then no pod needs it any more.
async fn added_by_hand_after(refusal: ArmError) -> BTreeSet<ArmId> {
    let rig = Rig::new();
    rig.arm
        .with(|azure| azure.answers.push_back((false, refusal)));
    rig.want(ids([1]));
    sleep(2 * SECOND).await;
    rig.arm.with(|azure| {
        let machine = azure.machine(&rig.pool);
        machine.identities.insert(id("i001"), Principal::default());
        azure.touch(&rig.pool);
    });
    sleep(Duration::from_mins(10)).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
    rig.want([]);
    sleep(GRACE + Duration::from_hours(1)).await;
    rig.arm.assigned(&rig.pool)
}

#[tokio::test(start_paused = true)]
async fn what_is_added_by_hand_after_a_refusal_is_never_removed() {
    for kind in [
        ArmErrorKind::BadIdentity,
        ArmErrorKind::LinkedAuthorization,
        ArmErrorKind::Forbidden,
        ArmErrorKind::Throttled,
    ] {
        let mut refusal = error(kind);
        refusal.retry_after = Some(Duration::from_mins(1));
        let left = added_by_hand_after(refusal).await;
        assert_eq!(left, ids([1]), "{kind:?}");
    }
    // Of what had no answer nobody knows that it was not ours.
    let left = added_by_hand_after(error(ArmErrorKind::Unavailable)).await;
    assert_eq!(left, ids([]));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_question_about_an_operation_is_waited_for() {
    let rig = Rig::new();
    let mut throttled = error(ArmErrorKind::Throttled);
    throttled.retry_after = Some(Duration::from_secs(200));
    rig.arm.with(|azure| {
        azure.takes = Duration::from_hours(1);
        azure.asked.push_back(throttled);
    });
    rig.want(ids([1]));
    sleep(SECOND).await;
    // At rest, and without the change: the operation is asked.
    let refused = error(ArmErrorKind::Unavailable);
    rig.arm.with(|azure| azure.end(&rig.pool, Some(refused)));
    sleep(Duration::from_mins(1)).await;
    let asked = rig.arm.with(|azure| azure.journal.len());
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.arm.with(|azure| azure.journal.len()), asked);
    sleep(Duration::from_mins(2)).await;
    assert!(rig.arm.with(|azure| azure.journal.len()) > asked);
}
