//! What nobody wants any more, and what somebody else took off.

use super::*;

#[test]
fn removal_waits_for_its_grace_time_which_outlives_a_restart() {
    let mut scene = Scene::empty()
        .has("a", Some(1))
        .recorded("a", true, Assigned);
    let plan = scene.step();
    assert!(plan.patch.is_none());
    assert_eq!(plan.of("a").remove_after, Some(second(1900)));
    assert_eq!(
        (plan.of("a").state, plan.of("a").since),
        (Assigned, second(500))
    );
    assert_eq!(plan.again, Some(second(1900)));
    let mut scene = scene.at(1899);
    assert_eq!(scene.step(), plan, "from when it was first not wanted");
    let wanted_again = scene.clone().wants("a");
    let again = wanted_again.plan();
    assert!(again.patch.is_none());
    assert_eq!(again.of("a").remove_after, None);
    let mut scene = scene.at(1900);
    let plan = scene.step();
    assert_eq!(plan.removed(), [id("a")]);
    assert_eq!(plan.of("a").state, Removing);
    assert_eq!(scene.step(), Plan::default(), "gone, entry and all");
}

#[test]
fn a_removal_that_azure_refuses_is_tried_again_later() {
    let mut scene = Scene::empty()
        .has("a", Some(1))
        .recorded("a", true, Removing);
    scene.record.entries.get_mut(&id("a")).unwrap().remove_after = Some(second(900));
    assert_eq!(scene.plan().removed(), [id("a")]);
    let scene = scene.set_aside("a", 1100);
    let plan = scene.plan();
    assert!(plan.patch.is_none());
    assert_eq!(
        (plan.of("a").state, plan.again),
        (Removing, Some(second(1100)))
    );
    assert_eq!(scene.at(1100).plan().removed(), [id("a")]);
}

#[test]
fn a_removal_that_is_not_sent_yet_is_taken_back() {
    let mut scene = Scene::empty()
        .has("a", Some(1))
        .recorded("a", true, Removing)
        .wants("a");
    scene.record.entries.get_mut(&id("a")).unwrap().remove_after = Some(second(900));
    let plan = scene.plan();
    assert!(plan.patch.is_none());
    assert_eq!(
        (plan.of("a").state, plan.of("a").remove_after),
        (Assigned, None)
    );
    let plan = scene.has_not("a").plan();
    assert_eq!(plan.added(), [id("a")], "it was sent");
    assert_eq!(
        (plan.of("a").state, plan.of("a").reason.clone()),
        (Pending, None)
    );
}

#[test]
fn an_immutable_identity_stays_even_when_its_object_is_gone() {
    let mut scene = Scene::empty().wants("a");
    scene.immutable.insert(id("a"));
    scene.step();
    scene.step();
    scene.immutable.clear();
    let mut scene = scene.wants_not("a").at(100_000);
    let plan = scene.step();
    assert!(plan.patch.is_none() && plan.again.is_none());
    let entry = plan.of("a");
    assert!(entry.immutable && entry.owned && entry.remove_after.is_none());
    assert_eq!(entry.state, Assigned);
    scene.mutable.insert(id("a"));
    let plan = scene.step();
    assert_eq!(plan.of("a").remove_after, Some(second(100_900)));
    assert_eq!(scene.at(100_900).plan().removed(), [id("a")]);
}

#[test]
fn what_somebody_took_off_is_put_back() {
    for owned in [true, false] {
        let mut scene = Scene::empty().wants("a").recorded("a", owned, Assigned);
        let plan = scene.step();
        assert_eq!(plan.added(), [id("a")]);
        let entry = plan.of("a");
        assert_eq!(
            (entry.state, entry.reason.as_deref()),
            (Pending, Some(DRIFT))
        );
        assert!(entry.owned, "now it is Lanyard's");
        let plan = scene.step();
        assert!(plan.patch.is_none() && plan.of("a").reason.is_none());
    }
    let gone = Scene::empty().recorded("a", true, Assigned).plan();
    assert_eq!(gone, Plan::default(), "not wanted: nothing to do");
}
