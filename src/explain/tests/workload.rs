//! Service accounts set up for Azure Workload Identity, and what identities that are not on the node
//! need.

use super::*;

const POLICY: &str = r"
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityPolicy
metadata: {name: workload}
spec:
  namespaces: {matchLabels: {team: shop}}
  clientIDs: [33333333-3333-4333-8333-333333333333]
  workloadIdentity: true
";

const ACCOUNT: &str = r"
---
apiVersion: v1
kind: ServiceAccount
metadata:
  namespace: shop
  name: payments
  uid: uid-account
  annotations:
    azure.workload.identity/client-id: 33333333-3333-4333-8333-333333333333
";

/// No annotation of ours, no binding; the label as the webhook of Azure Workload Identity wants it.
fn set_up(more: &str, changes: &[(&str, &str)]) -> Found {
    found(&manifests(more), &[&labelled(), changes].concat())
}

fn manifests(more: &str) -> String {
    format!("{GOOD}{more}")
}

fn labelled() -> [(&'static str, &'static str); 3] {
    [
        NO_ANNOTATION,
        (
            "subjects: [{serviceAccounts: [payments]",
            "subjects: [{serviceAccounts: [nobody]",
        ),
        (
            "{app: payments, pod-template-hash",
            "{azure.workload.identity/use: 'true', app: payments, pod-template-hash",
        ),
    ]
}

#[test]
fn an_account_that_counts_is_explained_with_what_to_register() {
    let explanation = ask(&set_up(&format!("{POLICY}{ACCOUNT}"), &[]));
    assert_eq!(explanation.verdict, Verdict::Granted);
    says(
        &explanation,
        &[
            "gets tokens of the identity of service account shop/payments (client id 33333333-3333-4333-8333-333333333333): named by its service account's annotations.",
            "the pod asks for it: azure.workload.identity/use=true",
            "is admitted by AzureIdentityPolicy workload",
            "where the agent runs with --workload-identity",
            "subject system:serviceaccount:shop:payments, audience api://AzureADTokenExchange",
            "az identity federated-credential create --name shop-payments --identity-name NAME --resource-group GROUP --issuer ISSUER --subject system:serviceaccount:shop:payments --audiences api://AzureADTokenExchange",
            "az ad app federated-credential create --id 33333333-3333-4333-8333-333333333333",
            "ISSUER is what this says",
            "client_id=33333333-3333-4333-8333-333333333333  gets shop/serviceaccount:payments",
        ],
    );
}

#[test]
fn each_condition_that_fails_is_named_with_what_to_change() {
    let without_policy = ask(&set_up(ACCOUNT, &[]));
    assert_eq!(without_policy.verdict, Verdict::Refused);
    says(
        &without_policy,
        &[
            "the annotations of service account shop/payments name an identity, but no AzureIdentityPolicy with workloadIdentity: true",
            "it does not say workloadIdentity: true",
            r#"kubectl patch azureidentitypolicy shop --type=merge -p '{"spec":{"workloadIdentity":true}}'"#,
            "clientIDs: [\"33333333-3333-4333-8333-333333333333\"]\n  workloadIdentity: true",
        ],
    );
    let malformed = (
        "client-id: 33333333-3333-4333-8333-333333333333",
        "client-id: payments",
    );
    let malformed = ask(&set_up(&format!("{POLICY}{ACCOUNT}"), &[malformed]));
    assert_eq!(malformed.verdict, Verdict::Refused);
    says(
        &malformed,
        &[
            "of its service account shop/payments nothing counts: its annotations cannot be used (metadata.annotations[azure.workload.identity/client-id]: `payments` is not a GUID",
            "To change this: correct the annotations of service account shop/payments",
            "kubectl -n shop annotate --overwrite serviceaccount payments azure.workload.identity/client-id=",
        ],
    );
    let plain = ask(&set_up(POLICY, &[]));
    says(
        &plain,
        &[
            "nothing counts: it has no annotation azure.workload.identity/client-id",
            "let service account shop/payments name an identity",
        ],
    );
    let unlabelled = found(&format!("{GOOD}{POLICY}{ACCOUNT}"), &labelled()[..2]);
    let unlabelled = ask(&unlabelled);
    assert_eq!(unlabelled.verdict, Verdict::Refused);
    says(
        &unlabelled,
        &[
            "the label azure.workload.identity/use=true is missing",
            r#"{"labels":{"azure.workload.identity/use":"true"}}"#,
        ],
    );
    let spelled = set_up(
        &format!("{POLICY}{ACCOUNT}"),
        &[("use: 'true'", "use: 'True'")],
    );
    says(&ask(&spelled), &["is \"True\"; only \"true\" counts"]);
}

#[test]
fn what_a_policy_must_list_for_an_application_and_its_authority() {
    let identity = "resourceID: /subscriptions/s/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments";
    let sources = "tenantID: 22222222-2222-4222-8222-222222222222\n  tokenSources: [{servicePrincipal: {secretRef: {name: app}}}]";
    let abroad = format!("{sources}\n  authorityHost: https://login.microsoftonline.us");
    let prefixes = "resourceIDPrefixes: [/subscriptions/s/resourceGroups/shop]";
    let others = "clientIDs: [33333333-3333-4333-8333-333333333333]";
    says(
        &ask(&found(GOOD, &[(identity, sources), (prefixes, others)])),
        &[
            "an application has no resourceID",
            r#"[{"op":"add","path":"/spec/clientIDs/-","value":"11111111-1111-4111-8111-111111111111"}]"#,
            "clientIDs: [\"11111111-1111-4111-8111-111111111111\"]",
        ],
    );
    let own = "clientIDs: [11111111-1111-4111-8111-111111111111]";
    says(
        &ask(&found(
            GOOD,
            &[(identity, abroad.as_str()), (prefixes, own)],
        )),
        &[
            r#"[{"op":"add","path":"/spec/authorityHosts","value":["https://login.microsoftonline.us"]}]"#,
            "authorityHosts: [\"https://login.microsoftonline.us\"]",
        ],
    );
}

#[test]
fn an_agent_that_does_not_look_is_named() {
    for (args, verdict) in [
        (
            &["agent", "--workload-identity=false"][..],
            Verdict::Refused,
        ),
        (&["agent", "--workload-identity=true"], Verdict::Granted),
    ] {
        let mut good = Found::default();
        good.take_agents(&[agent("node-1", "True", args)]);
        for document in with(&manifests(&format!("{POLICY}{ACCOUNT}"))).split("\n---\n") {
            good.take(serde_saphyr::from_str::<Value>(document).unwrap());
        }
        let explanation = ask(&good);
        assert_eq!(explanation.verdict, verdict, "{args:?}");
        if verdict == Verdict::Refused {
            says(
                &explanation,
                &[
                    "nothing counts: the agent does not look at service accounts",
                    "--set agent.workloadIdentity.enabled=true",
                ],
            );
        }
    }
}

fn with(text: &str) -> String {
    labelled()
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn bindings_come_first() {
    let changes = [labelled()[0], labelled()[2]];
    let both = found(&format!("{GOOD}{POLICY}{ACCOUNT}"), &changes);
    let explanation = ask(&both);
    assert_eq!(explanation.verdict, Verdict::Granted);
    says(
        &explanation,
        &[
            "gets tokens of AzureIdentity shop/payments",
            "bindings come first",
        ],
    );
    let annotated = found(&format!("{GOOD}{POLICY}{ACCOUNT}"), &changes[1..]);
    says(
        &ask(&annotated),
        &["annotation lanyard.dev/identity decides alone"],
    );
}

const SOURCES: (&str, &str) = (
    "spec:\n  clientID",
    "spec:\n  tokenSources: [{federated: {}}, {servicePrincipal: {certificateRef: {name: till}}}, {imds: {}}]\n  tenantID: 11111111-0000-4000-8000-000000000001\n  clientID",
);

#[test]
fn what_sources_need_is_told_and_whether_agents_may() {
    let name = ObjectName::new("shop", "payments-6f7c9-x2x4z");
    let mut sources = found(GOOD, &[SOURCES]);
    let needs = needs(&sources, &name);
    assert!(needs.issuer && needs.roles.contains("shop"));
    assert_eq!(super::needs(&found(GOOD, &[]), &name), Needs::default());
    sources.issuer = Some("https://issuer.example/a b".to_owned());
    says(
        &ask(&sources),
        &[
            "shop/payments: the token of service account shop/payments is exchanged at Entra ID (federated)",
            "az identity federated-credential create --name shop-payments --identity-name payments --resource-group shop --subscription s --issuer 'https://issuer.example/a b' --subject",
            "shop/payments, else: a service principal's credential in Secret shop/till, keys tls.crt and tls.key",
            "shop/payments, else: the node's metadata service (imds)",
        ],
    );
    let mut agent = agent("node-1", "True", &["agent"]);
    agent["spec"]["serviceAccountName"] = "lanyard-agent".into();
    sources.take_agents(&[agent]);
    says(
        &ask(&sources),
        &[
            "Roles in shop cannot be listed: whether agents may read Secret shop/till is not known",
            "kubectl auth can-i get secrets/till -n shop --as=system:serviceaccount:lanyard-system:lanyard-agent",
        ],
    );
    let role = serde_json::json!({"metadata": {"labels": {"app.kubernetes.io/name": "lanyard", "app.kubernetes.io/component": "agent"}},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["till"], "verbs": ["get", "watch"]}]});
    sources.rights.take("shop", &[role]);
    says(
        &ask(&sources),
        &[
            "the chart's Role lets agents read Secret shop/till",
            "no Role of the chart's in shop lets agents ask for tokens of service accounts in shop",
            "agent.federated.namespaces: [shop]",
            "kubectl auth can-i create serviceaccounts --subresource=token -n shop",
        ],
    );
}

/// In a folder there is nobody who may.
#[test]
fn identities_of_the_node_need_nothing() {
    let text = text(&ask(&found(GOOD, &[])));
    assert!(!text.contains("Where tokens come from"), "{text}");
}
