//! What holds for every plan, whatever the situation.

use super::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn subset() -> impl Strategy<Value = BTreeSet<ArmId>> {
    proptest::sample::subsequence(&NAMES[..], 0..=NAMES.len())
        .prop_map(|names| names.into_iter().map(id).collect())
}

fn map<V: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = V> + Clone + 'static,
) -> impl Strategy<Value = BTreeMap<ArmId, V>> {
    let name = proptest::sample::select(&NAMES[..]).prop_map(id);
    proptest::collection::btree_map(name, value, 0..=NAMES.len())
}

fn principal() -> impl Strategy<Value = Option<Guid>> + Clone {
    prop_oneof![Just(None), (1..3u64).prop_map(|n| Some(guid(n)))]
}

fn existence() -> impl Strategy<Value = Existence> + Clone {
    let exists = principal().prop_map(|principal_id| Existence::Exists {
        client_id: principal_id,
        principal_id,
        tenant_id: None,
    });
    prop_oneof![Just(Existence::Unknown), Just(Existence::Missing), exists]
}

fn time() -> impl Strategy<Value = Duration> + Clone {
    (0..3000u64).prop_map(second)
}

fn entry() -> impl Strategy<Value = Entry> + Clone {
    let state = proptest::sample::select(&[Pending, Assigned, Failed, Removing][..]);
    let facts = (any::<bool>(), any::<bool>(), proptest::option::of(time()));
    (facts, state, time(), principal()).prop_map(
        |((owned, immutable, remove_after), state, since, principal_id)| Entry {
            owned,
            immutable,
            remove_after,
            state,
            since,
            client_id: None,
            principal_id,
            reason: None,
            message: None,
        },
    )
}

fn setback() -> impl Strategy<Value = Setback> + Clone {
    time().prop_map(|until| Setback {
        failures: 1,
        until,
        reason: "Conflict".into(),
        message: "later".into(),
    })
}

fn scene() -> impl Strategy<Value = Scene> {
    let flags = (subset(), subset(), subset());
    let azure = (map(principal()), map(existence()), map(setback()));
    (flags, map(entry()), azure, 0..1200u64, time()).prop_map(
        |((wanted, immutable, mutable), entries, (shown, existence, setbacks), grace, now)| {
            let mut scene = Scene::empty();
            let wanted = wanted.into_iter().map(|id| (id, Want::default()));
            scene.desire.wanted = wanted.collect();
            scene.mutable = &mutable - &immutable;
            scene.immutable = immutable;
            scene.record.entries = entries;
            scene.shown = Some(Shown {
                at: now,
                identities: shown,
            });
            scene.existence = existence;
            scene.setbacks = setbacks;
            scene.grace = second(grace);
            scene.now = now;
            scene
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// What is shown is not added, what is not is not removed, nothing is in both, what is asked for
    /// is in the record as owned, and nobody wants what is removed unless it is to come back.
    #[test]
    fn minimal(scene in scene()) {
        let plan = scene.plan();
        let shown = &scene.shown.as_ref().unwrap().identities;
        let patch = plan.patch.clone().unwrap_or_default();
        prop_assert!(plan.patch.is_none() || !patch.is_empty());
        for id in &patch.add {
            prop_assert!(!shown.contains_key(id) && scene.desire.wanted.contains_key(id));
            prop_assert!(scene.existence.get(id) != Some(&Existence::Missing));
            let entry = &plan.record.entries[id];
            prop_assert!(entry.owned && entry.state == Pending);
        }
        for id in &patch.remove {
            prop_assert!(shown.contains_key(id));
            let entry = &plan.record.entries[id];
            let comes_back = entry.reason.as_deref() == Some(IDENTITY_RECREATED);
            prop_assert_eq!(scene.desire.wanted.contains_key(id), comes_back);
        }
        for id in patch.add.union(&patch.remove) {
            let setback = scene.setbacks.get(id);
            prop_assert!(setback.is_none_or(|setback| setback.until <= scene.now));
        }
    }

    #[test]
    fn never_removes_what_is_foreign_or_immutable(scene in scene()) {
        let mut scene = scene;
        for _ in 0..4 {
            let before = scene.clone();
            let plan = scene.step();
            for id in plan.removed() {
                let entry = &before.record.entries[&id];
                prop_assert!(entry.owned);
                prop_assert!(!before.immutable.contains(&id));
                prop_assert!(!entry.immutable || before.mutable.contains(&id));
            }
            scene.now += second(700);
        }
    }

    /// After Azure did what it was asked for (twice, where an identity was created anew), nothing is
    /// asked for any more, and the record stays as it is.
    #[test]
    fn idempotent(scene in scene()) {
        let mut scene = scene;
        let again = scene.step();
        let recreated = again.removed().iter().any(|id| scene.desire.wanted.contains_key(id));
        let second = scene.step();
        prop_assert!(recreated || second.patch.is_none());
        scene.step();
        let settled = scene.plan();
        prop_assert!(settled.patch.is_none());
        prop_assert_eq!(&settled.record, &scene.record);
    }

    /// Who was there first makes no difference, and neither do the others: each identity's part of
    /// the plan is the plan for it alone.
    #[test]
    fn each_identity_is_planned_as_if_it_were_alone(scene in scene(), name in proptest::sample::select(&NAMES[..])) {
        let id = id(name);
        let whole = scene.plan();
        let mut alone = scene.clone();
        alone.desire.wanted.retain(|other, _| *other == id);
        alone.record.entries.retain(|other, _| *other == id);
        let part = alone.plan();
        prop_assert_eq!(part.record.entries.get(&id), whole.record.entries.get(&id));
        prop_assert_eq!(part.added().contains(&id), whole.added().contains(&id));
        prop_assert_eq!(part.removed().contains(&id), whole.removed().contains(&id));
    }

    /// Before its time nothing goes, whenever it was first not wanted.
    #[test]
    fn nothing_goes_before_its_grace_time(scene in scene()) {
        let mut scene = scene;
        scene.record.entries.values_mut().for_each(|entry| entry.remove_after = None);
        prop_assume!(scene.grace > Duration::ZERO);
        let plan = scene.step();
        for id in plan.removed() {
            prop_assert!(scene.desire.wanted.contains_key(&id), "created anew");
        }
        if let Some(again) = plan.again {
            prop_assert!(again > scene.now);
        }
    }

    /// A state's time is that of its beginning.
    #[test]
    fn since_changes_with_the_state_only(scene in scene()) {
        let plan = scene.plan();
        for (id, entry) in &plan.record.entries {
            let before = scene.record.entries.get(id);
            let same = before.filter(|before| before.state == entry.state);
            prop_assert_eq!(entry.since, same.map_or(scene.now, |before| before.since));
        }
    }
}
