//! The decision table of the design.

use serde_json::json;

use super::super::grants::grants;
use super::super::testkit::*;
use super::*;
use crate::api::object::Object;
use crate::model::query::Dialect;

const EVERYONE: &str = r#"[{"podSelector": {}}]"#;

/// Decides for the pod at 10.0.0.1 of namespace `a`; identities by (name, client id, default).
fn decide(
    annotation: Option<&str>,
    identities: &[(&str, u8, bool)],
    selector: Selector,
) -> Result<(String, Chosen), Refusal> {
    let subjects = serde_json::from_str(EVERYONE).unwrap();
    let mut objects = vec![
        namespace("a", "a"),
        namespace("b", "b"),
        policy("all", "a", &["/subscriptions"]),
        policy("all-b", "b", &["/subscriptions"]),
        pod("a", "p", "10.0.0.1", annotation),
        identity("b", "far", 1),
        binding(
            "b",
            "far",
            &json!([{"namespaceSelector": {"matchLabels": {"team": "a"}}}]),
            false,
        ),
    ];
    for (name, n, default) in identities {
        objects.push(identity("a", name, *n));
        objects.push(binding("a", name, &subjects, *default));
    }
    decide_in(objects, selector)
}

fn decide_in(objects: Vec<Object>, selector: Selector) -> Result<(String, Chosen), Refusal> {
    let world = world(objects);
    let grants = grants(&pod_at(&world, "10.0.0.1"), &world);
    let query = TokenQuery {
        dialect: Dialect::Imds,
        resource: "https://vault.azure.net".into(),
        selector,
        claims: None,
        bypass_cache: false,
    };
    match select(&grants, &query) {
        Decision::Granted(grant, chosen) => Ok((grant.identity.name.to_string(), chosen)),
        Decision::Refused(refusal) => Err(refusal),
    }
}

fn client(n: u8) -> Selector {
    Selector::ClientId(guid(n).parse().unwrap())
}

#[test]
fn without_a_selector() {
    let name = |name: &str, why| Ok((format!("a/{name}"), why));
    let default = Selector::Default;
    assert_eq!(
        decide(None, &[], default.clone()),
        Err(Refusal::NothingGranted(None))
    );
    assert_eq!(
        decide(None, &[("x", 1, false)], default.clone()),
        name("x", Chosen::OnlyOne)
    );
    let two = [("x", 1, false), ("y", 2, false)];
    assert_eq!(decide(None, &two, default.clone()), Err(Refusal::Ambiguous));
    let one_default = [("x", 1, false), ("y", 2, true)];
    assert_eq!(
        decide(None, &one_default, default.clone()),
        name("y", Chosen::DefaultBinding)
    );
    let two_defaults = [("x", 1, true), ("y", 2, true)];
    assert_eq!(
        decide(None, &two_defaults, default.clone()),
        Err(Refusal::Ambiguous)
    );
    assert_eq!(
        decide(Some("y,x"), &two, default.clone()),
        name("y", Chosen::FirstInAnnotation)
    );
    assert_eq!(
        decide(Some("x"), &one_default, default.clone()),
        name("x", Chosen::FirstInAnnotation)
    );
    assert_eq!(
        decide(Some(""), &two, default),
        Err(Refusal::NothingGranted(None))
    );
}

#[test]
fn an_ungranted_name_in_the_annotation_refuses_and_never_slides() {
    for annotation in ["ghost,x", "x,ghost"] {
        let refusal = decide(Some(annotation), &[("x", 1, false)], Selector::Default).unwrap_err();
        assert!(
            matches!(refusal, Refusal::AnnotationNotGranted(ref name, _) if &*name.name == "ghost")
        );
        // Naming the granted one still works.
        let named = decide(Some(annotation), &[("x", 1, false)], client(1));
        assert_eq!(named, Ok(("a/x".into(), Chosen::ByRequest)));
    }
}

#[test]
fn a_selector_picks_inside_what_is_granted_and_annotated() {
    let two = [("x", 1, false), ("y", 2, false)];
    assert_eq!(
        decide(None, &two, client(2)),
        Ok(("a/y".into(), Chosen::ByRequest))
    );
    assert_eq!(decide(Some("x"), &two, client(2)), Err(Refusal::NotGranted));
    assert_eq!(decide(None, &two, client(3)), Err(Refusal::NotGranted));
    assert_eq!(
        decide(None, &two, Selector::Unmatchable),
        Err(Refusal::NotGranted)
    );
    assert_eq!(
        decide(None, &[], client(1)),
        Err(Refusal::NothingGranted(None)),
        "b/far is not the pod's"
    );
    let object = Selector::ObjectId(guid(102).parse().unwrap());
    assert_eq!(
        decide(None, &two, object),
        Ok(("a/y".into(), Chosen::ByRequest))
    );
    let arm = Selector::ResourceId(
        arm("RG-A", "Y")
            .to_uppercase()
            .replace("/SUBSCRIPTIONS", "/subscriptions")
            .parse()
            .unwrap(),
    );
    assert_eq!(
        decide(None, &two, arm),
        Ok(("a/y".into(), Chosen::ByRequest))
    );
}

#[test]
fn equal_client_ids_own_namespace_first_then_name_order() {
    assert_eq!(
        decide(Some("b/far,x"), &[("x", 1, false)], client(1))
            .unwrap()
            .0,
        "a/x"
    );
    assert_eq!(
        decide(None, &[("y", 1, false), ("x", 1, false)], client(1))
            .unwrap()
            .0,
        "a/x"
    );
    assert_eq!(
        decide(Some("b/far"), &[("x", 1, false)], client(1))
            .unwrap()
            .0,
        "b/far"
    );
}

#[test]
fn allowed_resources_limit_the_audience_whatever_its_slash_or_case() {
    let with = |allowed: &str| {
        let identity = object(
            json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
            "metadata": {"namespace": "a", "name": "x"},
            "spec": {"clientID": guid(1), "allowedResources": [allowed]}}),
        );
        let subjects = serde_json::from_str(EVERYONE).unwrap();
        decide_in(
            vec![
                namespace("a", "a"),
                policy("p", "a", &["/subscriptions"]),
                pod("a", "p", "10.0.0.1", None),
                identity,
                binding("a", "x", &subjects, false),
            ],
            Selector::Default,
        )
    };
    assert!(with("https://Vault.azure.net/").is_ok());
    assert!(matches!(
        with("https://management.azure.com/"),
        Err(Refusal::ResourceNotAllowed(_))
    ));
}

#[test]
fn refusals_read_like_azures() {
    let fault = Refusal::NotGranted.fault();
    assert_eq!(
        (fault.kind, &*fault.public, fault.retry_after),
        (FaultKind::IdentityNotFound, "Identity not found", None)
    );
}

#[test]
fn a_binding_that_gives_nothing_is_told_with_what_is_missing() {
    let everyone = serde_json::from_str(EVERYONE).unwrap();
    let base = || {
        vec![
            namespace("a", "a"),
            pod("a", "p", "10.0.0.1", None),
            binding("a", "x", &everyone, false),
        ]
    };
    let near = |missing| {
        Err(Refusal::NothingGranted(Some((
            ObjectName::new("a", "x"),
            missing,
        ))))
    };
    assert_eq!(
        decide_in(base(), Selector::Default),
        near(Missing::NoIdentity)
    );
    let mut unadmitted = base();
    unadmitted.push(identity("a", "x", 1));
    assert_eq!(
        decide_in(unadmitted, Selector::Default),
        near(Missing::NoPolicy)
    );
}

/// Bindings come first; the service account's own answers only where none names the pod.
#[test]
fn a_service_accounts_own_identity() {
    let everyone = json!([{"podSelector": {}}]);
    let decide = |more: Vec<Object>, selector| {
        let mut objects = vec![
            namespace("a", "a"),
            policy("all", "a", &["/subscriptions"]),
            workload_policy("w", "a", &[7]),
            account_of_pod("a", "p", 7),
            workload_pod("a", "p", "10.0.0.1", None),
        ];
        objects.extend(more);
        decide_in(objects, selector)
    };
    let own = |why| Ok(("a/serviceaccount:sa-p".to_owned(), why));
    let one = || vec![identity("a", "x", 1), binding("a", "x", &everyone, false)];
    assert_eq!(
        decide(vec![], Selector::Default),
        own(Chosen::ServiceAccount)
    );
    assert_eq!(decide(vec![], client(7)), own(Chosen::ByRequest));
    assert_eq!(decide(vec![], client(1)), Err(Refusal::NotGranted));
    let bound = Ok(("a/x".to_owned(), Chosen::OnlyOne));
    assert_eq!(decide(one(), Selector::Default), bound);
    assert_eq!(decide(one(), client(7)), own(Chosen::ByRequest));
    let mut two = one();
    two.extend([identity("a", "y", 2), binding("a", "y", &everyone, false)]);
    assert_eq!(decide(two, Selector::Default), Err(Refusal::Ambiguous));
    // A binding to the same client id is a binding.
    let same = vec![identity("a", "x", 7), binding("a", "x", &everyone, false)];
    assert_eq!(
        decide(same, client(7)),
        Ok(("a/x".to_owned(), Chosen::ByRequest))
    );
    // A binding that gives nothing is told, never slid over to another identity.
    let broken = || vec![binding("a", "gone", &everyone, false)];
    let near = (ObjectName::new("a", "gone"), Missing::NoIdentity);
    assert_eq!(
        decide(broken(), Selector::Default),
        Err(Refusal::NothingGranted(Some(near)))
    );
    assert_eq!(decide(broken(), client(7)), own(Chosen::ByRequest));
}

#[test]
fn an_account_that_no_policy_lets_count_is_named_in_the_refusal() {
    let refusal = decide_in(
        vec![
            namespace("a", "a"),
            account_of_pod("a", "p", 7),
            workload_pod("a", "p", "10.0.0.1", None),
        ],
        Selector::Default,
    );
    let detail = refusal.unwrap_err().fault().detail;
    assert_eq!(
        detail,
        "nothing is granted to this pod: the annotations of service account a/sa-p name an identity, \
         but no AzureIdentityPolicy with workloadIdentity: true admits it for its namespace"
    );
}
