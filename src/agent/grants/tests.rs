//! Who is granted what: a table of worlds.

use serde_json::json;

use super::super::testkit::*;
use super::super::touched::Touched;
use super::*;
use crate::agent::world::Change;
use crate::api::object::Object;

mod accounts;

/// Team namespaces `a` and `b`, with a policy each, identity and binding per namespace.
fn base() -> Vec<Object> {
    vec![
        namespace("a", "a"),
        namespace("b", "b"),
        policy("a", "a", &["/subscriptions/s/resourceGroups/rg-a"]),
        policy("b", "b", &["/subscriptions/s/resourceGroups/rg-b"]),
        identity("a", "one", 1),
        identity("b", "two", 2),
    ]
}

fn granted(objects: impl IntoIterator<Item = Object>) -> Vec<String> {
    let world = world(base().into_iter().chain(objects));
    let grants = grants(&pod_at(&world, "10.0.0.1"), &world);
    grants
        .granted
        .iter()
        .map(|grant| grant.identity.name.to_string())
        .collect()
}

fn missing(objects: impl IntoIterator<Item = Object>) -> Option<Missing> {
    let world = world(base().into_iter().chain(objects));
    grants(&pod_at(&world, "10.0.0.1"), &world)
        .wanted
        .expect("an annotation")[0]
        .missing
}

#[test]
fn a_binding_grants_what_its_subjects_name() {
    let app = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    let cases = [
        (json!([app("p")]), true),
        (json!([app("q")]), false),
        (json!([app("q"), app("p")]), true),
        (json!([{"serviceAccounts": ["sa-p"]}]), true),
        (json!([{"serviceAccounts": ["sa-q"]}]), false),
        (
            json!([{"podSelector": {"matchLabels": {"app": "p"}}, "serviceAccounts": ["sa-q"]}]),
            false,
        ),
        (json!([{"podSelector": {}}]), true),
        (
            json!([{"namespaceSelector": {"matchLabels": {"team": "a"}}}]),
            true,
        ),
        (
            json!([{"namespaceSelector": {"matchLabels": {"team": "b"}}}]),
            false,
        ),
        (
            json!([{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "p"]}]}}]),
            true,
        ),
        (
            json!([{"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["p"]}]}}]),
            false,
        ),
        (
            json!([{"podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}]),
            false,
        ),
    ];
    for (subjects, expected) in cases {
        let granted = granted([
            pod("a", "p", "10.0.0.1", None),
            binding("a", "one", &subjects, false),
        ]);
        assert_eq!(granted == ["a/one"], expected, "{subjects}");
    }
}

#[test]
fn nothing_is_allowed_without_a_policy_that_covers_it() {
    let everyone = json!([{"podSelector": {}}]);
    let with = |resource_group: &str, team: &str| {
        let objects = [
            namespace("c", "c"),
            policy(
                "c",
                team,
                &[&format!("/subscriptions/s/resourceGroups/{resource_group}")],
            ),
            identity("c", "three", 3),
            binding("c", "three", &everyone, false),
            pod("c", "p", "10.0.0.1", Some("three")),
        ];
        missing(objects)
    };
    assert_eq!(with("rg-c", "c"), None);
    assert_eq!(
        with("rg-c", "d"),
        Some(Missing::NoPolicy),
        "a policy for other namespaces"
    );
    assert_eq!(
        with("rg-b", "c"),
        Some(Missing::NoPolicy),
        "another team's resource group"
    );
    assert_eq!(
        with("rg", "c"),
        Some(Missing::NoPolicy),
        "a prefix that ends inside a segment"
    );
}

#[test]
fn a_namespace_that_is_not_known_admits_nothing() {
    let subjects = json!([{"podSelector": {}}]);
    let objects = [
        object(
            json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy", "metadata": {"name": "all"},
            "spec": {"namespaces": {"matchExpressions": [{"key": "quarantine", "operator": "DoesNotExist"}]}, "resourceIDPrefixes": ["/subscriptions"]}}),
        ),
        identity("lost", "three", 3),
        binding("lost", "three", &subjects, false),
        pod("lost", "p", "10.0.0.1", Some("three")),
    ];
    assert_eq!(missing(objects), Some(Missing::NoPolicy));
}

/// Nobody can push an identity into somebody else's pods.
#[test]
fn another_namespaces_grant_counts_only_where_the_annotation_names_it() {
    let to_a = json!([{"namespaceSelector": {"matchLabels": {"team": "a"}}}]);
    let cross = || binding("b", "two", &to_a, true);
    let own = || binding("a", "one", &json!([{"podSelector": {}}]), false);
    assert_eq!(
        granted([pod("a", "p", "10.0.0.1", None), own(), cross()]),
        ["a/one"]
    );
    assert_eq!(
        granted([pod("a", "p", "10.0.0.1", Some("b/two")), own(), cross()]),
        ["b/two"]
    );
    assert_eq!(
        granted([pod("a", "p", "10.0.0.1", Some("b/two,one")), own(), cross()]),
        ["a/one", "b/two"]
    );
    assert_eq!(
        missing([pod("a", "p", "10.0.0.1", Some("two")), own(), cross()]),
        Some(Missing::NoIdentity)
    );
    let without = [pod("a", "p", "10.0.0.1", Some("b/two")), own()];
    assert_eq!(missing(without), Some(Missing::NoBinding));
}

#[test]
fn the_first_sight_of_an_identity_is_kept_until_it_is_another_one() {
    let mut world = world(base());
    let name = ObjectName::new("a", "one");
    world.change(
        Change::Apply(identity("a", "one", 1)),
        std::time::Duration::from_secs(50),
        &mut Touched::default(),
    );
    assert_eq!(world.identity(&name).unwrap().first_seen.as_secs(), 1);
    world.change(
        Change::Apply(identity("a", "one", 9)),
        std::time::Duration::from_secs(61),
        &mut Touched::default(),
    );
    assert_eq!(world.identity(&name).unwrap().first_seen.as_secs(), 61);
}
