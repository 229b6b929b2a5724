//! What a service account's own annotations grant, and what they never do.

use serde_json::json;

use super::*;
use crate::agent::obtain::IdentityKey;
use crate::model::facts::SourceFacts;
use crate::model::grant::Asker;

const IP: &str = "10.0.0.1";

fn of(objects: impl IntoIterator<Item = Object>) -> PodGrants {
    let world = world(base().into_iter().chain(objects));
    grants(&pod_at(&world, IP), &world)
}

fn names(grants: &PodGrants) -> Vec<String> {
    let names = grants.granted.iter();
    names.map(|grant| grant.identity.name.to_string()).collect()
}

#[test]
fn an_account_a_label_and_a_policy_make_a_federated_identity() {
    let grants = of([
        workload_policy("w", "a", &[7]),
        account_of_pod("a", "p", 7),
        workload_pod("a", "p", IP, None),
    ]);
    assert_eq!(names(&grants), ["a/serviceaccount:sa-p"]);
    let grant = &grants.granted[0];
    assert_eq!(grant.identity.client_id.to_string(), guid(7));
    assert_eq!(grant.identity.sources, [SourceFacts::Federated(None)]);
    assert_eq!(&*grant.identity.uid, "uid-a-sa-p");
    assert_eq!(grant.scopes.len(), 1, "only policies that say so bound it");
    assert_eq!(grants.near, None);
}

#[test]
fn each_of_the_three_is_needed() {
    let policy = || workload_policy("w", "a", &[7]);
    let account = || account_of_pod("a", "p", 7);
    let labelled = || workload_pod("a", "p", IP, None);
    let refused = Some((
        ObjectName::new("a", "serviceaccount:sa-p"),
        Missing::NoWorkloadPolicy,
    ));
    let cases = [
        (vec![policy(), account(), pod("a", "p", IP, None)], None),
        (vec![policy(), labelled()], None),
        (
            vec![policy(), account_of_pod("a", "q", 7), labelled()],
            None,
        ),
        (
            vec![policy(), account_of_pod("b", "p", 7), labelled()],
            None,
        ),
        (vec![account(), labelled()], refused.clone()),
        (
            vec![workload_policy("w", "b", &[7]), account(), labelled()],
            refused.clone(),
        ),
        (
            vec![workload_policy("w", "a", &[8]), account(), labelled()],
            refused,
        ),
    ];
    for (objects, near) in cases {
        let what = format!("{objects:?}");
        let grants = of(objects);
        assert_eq!(names(&grants), [""; 0], "{what}");
        assert_eq!(grants.near, near, "{what}");
    }
}

/// A policy that admits the same application as an `AzureIdentity` says nothing about annotations.
#[test]
fn a_policy_counts_only_if_it_says_so_itself() {
    let silent = object(
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy",
        "metadata": {"name": "silent"}, "spec": {"namespaces": {}, "resourceIDPrefixes": ["/subscriptions/"], "clientIDs": [guid(7)]}}),
    );
    let grants = of([
        silent,
        account_of_pod("a", "p", 7),
        workload_pod("a", "p", IP, None),
    ]);
    assert_eq!(names(&grants), [""; 0]);
}

#[test]
fn with_an_annotation_of_ours_only_that_counts() {
    let with = |wanted: &str| {
        let everyone = json!([{"podSelector": {}}]);
        of([
            workload_policy("w", "a", &[7]),
            account_of_pod("a", "p", 7),
            binding("a", "one", &everyone, false),
            workload_pod("a", "p", IP, Some(wanted)),
        ])
    };
    assert_eq!(names(&with("one")), ["a/one"]);
    assert_eq!(names(&with("")), [""; 0]);
    let named = with("serviceaccount:sa-p");
    assert_eq!(names(&named), [""; 0]);
    assert_eq!(named.wanted.unwrap()[0].missing, Some(Missing::NoIdentity));
}

#[test]
fn behind_what_bindings_give() {
    let everyone = json!([{"podSelector": {}}]);
    let grants = of([
        workload_policy("w", "a", &[7]),
        account_of_pod("a", "p", 7),
        workload_pod("a", "p", IP, None),
        identity("a", "zoe", 9),
        binding("a", "zoe", &everyone, false),
    ]);
    assert_eq!(names(&grants), ["a/zoe", "a/serviceaccount:sa-p"]);
}

/// The attack: an account of one's own that names another's client id.
#[test]
fn accounts_with_one_client_id_share_no_token() {
    let of_team = |team: &str, pod: &str| {
        let grants = of([
            workload_policy("w", team, &[7]),
            account_of_pod(team, pod, 7),
            workload_pod(team, pod, IP, None),
        ]);
        let identity = grants.granted[0].identity.clone();
        let asker = Asker::from(&*grants.pod);
        IdentityKey::of(&identity.sources[0], &identity, &asker)
    };
    let theirs = of_team("a", "p");
    assert_ne!(
        theirs,
        of_team("b", "p"),
        "an account of that name elsewhere"
    );
    assert_ne!(
        theirs,
        of_team("a", "q"),
        "another account of the namespace"
    );
    assert_eq!(theirs, of_team("a", "p"));
}

#[test]
fn an_account_that_is_taken_back_grants_nothing_any_more() {
    let account = account_of_pod("a", "p", 7);
    let mut world = world(base().into_iter().chain([
        workload_policy("w", "a", &[7]),
        account.clone(),
        workload_pod("a", "p", IP, None),
    ]));
    let pod = pod_at(&world, IP);
    assert_eq!(grants(&pod, &world).granted.len(), 1);
    let mut touched = Touched::default();
    let gone = Change::Delete(account.key());
    world.change(gone, std::time::Duration::ZERO, &mut touched);
    assert!(touched.namespaces.contains("a"));
    assert_eq!(grants(&pod, &world).granted.len(), 0);
}
