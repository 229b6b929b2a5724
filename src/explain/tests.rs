//! The typical mistakes, each with the words that help.

use serde_json::Value;

use super::*;

/// A namespace with a policy, an identity, its binding to a service account, and one pod.
const GOOD: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityPolicy
metadata: {name: shop}
spec:
  namespaces: {matchLabels: {team: shop}}
  resourceIDPrefixes: [/subscriptions/s/resourceGroups/shop]
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentity
metadata: {namespace: shop, name: payments}
spec:
  clientID: 11111111-1111-4111-8111-111111111111
  resourceID: /subscriptions/s/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityBinding
metadata: {namespace: shop, name: payments}
spec:
  identity: payments
  subjects: [{serviceAccounts: [payments], podSelector: {matchLabels: {app: payments}}}]
---
apiVersion: v1
kind: Pod
metadata:
  namespace: shop
  name: payments-6f7c9-x2x4z
  labels: {app: payments, pod-template-hash: 6f7c9}
  annotations: {lanyard.dev/identity: payments}
  ownerReferences: [{controller: true, kind: ReplicaSet, name: payments-6f7c9}]
spec: {nodeName: node-1, serviceAccountName: payments, containers: []}
status: {phase: Running, podIP: 10.244.1.7}
";

/// A second identity, bound to the same pods.
const SECOND: &str = r"
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentity
metadata: {namespace: shop, name: reports}
spec:
  clientID: 22222222-2222-4222-8222-222222222222
  resourceID: /subscriptions/s/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/reports
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityBinding
metadata: {namespace: shop, name: reports}
spec: {identity: reports, subjects: [{podSelector: {}}]}
";

mod host_network;
mod workload;

const NO_ANNOTATION: (&str, &str) = ("  annotations: {lanyard.dev/identity: payments}\n", "");

fn found(text: &str, changes: &[(&str, &str)]) -> Found {
    let mut text = text.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let mut found = Found::default();
    for document in text.split("\n---\n") {
        found.take(serde_saphyr::from_str::<Value>(document).unwrap());
    }
    found
}

fn ask(found: &Found) -> Explanation {
    ask_for(found, Selector::Default, None)
}

fn ask_for(found: &Found, selector: Selector, resource: Option<&str>) -> Explanation {
    let question = Question {
        pod: ObjectName::new("shop", "payments-6f7c9-x2x4z"),
        selector,
        resource: resource.map(str::to_owned),
    };
    let explanation = explain(found, &question);
    // Seen with `--nocapture`: whoever changes the words reads them.
    println!("\n{}\n{}", "=".repeat(100), text(&explanation));
    explanation
}

fn says(explanation: &Explanation, words: &[&str]) {
    let text = text(explanation);
    for words in words {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
}

#[test]
fn as_it_should_be() {
    let explanation = ask(&found(GOOD, &[]));
    assert_eq!(explanation.verdict, Verdict::Granted);
    assert!(explanation.remedies.is_empty());
    says(
        &explanation,
        &[
            "gets tokens of AzureIdentity shop/payments",
            "made by Deployment payments",
            "admitted by AzureIdentityPolicy shop",
        ],
    );
}

#[test]
fn no_binding() {
    let binding = GOOD.split("\n---\n").nth(4).unwrap();
    let explanation = ask(&found(
        GOOD,
        &[(binding, "apiVersion: v1\nkind: ConfigMap"), NO_ANNOTATION],
    ));
    assert_eq!(explanation.verdict, Verdict::Refused);
    says(
        &explanation,
        &[
            "no AzureIdentityBinding names it",
            "there is none",
            "kind: AzureIdentityBinding",
            "- {\"serviceAccounts\":[\"payments\"]}",
        ],
    );
}

#[test]
fn a_binding_in_another_namespace() {
    let changes = [
        (
            "kind: AzureIdentityBinding\nmetadata: {namespace: shop",
            "kind: AzureIdentityBinding\nmetadata: {namespace: other",
        ),
        NO_ANNOTATION,
    ];
    says(
        &ask(&found(GOOD, &changes)),
        &[
            "other/payments fits but for its namespace",
            "namespaceSelector",
        ],
    );
}

#[test]
fn a_slip_in_the_annotations_value() {
    let explanation = ask(&found(
        GOOD,
        &[("identity: payments}", "identity: paymets}")],
    ));
    says(
        &explanation,
        &[
            "the annotation names shop/paymets, but there is no such AzureIdentity",
            "there is shop/payments",
            r#"kubectl -n shop patch deployment payments --type=merge -p '{"spec":{"template":{"metadata":{"annotations":{"lanyard.dev/identity":"payments"}}}}}'"#,
        ],
    );
    assert_eq!(explanation.kind, Some("identity_not_found"));
}

#[test]
fn a_slip_in_the_annotations_key() {
    let keys = ("lanyard.dev/identity", "lanyard.dev/identities");
    let explanation = ask(&found(&format!("{GOOD}{SECOND}"), &[keys]));
    says(
        &explanation,
        &["the annotation lanyard.dev/identities means nothing to Lanyard"],
    );
    let label = [
        NO_ANNOTATION,
        (
            "{app: payments, pod-template-hash",
            "{lanyard.dev/identity: payments, app: payments, pod-template-hash",
        ),
    ];
    says(
        &ask(&found(GOOD, &label)),
        &["is a label of this pod; only the annotation"],
    );
}

#[test]
fn no_policy() {
    let policy = GOOD.split("\n---\n").nth(2).unwrap();
    says(
        &ask(&found(GOOD, &[(policy, "apiVersion: v1\nkind: ConfigMap")])),
        &[
            "there is no AzureIdentityPolicy at all",
            "an operator creates a policy for namespace shop",
            "resourceIDPrefixes: [/subscriptions/s/resourceGroups/shop]",
        ],
    );
}

#[test]
fn a_prefix_that_does_not_fit() {
    let changes = [(
        "resourceIDPrefixes: [/subscriptions/s/resourceGroups/shop]",
        "resourceIDPrefixes: [/subscriptions/s/resourceGroups/shops]",
    )];
    says(
        &ask(&found(GOOD, &changes)),
        &[
            "is not under /subscriptions/s/resourceGroups/shops",
            "kubectl patch azureidentitypolicy shop --type=json",
        ],
    );
}

#[test]
fn an_identity_that_lanyard_made_for_another_object() {
    let made = "userAssignedIdentities/lanyard-c0000000-0000-4000-8000-000000000001-0b000000-0000-4000-8000-000000000002";
    let changes = [("userAssignedIdentities/payments", made)];
    says(
        &ask(&found(GOOD, &changes)),
        &[
            "for another AzureIdentity, and none of its resourceIDPrefixes is that whole id",
            "kubectl patch azureidentitypolicy shop --type=json",
            made,
        ],
    );
}

#[test]
fn a_namespace_that_the_policy_does_not_select() {
    says(
        &ask(&found(
            GOOD,
            &[(
                "name: shop, labels: {team: shop}",
                "name: shop, labels: {team: shopping}",
            )],
        )),
        &["it is not for namespace shop: label team is shopping, not shop"],
    );
}

#[test]
fn a_label_that_does_not_match() {
    let explanation = ask(&found(
        GOOD,
        &[
            (
                "{app: payments, pod-template-hash",
                "{app: payment, pod-template-hash",
            ),
            NO_ANNOTATION,
        ],
    ));
    says(
        &explanation,
        &["podSelector: label app is payment, not payments"],
    );
}

#[test]
fn another_service_account() {
    let changes = [
        ("serviceAccountName: payments", "serviceAccountName: web"),
        NO_ANNOTATION,
    ];
    says(
        &ask(&found(GOOD, &changes)),
        &[
            "serviceAccounts: the pod's is web, not payments",
            r#"kubectl -n shop patch azureidentitybinding payments --type=json -p '[{"op":"add","path":"/spec/subjects/-","value":{"serviceAccounts":["web"]}}]'"#,
        ],
    );
}

#[test]
fn two_identities_and_no_default() {
    let explanation = ask(&found(&format!("{GOOD}{SECOND}"), &[NO_ANNOTATION]));
    assert_eq!(
        (explanation.verdict, explanation.kind),
        (Verdict::Refused, Some("identity_ambiguous"))
    );
    says(
        &explanation,
        &[
            "several identities (payments and reports)",
            "client_id=22222222-2222-4222-8222-222222222222",
            "\"default\":true",
            "AZURE_CLIENT_ID",
        ],
    );
}

#[test]
fn a_client_id_that_is_not_granted() {
    let second = "22222222-2222-4222-8222-222222222222".parse().unwrap();
    let both = found(&format!("{GOOD}{SECOND}"), &[]);
    let explanation = ask_for(&both, Selector::ClientId(second), None);
    assert_eq!(explanation.verdict, Verdict::Refused);
    says(
        &explanation,
        &[
            "name reports in the pod's annotation, too",
            "payments,reports",
        ],
    );
}

#[test]
fn a_resource_that_is_not_allowed() {
    let limited = found(
        GOOD,
        &[(
            "spec:\n  clientID",
            "spec:\n  allowedResources: [https://storage.azure.com]\n  clientID",
        )],
    );
    let explanation = ask_for(&limited, Selector::Default, Some("https://vault.azure.net"));
    assert_eq!(explanation.verdict, Verdict::Refused);
    says(
        &explanation,
        &[
            "only for https://storage.azure.com",
            "/spec/allowedResources/-",
        ],
    );
    let allowed = ask_for(
        &limited,
        Selector::Default,
        Some("https://storage.azure.com/"),
    );
    assert_eq!(allowed.verdict, Verdict::Granted);
}

#[test]
fn a_malformed_identity() {
    let explanation = ask(&found(
        GOOD,
        &[("11111111-1111-4111-8111-111111111111", "not-a-guid")],
    ));
    says(
        &explanation,
        &[
            "is refused: AzureIdentity shop/payments is there, but cannot be used (spec.clientID",
            "shop/payments is there, but cannot be used",
            "spec.clientID: `not-a-guid`",
        ],
    );
}

#[test]
fn a_pod_that_does_not_exist() {
    let question = Question {
        pod: ObjectName::new("shop", "payments"),
        selector: Selector::Default,
        resource: None,
    };
    let explanation = explain(&found(GOOD, &[]), &question);
    assert_eq!(explanation.verdict, Verdict::Unclear);
    says(
        &explanation,
        &["there is no pod shop/payments", "payments-6f7c9-x2x4z"],
    );
}

fn agent(node: &str, ready: &str, args: &[&str]) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "lanyard-system", "name": format!("agent-{node}"),
            "labels": {"app.kubernetes.io/name": "lanyard", "app.kubernetes.io/component": "agent"}},
        "spec": {"nodeName": node, "hostNetwork": true, "containers": [{"args": args}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})
}

#[test]
fn without_a_ready_agent_nothing_is_certain() {
    let mut good = found(GOOD, &[]);
    good.take_agents(&[agent("node-2", "True", &[])]);
    let explanation = ask(&good);
    assert_eq!(explanation.verdict, Verdict::Unclear);
    says(&explanation, &["no Lanyard agent runs on this node"]);
    good.take_agents(&[agent("node-1", "False", &[])]);
    says(
        &ask(&good),
        &["agent lanyard-system/agent-node-1 is not ready"],
    );
    good.take_agents(&[agent(
        "node-1",
        "True",
        &["agent", "--enforcement", "observe"],
    )]);
    let explanation = ask(&good);
    assert_eq!(explanation.verdict, Verdict::Granted);
    says(&explanation, &["the agent only observes"]);
}

#[test]
fn an_identity_that_is_not_on_the_node_yet() {
    let node = r"
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {providerID: 'azure:///subscriptions/s/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachines/node-1'}
";
    let mut pending = found(&format!("{GOOD}---{node}"), &[]);
    pending.take_agents(&[agent(
        "node-1",
        "True",
        &["agent", "--assignments=required"],
    )]);
    assert!(pending.needs_assignments("node-1") && !pending.needs_assignments("node-2"));
    assert_eq!(
        ask(&pending).verdict,
        Verdict::Granted,
        "they do not count yet"
    );
    pending.count_assignments("node-1");
    let explanation = ask(&pending);
    assert_eq!(explanation.verdict, Verdict::Refused);
    assert_eq!(explanation.kind, Some("not_yet_assigned"));
    says(
        &explanation,
        &[
            "(AzureAssignment vm-node-1-",
            "shop/payments is not on the node yet",
            "`kubectl -n shop get azid payments -o wide` says what keeps",
        ],
    );
}

#[test]
fn what_could_not_be_read_is_said() {
    let mut good = found(GOOD, &[]);
    good.unreadable
        .push("azureidentitypolicies cannot be listed: forbidden".to_owned());
    let explanation = ask(&good);
    assert_eq!(explanation.verdict, Verdict::Unclear);
    says(
        &explanation,
        &["azureidentitypolicies cannot be listed: forbidden"],
    );
}

/// What is shown must be what decides: a verdict of `ok` about a binding is a grant's condition.
#[test]
fn json_has_the_same_as_the_text() {
    let explanation = ask(&found(
        GOOD,
        &[("identity: payments}", "identity: paymets}")],
    ));
    let json = json(&explanation);
    assert_eq!(json["verdict"], "refused");
    assert_eq!(json["error"], "identity_not_found");
    assert_eq!(json["pod"], "shop/payments-6f7c9-x2x4z");
    assert!(
        json["remedies"][0]["how"]
            .as_str()
            .unwrap()
            .contains("kubectl")
    );
    assert_eq!(
        json["sections"].as_array().unwrap().len(),
        explanation.sections.len()
    );
}
