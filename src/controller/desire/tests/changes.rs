//! After any changes, in any batches: the ledger says what a new one says, and what a plain reading
//! of the rules says.

use proptest::prelude::*;

use super::*;
use crate::model::conditions::{IdentityView, PodView, binds, refusing};

const NAMESPACES: [&str; 2] = ["a", "b"];

fn of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn pods() -> impl Strategy<Value = Change> {
    let annotations: &[Option<&str>] = &[
        None,
        None,
        Some("x"),
        Some("a/x,y"),
        Some("b/y"),
        Some("y,y,b/x"),
    ];
    let place = (of(&NAMESPACES), of(&["p", "q"]), of(&["n1", "n2", "n3"]));
    let rest = (0..3u8, of(annotations), any::<bool>());
    (place, rest).prop_map(|((namespace, name, node), (uid, wanted, gone))| {
        if gone {
            return no_pod(namespace, name);
        }
        pod(namespace, name, &uid.to_string(), node, wanted)
    })
}

fn nodes() -> impl Strategy<Value = Change> {
    let sets: &[Option<&str>] = &[None, Some("pool1"), Some("POOL1"), Some("pool2"), Some("")];
    (of(&["n1", "n2", "n3"]), of(sets)).prop_map(|(name, set)| match set {
        None => Change::Node(name.into(), None),
        Some("") => {
            let compute = "other:///x".parse::<Compute>().map(Arc::new);
            let uid = name.into();
            Change::Node(name.into(), Some(Node { uid, compute }))
        }
        Some(set) => node(name, set),
    })
}

fn identities() -> impl Strategy<Value = Change> {
    let name = (of(&NAMESPACES), of(&["x", "y"]));
    let arm_ids: &[Option<(&str, &str)>] = &[
        None,
        Some(("rg-a", "i")),
        Some(("RG-A", "I")),
        Some(("rg-b", "j")),
    ];
    (name, of(arm_ids), 0..8u8, any::<bool>()).prop_map(
        |((namespace, name), id, kind, immutable)| {
            let id = id.map(|(group, name)| arm(group, name));
            let mut stated = stated(id.as_deref());
            stated.immutable = immutable;
            stated.client_id = Some(guid(1));
            if kind == 1 {
                stated.sources = vec![SourceFacts::Federated(None)];
            }
            let mut seen = seen(namespace, name, stated);
            match kind {
                0 => return Change::Identity(ObjectName::new(namespace, name), None),
                2 => seen.meta.deleting = true,
                3 => seen.said = Err(Malformed::at("spec", "is odd")),
                _ => {}
            }
            put(seen)
        },
    )
}

fn bindings() -> impl Strategy<Value = Change> {
    let name = (of(&NAMESPACES), of(&["k", "l"]), of(&["x", "y"]));
    (name, 0..7u8).prop_map(|((namespace, name, identity), kind)| {
        let mut subject = anyone();
        match kind {
            0 => return Change::Binding(ObjectName::new(namespace, name), None),
            1 => subject.pod_selector = Some(selector(&[("app", "p")])),
            2 => subject.service_accounts = vec!["other".to_owned()],
            3 => subject.namespace_selector = Some(LabelSelector::default()),
            4 => subject.namespace_selector = Some(selector(&[("team", "a")])),
            _ => {}
        }
        binding(namespace, name, identity, subject)
    })
}

fn others() -> impl Strategy<Value = Change> {
    let namespaces = (of(&NAMESPACES), of(&[None, Some("a"), Some("b")]));
    let namespaces = namespaces.prop_map(|(name, team)| match team {
        None => Change::Namespace(name.into(), None),
        Some(team) => namespace(name, team),
    });
    let policies = (of(&["1", "2"]), of(&["a", "b"]), 0..5u8).prop_map(|(name, team, kind)| {
        let by_client = PolicyScope {
            client_ids: vec![guid(1)],
            ..PolicyScope::default()
        };
        match kind {
            0 => Change::Policy(name.into(), None),
            1 => policy(name, team, by_client),
            2 => policy(name, team, prefix("rg-b")),
            _ => policy(name, team, prefix("rg-a")),
        }
    });
    prop_oneof![namespaces, policies]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![4 => pods(), 2 => nodes(), 3 => identities(), 3 => bindings(), 2 => others()]
}

/// Everything that can be asked of a ledger.
type Answers = (
    Vec<ComputeDesire>,
    BTreeMap<ObjectName, Use>,
    BTreeMap<ObjectName, usize>,
    [BTreeSet<ArmId>; 3],
    usize,
);

fn answers(ledger: &Ledger) -> Answers {
    let names = |names: [&'static str; 2]| {
        let all = NAMESPACES.iter();
        all.flat_map(move |namespace| names.map(|name| ObjectName::new(*namespace, name)))
    };
    (
        ["pool1", "pool2"]
            .map(|set| ledger.desire(&compute(set)))
            .into(),
        names(["x", "y"])
            .map(|name| (name.clone(), ledger.identity(&name)))
            .collect(),
        names(["k", "l"])
            .map(|name| (name.clone(), ledger.matched_pods(&name)))
            .collect(),
        [ledger.named(), ledger.immutable(), ledger.mutable()].map(Clone::clone),
        ledger.computes().count(),
    )
}

/// How many nodes, and which identities by which objects.
type Essence = (usize, Vec<(ArmId, BTreeSet<ObjectName>)>);

/// What Azure can be asked for; how many pods is not.
fn essence(ledger: &Ledger) -> BTreeMap<ArmId, Essence> {
    let sets = ["pool1", "pool2"].map(compute);
    let of = |set: Arc<Compute>| {
        let desire = ledger.desire(&set);
        let wanted = desire.wanted.into_iter();
        let wanted = wanted.map(|(id, want)| (id, want.identities)).collect();
        (set.id.clone(), (desire.nodes, wanted))
    };
    sets.map(of).into()
}

/// The rules, read pod by pod and identity by identity.
fn plainly(world: &World, set: &Compute) -> BTreeMap<ArmId, Want> {
    let mut all: BTreeMap<ArmId, BTreeMap<ObjectName, BTreeSet<ObjectName>>> = BTreeMap::new();
    for (pod_name, pod) in &world.pods {
        let own = &pod_name.namespace;
        let node = world.nodes.get(&pod.node);
        let there = node.and_then(|node| node.compute.as_ref().ok());
        if there.is_none_or(|compute| compute.id != set.id) {
            continue;
        }
        for (name, seen) in &world.identities {
            let full = name.to_string();
            let asked = match &pod.wanted {
                None => name.namespace == *own,
                Some(names) => names.iter().any(|wanted| {
                    *wanted == full || (name.namespace == *own && **wanted == *name.name)
                }),
            };
            let view = PodView {
                namespace: own,
                namespace_labels: world.namespaces.get(own).map(Arc::as_ref),
                account: &pod.account,
                labels: &pod.labels,
            };
            let bound = world.bindings.values().any(|seen| {
                let facts = seen.said.as_ref().unwrap();
                facts.name.namespace == name.namespace
                    && facts.identity == name.name
                    && binds(facts, view)
            });
            if asked
                && bound
                && let Some(id) = assignable(world, name, seen)
            {
                let pods = all.entry(id).or_default();
                pods.entry(pod_name.clone())
                    .or_default()
                    .insert(name.clone());
            }
        }
    }
    let want = |pods: BTreeMap<ObjectName, BTreeSet<ObjectName>>| Want {
        pods: pods.len(),
        identities: pods.into_values().flatten().collect(),
    };
    all.into_iter().map(|(id, pods)| (id, want(pods))).collect()
}

fn assignable(world: &World, name: &ObjectName, seen: &SeenStated) -> Option<ArmId> {
    let stated = seen.said.as_ref().ok().filter(|_| !seen.meta.deleting)?;
    let id = stated.resource_id.as_ref()?;
    let labels = world.namespaces.get(&name.namespace)?;
    let view = IdentityView {
        uid: &seen.meta.uid,
        client_id: None,
        resource_id: Some(id),
        tenant_id: None,
        authority_host: None,
        sources: &stated.sources,
        is_accounts: false,
    };
    let mut policies = world
        .policies
        .values()
        .map(|seen| seen.said.as_ref().unwrap());
    let admitted = policies.any(|policy| refusing(policy, view, labels).next().is_none());
    (admitted && stated.sources.contains(&SourceFacts::Imds)).then(|| id.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_ledger_is_what_a_new_one_would_be(
        batches in proptest::collection::vec(proptest::collection::vec(change(), 1..6), 1..20)
    ) {
        let mut it = Observed::default();
        for batch in batches {
            let before = essence(&it.ledger);
            let changed = it.change(batch);
            let mut new = Ledger::default();
            new.update(&it.world, &Touched::all(&it.world));
            prop_assert_eq!(answers(&it.ledger), answers(&new));
            let after = essence(&it.ledger);
            for (compute, now) in &after {
                let told = changed.contains(compute);
                prop_assert!(told || before[compute] == *now, "{} changed silently", compute);
            }
            for set in ["pool1", "pool2"].map(compute) {
                prop_assert_eq!(it.ledger.desire(&set).wanted, plainly(&it.world, &set));
            }
        }
    }

    /// Whoever comes first.
    #[test]
    fn the_order_of_changes_makes_no_difference(
        changes in proptest::collection::vec(change(), 1..30), seed in any::<u64>()
    ) {
        // One change of each object, so that another order is the same world.
        let mut last = HashMap::new();
        for change in changes {
            last.insert(format!("{:?}", key(&change)), change);
        }
        let mut changes: Vec<Change> = last.into_values().collect();
        let mut one = Observed::default();
        one.change(changes.clone());
        fastrand::Rng::with_seed(seed).shuffle(&mut changes);
        let mut other = Observed::default();
        for change in changes {
            other.change([change]);
        }
        prop_assert_eq!(answers(&one.ledger), answers(&other.ledger));
    }
}

fn key(change: &Change) -> Touched {
    let mut touched = Touched::default();
    touched.note(change);
    if let Change::Policy(name, _) = change {
        touched.nodes.insert(name.clone());
    }
    touched
}
