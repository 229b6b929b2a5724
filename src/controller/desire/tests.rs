//! Who is wanted where: single worlds, and what holds after any changes.

use super::*;
use crate::api::Malformed;
use crate::api::identity::{AzureIdentityStatus, Stated};
use crate::api::managed::ManagedIdentity;
use crate::controller::desired::Want;
use crate::controller::world::{Change, Meta, Node, Pod, Seen};
use crate::model::facts::{
    BindingFacts, LabelSelector, Labels, PolicyFacts, PolicyScope, SourceFacts, Subject,
};
use crate::model::ids::Guid;

mod changes;
mod scene;
mod size;

use self::scene::*;

#[test]
fn a_pod_makes_its_nodes_compute_resource_want_what_a_binding_gives_it() {
    let mut it = Observed::teams();
    let changed = it.change([pod("a", "p", "1", "n1", None)]);
    assert_eq!(changed, BTreeSet::from([compute("pool1").id.clone()]));
    assert_eq!(it.wanted("pool1"), [(arm("rg-a", "id"), 1)]);
    assert_eq!(it.wanted("pool2"), []);
    assert_eq!(it.ledger.matched_pods(&ObjectName::new("a", "id")), 1);
    assert_eq!(it.of("a", "id").pods, 1);
    assert_eq!(it.of("a", "id").refusal, None);
    let second = it.change([pod("a", "q", "2", "n1", None)]);
    assert!(second.is_empty(), "a second pod asks nothing new of Azure");
    assert_eq!(it.wanted("pool1"), [(arm("rg-a", "id"), 2)]);
    assert!(it.change([no_pod("a", "p")]).is_empty());
    assert_eq!(it.change([no_pod("a", "q")]).len(), 1);
    assert_eq!(it.wanted("pool1"), []);
}

/// A restart storm: every pod is another one of the same or another name.
#[test]
fn pods_that_are_replaced_change_nothing() {
    let mut it = Observed::teams();
    it.change([
        pod("a", "p-0", "1", "n1", None),
        pod("a", "q-0", "2", "n1", None),
    ]);
    let before = it.ledger.desire(&compute("pool1"));
    let changed = it.change([
        no_pod("a", "p-0"),
        no_pod("a", "q-0"),
        pod("a", "p-0", "3", "n1", None),
        pod("a", "q-1", "4", "n1", None),
    ]);
    assert!(changed.is_empty());
    assert_eq!(it.ledger.desire(&compute("pool1")), before);
}

/// The same name again on another node: a `StatefulSet`'s pod after its node was drained.
#[test]
fn a_pod_that_moves_takes_its_identities_along() {
    let mut it = Observed::teams();
    it.change([pod("a", "web-0", "1", "n1", None)]);
    let changed = it.change([pod("a", "web-0", "2", "n2", None)]);
    assert_eq!(changed.len(), 2);
    assert_eq!(it.wanted("pool1"), []);
    assert_eq!(it.wanted("pool2"), [(arm("rg-a", "id"), 1)]);
}

/// Resource group and subscription belong to what a scale set is.
#[test]
fn scale_sets_of_one_name_in_two_resource_groups_are_two() {
    let mut it = Observed::teams();
    let elsewhere: Compute = "azure:///subscriptions/t/resourceGroups/nodes-b/providers/Microsoft.Compute/virtualMachineScaleSets/pool1/virtualMachines/3".parse().unwrap();
    let elsewhere = Arc::new(elsewhere);
    let node = Node {
        uid: "n9".into(),
        compute: Ok(elsewhere.clone()),
    };
    it.change([
        Change::Node("n9".into(), Some(node)),
        pod("a", "p", "1", "n9", None),
    ]);
    assert_eq!(it.wanted("pool1"), []);
    assert_eq!(it.ledger.desire(&elsewhere).wanted.len(), 1);
    assert_eq!(it.ledger.computes().count(), 3);
}

#[test]
fn same_named_pods_of_two_namespaces_are_two() {
    let mut it = Observed::teams();
    let shared = arm("rg-a", "id");
    let of_b = put(seen("b", "shared", stated(Some(&shared))));
    it.change([
        of_b,
        policy("b", "b", prefix("rg-a")),
        binding("b", "shared", "shared", anyone()),
        pod("a", "web-0", "1", "n1", None),
        pod("b", "web-0", "2", "n1", None),
    ]);
    assert_eq!(it.wanted("pool1"), [(shared.clone(), 2)]);
    it.change([no_pod("b", "web-0")]);
    assert_eq!(it.wanted("pool1"), [(shared, 1)], "still in use");
}

/// One of two objects of the same ARM id has a client id that is a typing error; spelled otherwise,
/// too.
#[test]
fn in_use_is_counted_by_arm_id_whatever_the_client_id_and_the_case() {
    let mut it = Observed::teams();
    let id = arm("rg-a", "id");
    let odd = Stated {
        client_id: Some(guid(666)),
        ..stated(Some(
            &id.replace("resourceGroups/rg-a", "RESOURCEGROUPS/RG-A"),
        ))
    };
    it.change([
        put(seen("a", "odd", odd)),
        binding(
            "a",
            "odd",
            "odd",
            Subject {
                pod_selector: Some(selector(&[("app", "q")])),
                ..anyone()
            },
        ),
        binding(
            "a",
            "id",
            "id",
            Subject {
                pod_selector: Some(selector(&[("app", "p")])),
                ..anyone()
            },
        ),
        pod("a", "p", "1", "n1", None),
        pod("a", "q", "2", "n1", None),
    ]);
    let wanted = it.ledger.desire(&compute("POOL1")).wanted;
    let names = ["id", "odd"].map(|name| ObjectName::new("a", name));
    let want = Want {
        pods: 2,
        identities: BTreeSet::from(names),
    };
    assert_eq!(wanted, BTreeMap::from([(id.parse().unwrap(), want)]));
    it.change([no_pod("a", "p")]);
    assert_eq!(
        it.wanted("pool1").len(),
        1,
        "the other object's pod uses it"
    );
    let both = binding("a", "id", "id", anyone());
    it.change([both]);
    assert_eq!(
        it.wanted("pool1")[0].1,
        1,
        "one pod by two objects is one pod"
    );
}

/// Labels, annotations, another resourceVersion, a status: nothing of it is in the desire.
#[test]
fn edits_of_metadata_change_no_desire() {
    let mut it = Observed::teams();
    it.change((0..100).map(|n| pod("a", &format!("p{n}"), &format!("{n}"), "n1", None)));
    let before = it.ledger.desire(&compute("pool1"));
    let mut edited = seen("a", "id", stated(Some(&arm("rg-a", "id"))));
    edited.meta.version = "2".into();
    edited.meta.finalizers = vec!["example.com/keep".into()];
    let status = AzureIdentityStatus {
        observed_generation: Some(1),
        client_id: Some(guid(7).to_string()),
        ..AzureIdentityStatus::default()
    };
    edited.status = Some(Arc::new(status));
    let mut rebound = it.world.bindings[&ObjectName::new("a", "id")]
        .as_ref()
        .clone();
    rebound.meta.version = "2".into();
    let name = ObjectName::new("a", "id");
    let changed = it.change([put(edited), Change::Binding(name, Some(Arc::new(rebound)))]);
    assert!(changed.is_empty());
    assert_eq!(it.ledger.desire(&compute("pool1")), before);
}

#[test]
fn an_annotation_chooses_and_only_a_binding_grants() {
    let to_a = Subject {
        namespace_selector: Some(selector(&[("team", "a")])),
        ..anyone()
    };
    let mut it = Observed::teams();
    it.change([
        binding("b", "id", "id", to_a),
        pod("a", "own", "1", "n1", None),
        pod("a", "other", "2", "n2", Some("b/id")),
    ]);
    assert_eq!(
        it.wanted("pool1"),
        [(arm("rg-a", "id"), 1)],
        "nobody pushes an identity"
    );
    assert_eq!(
        it.wanted("pool2"),
        [(arm("rg-b", "id"), 1)],
        "not the own one, too"
    );
    assert_eq!(it.ledger.matched_pods(&ObjectName::new("b", "id")), 1);
    it.change([pod("a", "other", "2", "n2", Some("b/id,id"))]);
    assert_eq!(it.wanted("pool2").len(), 2);
    it.change([Change::Namespace("a".into(), None)]);
    assert_eq!(
        it.wanted("pool2"),
        [],
        "of a namespace that is not known nothing holds"
    );
    it.change([namespace("a", "c"), policy("c", "c", prefix("rg-a"))]);
    assert_eq!(
        it.wanted("pool2"),
        [(arm("rg-a", "id"), 1)],
        "its labels changed"
    );
    it.change([Change::Binding(ObjectName::new("a", "id"), None)]);
    assert_eq!((it.wanted("pool1"), it.wanted("pool2")), (vec![], vec![]));
}

#[test]
fn what_is_not_assigned_says_why() {
    let mut it = Observed::teams();
    let reason = |it: &Observed| it.of("a", "x").refusal.as_ref().map(Refusal::reason);
    it.change([
        binding("a", "x", "x", anyone()),
        pod("a", "p", "1", "n1", Some("x")),
    ]);
    assert_eq!(reason(&it), Some("NoIdentity"));
    assert_eq!(it.of("a", "x").pods, 1, "it is waited for");
    let mine = arm("rg-a", "x");
    let federated = Stated {
        sources: vec![SourceFacts::Federated(None)],
        ..stated(Some(&mine))
    };
    let by_client = Stated {
        client_id: Some(guid(1)),
        ..stated(None)
    };
    for (said, expected) in [
        (stated(Some(&arm("rg-b", "x"))), Some("NoPolicy")),
        (federated, Some("NothingToAssign")),
        (by_client, Some("NoResourceID")),
        (stated(Some(&mine)), None),
    ] {
        it.change([put(seen("a", "x", said))]);
        assert_eq!(reason(&it), expected);
        assert_eq!(it.wanted("pool1").len(), usize::from(expected.is_none()));
    }
    let mut deleting = seen("a", "x", stated(Some(&mine)));
    deleting.meta.deleting = true;
    it.change([put(deleting)]);
    assert_eq!(reason(&it), Some("Deleting"));
    let mut malformed = seen("a", "x", stated(None));
    malformed.said = Err(Malformed::at("spec.resourceID", "is not an ARM id"));
    it.change([put(malformed)]);
    assert_eq!(reason(&it), Some("Malformed"));
    assert_eq!(it.wanted("pool1"), []);
}

/// Whoever may name an application by client id must not get another team's ARM id assigned by it.
#[test]
fn a_client_id_admits_no_arm_id_to_azure() {
    let mut it = Observed::teams();
    let scope = PolicyScope {
        client_ids: vec![guid(1)],
        ..prefix("rg-a")
    };
    let theirs = Stated {
        client_id: Some(guid(1)),
        ..stated(Some(&arm("rg-b", "id")))
    };
    it.change([
        policy("a", "a", scope),
        put(seen("a", "id", theirs)),
        pod("a", "p", "1", "n1", None),
        Change::Identity(ObjectName::new("b", "id"), None),
    ]);
    assert_eq!(it.of("a", "id").refusal, Some(Refusal::NoPrefix));
    assert_eq!(it.wanted("pool1"), []);
    assert!(it.ledger.named().is_empty(), "ARM is not even asked");
}

/// Teams may share the group in which their identities are made.
#[test]
fn what_was_made_for_another_object_is_not_assigned_by_its_prefix() {
    let uid = "0b000000-0000-4000-8000-000000000002";
    let made = arm(
        "rg-a",
        &format!("lanyard-c0000000-0000-4000-8000-000000000001-{uid}"),
    );
    let mut it = Observed::teams();
    let theirs = seen("a", "id", stated(Some(&made)));
    it.change([put(theirs.clone()), pod("a", "p", "1", "n1", None)]);
    assert_eq!(it.of("a", "id").refusal, Some(Refusal::NoPolicy));
    let id: ArmId = made.parse().unwrap();
    assert!(!it.ledger.named().contains(&id), "ARM is not even asked");
    let mut own = theirs.clone();
    own.meta.uid = uid.into();
    it.change([put(own)]);
    assert_eq!(it.wanted("pool1"), [(made.clone(), 1)]);
    let mut whole = prefix("rg-a");
    whole.resource_id_prefixes.push(made.clone());
    it.change([put(theirs), policy("a", "a", whole)]);
    assert_eq!(it.wanted("pool1"), [(made, 1)], "an operator named it");
}

#[test]
fn a_managed_identity_is_wanted_once_its_status_tells_its_arm_id() {
    let mut it = Observed::teams();
    let managed = ManagedIdentity {
        resource_group: "/subscriptions/s/resourceGroups/rg-a".to_owned(),
        location: "westeurope".to_owned(),
        deletion_policy: crate::api::managed::DeletionPolicy::Delete,
        owner: None,
    };
    let stated = Stated {
        managed: Some(managed),
        ..stated(None)
    };
    let mut seen = seen("a", "id", stated);
    it.change([put(seen.clone()), pod("a", "p", "1", "n1", None)]);
    assert_eq!(it.of("a", "id").refusal, Some(Refusal::NotCreated));
    let status = |generation| AzureIdentityStatus {
        observed_generation: Some(generation),
        resource_id: Some(arm("rg-a", "lanyard-1")),
        ..AzureIdentityStatus::default()
    };
    seen.status = Some(Arc::new(status(0)));
    it.change([put(seen.clone())]);
    assert_eq!(it.wanted("pool1"), [], "told of another spec");
    seen.status = Some(Arc::new(status(1)));
    it.change([put(seen)]);
    assert_eq!(it.wanted("pool1"), [(arm("rg-a", "lanyard-1"), 1)]);
}

#[test]
fn a_node_of_no_compute_resource_hinders_no_other() {
    let mut it = Observed::teams();
    let odd = Node {
        uid: "n3".into(),
        compute: "aws:///x".parse::<Compute>().map(Arc::new),
    };
    it.change([
        Change::Node("n3".into(), Some(odd)),
        pod("a", "p", "1", "n3", None),
        pod("a", "q", "2", "n1", None),
        pod("a", "r", "3", "unheard-of", None),
    ]);
    assert_eq!(it.wanted("pool1"), [(arm("rg-a", "id"), 1)]);
    assert_eq!(
        (it.of("a", "id").pods, it.of("a", "id").computes.len()),
        (3, 1)
    );
    let changed = it.change([node("n3", "pool2"), node("unheard-of", "Pool1")]);
    assert_eq!(changed.len(), 2);
    assert_eq!(it.wanted("pool2"), [(arm("rg-a", "id"), 1)]);
    assert_eq!(it.ledger.desire(&compute("pool1")).nodes, 2);
    it.change([
        Change::Node("n1".into(), None),
        Change::Node("unheard-of".into(), None),
    ]);
    let desire = it.ledger.desire(&compute("pool1"));
    assert_eq!((desire.nodes, desire.wanted.len()), (0, 0));
    assert_eq!(it.ledger.computes().count(), 1);
}

#[test]
fn one_object_that_says_immutable_is_enough_and_it_must_be_admitted() {
    let mut it = Observed::teams();
    let id: ArmId = arm("rg-a", "id").parse().unwrap();
    assert!(it.ledger.mutable().contains(&id));
    let fixed = |arm: &str| Stated {
        immutable: true,
        ..stated(Some(arm))
    };
    it.change([put(seen("b", "theirs", fixed(&arm("rg-a", "id"))))]);
    assert!(it.ledger.immutable().is_empty(), "b may not speak of it");
    it.change([put(seen("a", "again", fixed(&arm("rg-A", "ID"))))]);
    assert!(it.ledger.immutable().contains(&id) && !it.ledger.mutable().contains(&id));
    it.change([Change::Identity(ObjectName::new("a", "again"), None)]);
    assert!(it.ledger.mutable().contains(&id));
    it.change([Change::Identity(ObjectName::new("a", "id"), None)]);
    assert!(!it.ledger.mutable().contains(&id), "nobody says anything");
}
