//! From reports to manifests that the API takes.

use serde_json::Value;

use super::*;
use crate::agent::observe::table::Answerer;
use crate::api::object;

const GROUP: &str = "/subscriptions/s/resourceGroups/shop";

fn line(account: &str, what: What, answerer: Option<Answerer>, count: u64) -> Line {
    Line {
        who: Who {
            namespace: "shop".to_owned(),
            service_account: account.to_owned(),
        },
        what,
        answerer,
        refusal: "identity_not_found".to_owned(),
        status: 200,
        count,
        pods: vec![format!("{account}-1")],
        labels: [("app".to_owned(), "web".to_owned())].into(),
    }
}

fn token(selector: Option<&str>) -> What {
    What::Token {
        resource: "https://vault.azure.net".to_owned(),
        selector: selector.map(str::to_owned),
    }
}

fn path(path: &str) -> What {
    What::Path {
        path: path.to_owned(),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "what a line holds is optional")]
fn identity(name: &str, n: u8) -> Option<Answerer> {
    Some(Answerer {
        client_id: Some(format!("00000000-0000-4000-8000-0000000000{n:02x}")),
        resource_id: Some(format!(
            "{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )),
        tenant_id: None,
    })
}

fn gathered(lines: Vec<Line>) -> Gathered {
    let mut gathered = Gathered::default();
    let report = Report {
        observing: true,
        lines,
        untold: 0,
    };
    gathered.take("node-1", report);
    gathered
}

/// The manifests in the YAML, each taken by the API.
fn manifests(yaml: &str) -> Vec<(String, String)> {
    println!("{yaml}");
    let documents = yaml
        .split("---\n")
        .map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    let documents = documents.filter(|document| !document.is_null());
    documents
        .map(|document| {
            let key = object::read(document, "1").unwrap().unwrap().key();
            (key.kind.singular().to_owned(), key.name.name.to_string())
        })
        .collect()
}

fn kinds(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(kind, _)| kind.as_str()).collect()
}

#[test]
fn a_token_of_a_user_assigned_identity_needs_policy_identity_and_binding() {
    let mut all = gathered(vec![line(
        "payments",
        token(None),
        identity("Pay_ments", 1),
        400,
    )]);
    let again = line("payments", token(None), identity("Pay_ments", 1), 12);
    all.take(
        "node-2",
        Report {
            observing: true,
            lines: vec![again],
            untold: 0,
        },
    );
    all.silent
        .push(("node-3".to_owned(), "no answer".to_owned()));
    let yaml = yaml(&all);
    let found = manifests(&yaml);
    assert_eq!(
        kinds(&found),
        [
            "AzureIdentityPolicy",
            "AzureIdentity",
            "AzureIdentityBinding"
        ]
    );
    assert_eq!(found[1].1, "pay-ments");
    for words in [
        "412 times a token for https://vault.azure.net, naming no identity",
        "NOT ASKED: node-3: no answer",
        "FOR AN OPERATOR",
        "resourceIDPrefixes: [/subscriptions/s/resourceGroups/shop]",
        "- serviceAccounts: [payments]",
    ] {
        assert!(yaml.contains(words), "{words}");
    }
    assert!(!yaml.contains("default: true"));
}

#[test]
fn who_used_two_gets_the_one_that_answered_unnamed_requests_as_default() {
    let named = token(Some("client_id=00000000-0000-4000-8000-000000000002"));
    let yaml = yaml(&gathered(vec![
        line("web", token(None), identity("payments", 1), 3),
        line("web", named, identity("reports", 2), 2),
    ]));
    manifests(&yaml);
    let binding = yaml
        .split("---\n")
        .find(|text| text.contains("default: true"))
        .unwrap();
    assert!(binding.contains("identity: payments"));
    assert_eq!(yaml.matches("default: true").count(), 1);
}

#[test]
fn the_nodes_own_identity_is_told_and_never_granted() {
    let node = Some(Answerer {
        client_id: Some("00000000-0000-4000-8000-0000000000ff".to_owned()),
        resource_id: Some(format!(
            "{GROUP}/providers/Microsoft.Compute/virtualMachines/node-1"
        )),
        tenant_id: None,
    });
    let yaml = yaml(&gathered(vec![line("web", token(None), node, 3)]));
    assert!(manifests(&yaml).is_empty());
    assert!(yaml.contains("the node's own identity, which Lanyard gives to nobody"));
    assert!(!yaml.contains("0000000000ff"));
}

#[test]
fn paths_become_an_exception_without_the_nodes_secrets() {
    let yaml = yaml(&gathered(vec![
        line("web", path("/metadata/instance/compute/location"), None, 3),
        line("web", path("/metadata/instance/compute/userdata"), None, 1),
    ]));
    assert_eq!(kinds(&manifests(&yaml)), ["AzureMetadataException"]);
    assert!(yaml.contains("paths: [/metadata/instance/compute/location]\n"));
    assert!(yaml.contains("Left out: /metadata/instance/compute/userdata"));
}

#[test]
fn the_default_service_account_is_told_apart_by_labels() {
    let yaml = yaml(&gathered(vec![line(
        "default",
        token(None),
        identity("payments", 1),
        1,
    )]));
    manifests(&yaml);
    assert!(yaml.contains("- podSelector: {matchLabels: {app: web}}"));
}

#[test]
fn what_imds_refused_too_and_hostile_words_do_no_harm() {
    let hostile = What::Token {
        resource: "x\n---\nkind: Secret".to_owned(),
        selector: None,
    };
    let mut refused = line("web", hostile.clone(), None, 2);
    refused.status = 400;
    let other = What::Other {
        fault: "metadata_header_missing".to_owned(),
    };
    let yaml = yaml(&gathered(vec![
        refused,
        line("web", hostile, identity("on", 3), 1),
        line("web", other, None, 9),
    ]));
    let found = manifests(&yaml);
    assert_eq!(
        kinds(&found),
        [
            "AzureIdentityPolicy",
            "AzureIdentity",
            "AzureIdentityBinding"
        ]
    );
    assert!(yaml.contains("9 times what Lanyard answers with metadata_header_missing"));
}

#[test]
fn nobody_observing_is_said() {
    let mut all = Gathered::default();
    all.take("node-1", Report::default());
    assert!(yaml(&all).contains("No agent that observes was asked"));
}
