//! What the values about sources of tokens become: flags, files, rights, and the guard beside them.

use serde_json::{Value, json};

use crate::template;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn render(sets: &[&str]) -> Vec<Value> {
    let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    template("lanyard", &args)
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    let named = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(named)
}

fn agent(objects: &[Value]) -> Value {
    let set = find(objects, "DaemonSet", "lanyard-agent").unwrap();
    set["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn azure_becomes_flags_and_a_proxy() {
    let plain = agent(&render(&[]));
    let args = plain["args"].to_string();
    assert!(args.contains("--cloud=public") && args.contains("--workload-identity=false"));
    for absent in ["--tenant-id", "--authority-host", "--azure-ca-file"] {
        assert!(!args.contains(absent), "{args}");
    }
    let told = agent(&render(&[
        "azure.cloud=china",
        "azure.tenantID=72f988bf-0000-4000-8000-00000000000a",
        "azure.authorityHost=https://login.example.com",
        "azure.httpsProxy=http://proxy:3128",
        "azure.noProxy=example.com",
        "agent.workloadIdentity.enabled=true",
    ]));
    let args = told["args"].to_string();
    for flag in [
        "--cloud=china",
        "--tenant-id=72f988bf-0000-4000-8000-00000000000a",
        "--authority-host=https://login.example.com",
        "--workload-identity=true",
    ] {
        assert!(args.contains(flag), "{flag}: {args}");
    }
    let variables = told["env"].as_array().unwrap();
    for (name, value) in [
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("NO_PROXY", "example.com"),
    ] {
        assert!(
            variables.contains(&json!({"name": name, "value": value})),
            "{name}"
        );
    }
}

#[test]
fn a_ca_bundle_is_a_file_and_another_one_is_another_agent() {
    let with = |bundle: &str| {
        template(
            "lanyard",
            &["--set-string", &format!("azure.caBundle={bundle}")],
        )
    };
    let objects = with(PEM);
    let map = find(&objects, "ConfigMap", "lanyard-azure-ca").unwrap();
    assert_eq!(map["data"]["ca.crt"], PEM);
    let container = agent(&objects);
    assert!(
        container["args"]
            .to_string()
            .contains("--azure-ca-file=/etc/lanyard/azure-ca/ca.crt")
    );
    let mounts = container["volumeMounts"].to_string();
    assert!(mounts.contains("\"/etc/lanyard/azure-ca\""), "{mounts}");
    let annotations = |objects: &[Value]| {
        let set = find(objects, "DaemonSet", "lanyard-agent").unwrap();
        set["spec"]["template"]["metadata"]["annotations"].clone()
    };
    assert_ne!(
        annotations(&objects),
        annotations(&with(&PEM.replace("MIIB", "MIIC")))
    );
    assert!(find(&render(&[]), "ConfigMap", "lanyard-azure-ca").is_none());
}

#[test]
fn rights_are_exactly_what_the_lists_say() {
    let plain = render(&[]);
    for (kind, name) in [
        ("Role", "lanyard-agent-secrets"),
        ("Role", "lanyard-agent-tokens"),
    ] {
        assert!(find(&plain, kind, name).is_none(), "{name}");
    }
    assert!(
        !find(&plain, "ClusterRole", "lanyard-agent").unwrap()["rules"]
            .to_string()
            .contains("serviceaccounts")
    );
    let listed = render(&[
        "agent.secrets[0].namespace=shop",
        "agent.secrets[0].names={till,safe}",
        "agent.federated.namespaces={shop,pay}",
        "agent.workloadIdentity.enabled=true",
    ]);
    let secrets = find(&listed, "Role", "lanyard-agent-secrets").unwrap();
    assert_eq!(secrets["metadata"]["namespace"], "shop");
    assert_eq!(
        secrets["rules"],
        json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["till", "safe"], "verbs": ["get", "watch"]}])
    );
    let tokens = |object: &&Value| {
        object["kind"] == "Role" && object["metadata"]["name"] == "lanyard-agent-tokens"
    };
    let tokens: Vec<_> = listed.iter().filter(tokens).collect();
    assert_eq!(tokens.len(), 2);
    for role in tokens {
        assert_eq!(
            role["rules"],
            json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}])
        );
    }
    let cluster = find(&listed, "ClusterRole", "lanyard-agent").unwrap();
    let accounts = json!({"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "list", "watch"]});
    assert!(cluster["rules"].as_array().unwrap().contains(&accounts));
}

#[test]
fn the_guard_is_there_where_agents_may_ask_for_tokens() {
    let parts = [
        ("ValidatingAdmissionPolicy", "lanyard-agent-tokens"),
        ("ValidatingAdmissionPolicyBinding", "lanyard-agent-tokens"),
        ("ValidatingWebhookConfiguration", "lanyard-agent-tokens"),
        ("Deployment", "lanyard-admission"),
        ("Service", "lanyard-admission"),
        ("PodDisruptionBudget", "lanyard-admission"),
        ("ServiceAccount", "lanyard-admission"),
        ("Secret", "lanyard-admission-issuer"),
    ];
    let plain = render(&[]);
    for (kind, name) in parts {
        assert!(find(&plain, kind, name).is_none(), "{kind} {name}");
    }
    for set in [
        "agent.federated.namespaces={shop}",
        "agent.workloadIdentity.enabled=true",
    ] {
        let guarded = render(&[set]);
        for (kind, name) in parts {
            assert!(
                find(&guarded, kind, name).is_some(),
                "{set}: no {kind} {name}"
            );
        }
        let webhook = &find(
            &guarded,
            "ValidatingWebhookConfiguration",
            "lanyard-agent-tokens",
        )
        .unwrap()["webhooks"][0];
        assert_eq!(webhook["failurePolicy"], "Fail");
        // Nothing that would leave a namespace out.
        assert!(webhook["namespaceSelector"].is_null() && webhook["objectSelector"].is_null());
        let labels = &find(
            &guarded,
            "ValidatingWebhookConfiguration",
            "lanyard-agent-tokens",
        )
        .unwrap()["metadata"]["labels"];
        assert_eq!(labels["admissions.enforcer/disabled"], "true");
        assert!(webhook["clientConfig"]["caBundle"].is_string());
    }
}

#[test]
fn the_webhooks_pod_has_no_more_than_it_needs() {
    let objects = render(&["agent.federated.namespaces={shop}"]);
    let role = find(&objects, "ClusterRole", "lanyard-admission").unwrap();
    assert_eq!(
        role["rules"],
        json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    );
    let deployment = &find(&objects, "Deployment", "lanyard-admission").unwrap()["spec"];
    assert_eq!(deployment["replicas"], 2);
    let pod = &deployment["template"]["spec"];
    assert!(pod["hostNetwork"].is_null() && pod["volumes"].as_array().unwrap().len() == 1);
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
}

/// A certificate of one's own: none is made, and its authority may be written by somebody else.
#[test]
fn a_certificate_of_ones_own_is_used_and_none_is_made() {
    let objects = render(&[
        "agent.federated.namespaces={shop}",
        "admission.certificate.existingSecret=own",
        "admission.annotations.cert-manager\\.io/inject-ca-from=lanyard-system/own",
    ]);
    assert!(find(&objects, "Secret", "lanyard-admission-issuer").is_none());
    let webhook = find(
        &objects,
        "ValidatingWebhookConfiguration",
        "lanyard-agent-tokens",
    )
    .unwrap();
    assert!(webhook["webhooks"][0]["clientConfig"]["caBundle"].is_null());
    assert_eq!(
        webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
        "lanyard-system/own"
    );
    let deployment = find(&objects, "Deployment", "lanyard-admission").unwrap();
    let volume = &deployment["spec"]["template"]["spec"]["volumes"][0];
    assert_eq!(volume["secret"]["secretName"], "own");
}
