//! The webhook that adds App Service's variables, as the chart runs it: where it is, what it is asked
//! about, and that neither half of the Deployment has the other's rights.

use clap::Parser as _;
use lanyard::cli::Cli;
use serde_json::{Value, json};

use crate::controller::{find, render};

const ON: &str = "appService.enabled=true";
const GUARDED: &str = "agent.federated.namespaces={shop}";

fn pod(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "lanyard-admission")["spec"]["template"]["spec"]
}

fn args(objects: &[Value]) -> Vec<&str> {
    let args = pod(objects)["containers"][0]["args"].as_array().unwrap();
    args.iter().map(|arg| arg.as_str().unwrap()).collect()
}

fn has(objects: &[Value], kind: &str, name: &str) -> bool {
    let named = |object: &Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().any(named)
}

fn webhook(objects: &[Value]) -> &Value {
    &find(
        objects,
        "MutatingWebhookConfiguration",
        "lanyard-app-service",
    )["webhooks"][0]
}

#[test]
fn it_is_there_where_it_is_asked_for() {
    for sets in [&[][..], &[GUARDED], &["appService.enabled=false"]] {
        let objects = render(sets);
        let mutating = |object: &Value| object["kind"] == "MutatingWebhookConfiguration";
        assert!(!objects.iter().any(mutating), "{sets:?}");
        let admits = sets.contains(&GUARDED);
        assert_eq!(has(&objects, "Deployment", "lanyard-admission"), admits);
        assert!(!admits || !args(&objects).contains(&"--app-service"));
    }
    for sets in [&[ON][..], &[ON, GUARDED]] {
        let objects = render(sets);
        for kind in [
            "Deployment",
            "Service",
            "ServiceAccount",
            "PodDisruptionBudget",
        ] {
            assert!(has(&objects, kind, "lanyard-admission"), "{sets:?}: {kind}");
        }
        assert!(args(&objects).contains(&"--app-service"));
    }
}

#[test]
fn its_metrics_are_found() {
    let objects = render(&[ON, "admission.metrics.port=9999", "podMonitor.enabled=true"]);
    assert!(args(&objects).contains(&"--metrics-address=$(POD_IP):9999"));
    let ports = &pod(&objects)["containers"][0]["ports"];
    let port = |port: &Value| port["name"] == "metrics" && port["containerPort"] == 9999;
    assert!(ports.as_array().unwrap().iter().any(port), "{ports}");
    let template = &find(&objects, "Deployment", "lanyard-admission")["spec"]["template"];
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], "9999");
    let monitor = find(&objects, "PodMonitor", "lanyard-admission");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    for (label, value) in monitor["spec"]["selector"]["matchLabels"]
        .as_object()
        .unwrap()
    {
        assert_eq!(&template["metadata"]["labels"][label], value);
    }
}

/// Whoever did not ask for it waits for it under no circumstances.
#[test]
fn only_pods_that_ask_wait_for_it() {
    let objects = render(&[ON]);
    let webhook = webhook(&objects);
    let labels = json!({"matchLabels": {"lanyard.dev/app-service": "true"}});
    assert_eq!(webhook["objectSelector"], labels);
    assert_eq!(webhook["failurePolicy"], "Fail");
    assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
    assert_eq!(webhook["sideEffects"], "None");
    let rule = json!({
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
        "scope": "Namespaced",
    });
    assert_eq!(webhook["rules"], json!([rule]));
    // AKS keeps it out of kube-system and the like, and is not asked not to.
    let whole = find(
        &objects,
        "MutatingWebhookConfiguration",
        "lanyard-app-service",
    );
    assert!(whole["metadata"]["labels"]["admissions.enforcer/disabled"].is_null());
}

/// Each half has what it needs, and nothing of the other's.
#[test]
fn without_the_guard_it_has_no_rights_and_no_token() {
    let alone = render(&[ON]);
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        assert!(!has(&alone, kind, "lanyard-admission"), "{kind}");
    }
    let admission = |object: &&Value| {
        let subjects = object["subjects"].to_string();
        subjects.contains("\"lanyard-admission\"")
    };
    assert!(alone.iter().find(admission).is_none());
    assert_eq!(pod(&alone)["automountServiceAccountToken"], false);
    assert!(!args(&alone).iter().any(|arg| arg.starts_with("--agents")));
    assert!(!has(
        &alone,
        "ValidatingWebhookConfiguration",
        "lanyard-agent-tokens"
    ));
    let both = render(&[ON, GUARDED]);
    assert!(pod(&both)["automountServiceAccountToken"].is_null());
    let role = find(&both, "ClusterRole", "lanyard-admission");
    assert_eq!(
        role["rules"],
        json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    );
    let agents = "--agents=system:serviceaccount:lanyard-system:lanyard-agent";
    assert!(args(&both).contains(&agents));
    for objects in [&alone, &both] {
        let security = &pod(objects)["containers"][0]["securityContext"];
        assert_eq!(security["runAsNonRoot"], true);
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        assert!(pod(objects)["hostNetwork"].is_null());
        // Nothing but the certificate or its authority.
        assert_eq!(pod(objects)["volumes"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn it_signs_for_the_name_that_it_is_called_by() {
    for sets in [&[ON][..], &[GUARDED], &[ON, GUARDED]] {
        let objects = render(sets);
        let host = "--tls-host=lanyard-admission.lanyard-system.svc";
        assert!(args(&objects).contains(&host), "{sets:?}");
        let volume = &pod(&objects)["volumes"][0]["secret"]["secretName"];
        assert_eq!(volume, "lanyard-admission-issuer");
        let issuer = find(&objects, "Secret", "lanyard-admission-issuer");
        let configurations = objects
            .iter()
            .filter(|object| object["webhooks"].is_array());
        for configuration in configurations {
            let client = &configuration["webhooks"][0]["clientConfig"];
            assert_eq!(client["service"]["name"], "lanyard-admission");
            let bundle = decoded(&client["caBundle"]);
            assert_eq!(bundle.trim(), decoded(&issuer["data"]["tls.crt"]).trim());
        }
    }
}

#[test]
fn a_certificate_of_ones_own_is_used_by_both_webhooks() {
    let objects = render(&[
        ON,
        GUARDED,
        "admission.certificate.existingSecret=own",
        "admission.annotations.cert-manager\\.io/inject-ca-from=lanyard-system/own",
    ]);
    assert!(!has(&objects, "Secret", "lanyard-admission-issuer"));
    assert_eq!(pod(&objects)["volumes"][0]["secret"]["secretName"], "own");
    let args = args(&objects);
    assert!(args.contains(&"--tls-certificate=/etc/lanyard/admission/tls.crt"));
    assert!(
        !args
            .iter()
            .any(|arg| arg.starts_with("--issuer") || arg.starts_with("--tls-host"))
    );
    let both: Vec<_> = objects
        .iter()
        .filter(|object| object["webhooks"].is_array())
        .collect();
    assert_eq!(both.len(), 2);
    for configuration in both {
        let annotations = &configuration["metadata"]["annotations"];
        assert_eq!(
            annotations["cert-manager.io/inject-ca-from"],
            "lanyard-system/own"
        );
        assert!(configuration["webhooks"][0]["clientConfig"]["caBundle"].is_null());
    }
}

#[test]
fn the_program_takes_what_the_chart_says() {
    let own = [
        "admission.certificate.existingSecret=own",
        "admission.annotations.a=b",
    ];
    for sets in [
        &[ON][..],
        &[GUARDED],
        &[ON, GUARDED],
        &[&[ON][..], &own].concat(),
    ] {
        let objects = render(sets);
        let args: Vec<String> = args(&objects)
            .into_iter()
            .map(|arg| arg.replace("$(POD_IP)", "10.0.0.1"))
            .collect();
        let command = std::iter::once("lanyard".to_owned()).chain(args);
        Cli::try_parse_from(command).unwrap_or_else(|error| panic!("{sets:?}: {error}"));
    }
    for wrong in [
        &["--issuer-certificate=a", "--issuer-key=b", "--tls-host=c"][..],
        &["--app-service"],
        &["--app-service", "--tls-certificate=a"],
        &["--app-service", "--issuer-certificate=a", "--issuer-key=b"],
        &[
            "--app-service",
            "--issuer-certificate=a",
            "--tls-certificate=b",
            "--issuer-key=c",
            "--tls-key=d",
            "--tls-host=e",
        ],
    ] {
        let command = [&["lanyard", "admission"][..], wrong].concat();
        assert!(Cli::try_parse_from(command).is_err(), "{wrong:?}");
    }
}

fn decoded(text: &Value) -> String {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    String::from_utf8(engine.decode(text.as_str().unwrap()).unwrap()).unwrap()
}
