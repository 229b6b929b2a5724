//! Identities that were deleted and created again under the same name.

use super::*;

#[test]
fn a_recreated_identity_is_taken_off_and_put_on_again() {
    let mut scene = Scene::empty()
        .wants("a")
        .has("a", Some(1))
        .exists("a", 2)
        .recorded("a", true, Assigned);
    let plan = scene.step();
    assert_eq!((plan.removed(), plan.added()), (vec![id("a")], vec![]));
    let entry = plan.of("a");
    assert_eq!(
        (entry.state, entry.reason.as_deref()),
        (Pending, Some(IDENTITY_RECREATED))
    );
    let plan = scene.step();
    assert_eq!((plan.removed(), plan.added()), (vec![], vec![id("a")]));
    let plan = scene.step();
    assert!(plan.patch.is_none());
    let entry = plan.of("a");
    assert_eq!((entry.state, entry.principal_id), (Assigned, Some(guid(2))));
    assert!(entry.owned);
}

/// The compute resource has the new principal, and what is known of the identity is a poll old.
#[test]
fn a_principal_that_is_known_too_late_costs_no_patch() {
    for owned in [true, false] {
        let mut scene = Scene::empty()
            .wants("a")
            .has("a", Some(1))
            .exists("a", 1)
            .recorded("a", owned, Assigned);
        scene.step();
        let mut scene = scene.has("a", Some(2));
        for _ in 0..3 {
            let plan = scene.step();
            assert!(plan.patch.is_none());
            assert_eq!(plan.of("a").state, Assigned);
        }
        let mut known = scene.clone().exists("a", 2);
        assert_eq!(known.step().of("a").reason, None);
        let other = scene.exists("a", 3).plan();
        assert_eq!(other.removed().len(), usize::from(owned), "a third one");
    }
}

/// Where the knowledge is wrong for longer, it is acted on once.
#[test]
fn a_principal_that_stays_wrong_is_assigned_anew_once() {
    let mut scene = Scene::empty()
        .wants("a")
        .has("a", Some(2))
        .exists("a", 1)
        .recorded("a", true, Assigned);
    assert_eq!(scene.plan(), scene.plan(), "not sent yet");
    assert_eq!(scene.step().removed(), [id("a")]);
    assert_eq!(scene.step().added(), [id("a")]);
    let mut scene = scene.has("a", Some(2));
    for _ in 0..3 {
        assert!(scene.step().patch.is_none());
    }
    let late = Scene::empty()
        .wants("a")
        .has("a", Some(1))
        .exists("a", 2)
        .recorded("a", true, Assigned);
    let written = Scene {
        record: late.plan().record,
        ..late
    };
    assert_eq!(
        written.plan().removed(),
        [id("a")],
        "a crash before the PATCH"
    );
}

#[test]
fn a_recreated_identity_that_is_not_lanyards_to_remove_is_left_to_people() {
    let foreign = Scene::empty().wants("a").has("a", Some(1)).exists("a", 2);
    let mut immutable = foreign.clone().recorded("a", true, Assigned);
    immutable.immutable.insert(id("a"));
    for scene in [foreign, immutable] {
        let plan = scene.plan();
        assert!(plan.patch.is_none());
        let entry = plan.of("a");
        assert_eq!(
            (entry.state, entry.reason.as_deref()),
            (Failed, Some(IDENTITY_RECREATED))
        );
        assert!(
            entry
                .message
                .as_deref()
                .unwrap()
                .contains("identity remove")
        );
    }
}
