//! The controller as the chart runs it: its pod, who it is to Azure, and what is refused before it is
//! rendered.

use clap::Parser as _;
use lanyard::cli::Cli;
use serde_json::{Value, json};

use crate::{helm, root, template};

const CLIENT: &str = "controller.azure.clientID=5d9c1e00-0000-4000-8000-000000000001";
const TENANT: &str = "azure.tenantID=72f988bf-0000-4000-8000-00000000000a";
const SECRET: &str = "controller.azure.secretName=arm";

/// The chart's objects with these values.
pub fn render(sets: &[&str]) -> Vec<Value> {
    let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    template("lanyard", &args)
}

/// With the controller, signed in by that.
pub fn with(auth: &str, more: &[&str]) -> Vec<Value> {
    let auth_value = format!("controller.azure.auth={auth}");
    let mut sets = vec!["controller.enabled=true", &auth_value];
    if auth != "nodeIdentity" {
        sets.extend([CLIENT, TENANT]);
    }
    if matches!(auth, "certificate" | "secret") {
        sets.push(SECRET);
    }
    sets.extend(more);
    render(&sets)
}

/// The object of this kind and name.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let named = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    let found = objects.iter().find(named);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn pod(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "lanyard-controller")["spec"]["template"]["spec"]
}

fn args(objects: &[Value]) -> Vec<&str> {
    let args = pod(objects)["containers"][0]["args"].as_array().unwrap();
    args.iter().map(|arg| arg.as_str().unwrap()).collect()
}

fn has(args: &[&str], prefix: &str) -> bool {
    args.iter().any(|arg| arg.starts_with(prefix))
}

fn agent_waits(objects: &[Value]) -> bool {
    let set = find(objects, "DaemonSet", "lanyard-agent");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"].as_array().unwrap();
    let [required, ignored] = ["--assignments=required", "--assignments=ignored"]
        .map(|flag| args.iter().any(|arg| arg == flag));
    assert_ne!(required, ignored, "{args:?}");
    required
}

#[test]
fn without_it_nothing_of_it_is_there() {
    let objects = render(&[]);
    let of_it = objects.iter().filter(|object| {
        object["metadata"]["labels"]["app.kubernetes.io/component"] == "controller"
    });
    assert_eq!(of_it.count(), 0);
    assert!(!agent_waits(&objects));
}

#[test]
fn agents_wait_for_assignments_where_somebody_makes_them() {
    assert!(agent_waits(&with("federated", &[])));
    assert!(!agent_waits(&with(
        "federated",
        &["controller.dryRun=true"]
    )));
    assert!(!agent_waits(&with(
        "federated",
        &["agent.assignments=ignored"]
    )));
    assert!(agent_waits(&render(&["agent.assignments=required"])));
}

#[test]
fn it_is_two_pods_that_need_nothing_of_the_node() {
    let objects = with("federated", &[]);
    let deployment = &find(&objects, "Deployment", "lanyard-controller")["spec"];
    assert_eq!(deployment["replicas"], 2);
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let budget = find(&objects, "PodDisruptionBudget", "lanyard-controller");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    let pod = pod(&objects);
    assert_eq!(pod["priorityClassName"], "system-cluster-critical");
    for absent in ["hostNetwork", "hostPID", "hostIPC", "dnsPolicy"] {
        assert!(pod[absent].is_null(), "{absent}");
    }
    assert!(!pod["volumes"].to_string().contains("hostPath"));
    assert!(pod["tolerations"].to_string().contains("agent-not-ready"));
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    for (probe, page) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({"port": "metrics", "path": page})
        );
    }
    assert_eq!(container["ports"][0]["containerPort"], 9465);
    assert!(container["resources"]["limits"]["cpu"].is_null());
}

#[test]
fn a_dry_run_is_a_job_that_ends() {
    let objects = with(
        "federated",
        &["controller.dryRun=true,podMonitor.enabled=true,prometheusRule.enabled=true"],
    );
    let job = &find(&objects, "Job", "lanyard-controller-dry-run-1")["spec"]["template"]["spec"];
    assert_eq!(job["restartPolicy"], "Never");
    let container = &job["containers"][0];
    assert!(container["args"].to_string().contains("\"--dry-run\""));
    assert!(container["readinessProbe"].is_null() && container["ports"].is_null());
    let its = |kind: &str| {
        objects.iter().any(|object| {
            object["kind"] == kind && object["metadata"]["name"] == "lanyard-controller"
        })
    };
    for kind in [
        "Deployment",
        "PodDisruptionBudget",
        "PodMonitor",
        "PrometheusRule",
    ] {
        assert!(!its(kind), "{kind}");
    }
    assert!(its("ServiceAccount") && its("ClusterRole"));
}

#[test]
fn values_become_flags() {
    let plain = with("federated", &[]);
    let plain = args(&plain);
    for flag in [
        "--lease-name=lanyard-controller",
        "--removal-marker=lanyard-removal",
        "--cloud=public",
        "--debounce=500ms",
        "--removal-grace=15m",
        "--drift-interval=5m",
        "--operation-timeout=20m",
        "--metrics-address=0.0.0.0:9465",
    ] {
        assert!(plain.contains(&flag), "{flag}: {plain:?}");
    }
    for absent in [
        "--arm-endpoint",
        "--authority-host",
        "--imds-endpoint",
        "--azure-ca-file",
        "--dry-run",
    ] {
        assert!(!has(&plain, absent), "{plain:?}");
    }
    let told = with(
        "federated",
        &[
            "azure.armEndpoint=https://management.example.com",
            "azure.authorityHost=https://login.example.com",
            "azure.httpsProxy=http://proxy:3128",
            "azure.caBundle=-----BEGIN CERTIFICATE-----",
            "controller.azure.tenantID=72f988bf-0000-4000-8000-00000000000b",
            "controller.metrics.port=9999",
            "controller.extraArgs={--send-chain}",
        ],
    );
    for flag in [
        "--arm-endpoint=https://management.example.com",
        "--authority-host=https://login.example.com",
        "--azure-ca-file=/etc/lanyard/azure-ca/ca.crt",
        "--tenant-id=72f988bf-0000-4000-8000-00000000000b",
        "--metrics-address=0.0.0.0:9999",
        "--send-chain",
    ] {
        assert!(args(&told).contains(&flag), "{flag}: {:?}", args(&told));
    }
    let env = pod(&told)["containers"][0]["env"].to_string();
    assert!(env.contains("HTTPS_PROXY"), "{env}");
    assert!(
        pod(&told)["volumes"]
            .to_string()
            .contains("lanyard-azure-ca")
    );
}

#[test]
fn it_signs_in_as_it_was_told() {
    let federated = with("federated", &[]);
    assert!(args(&federated).contains(&"--federated-token-file=/etc/lanyard/federated/token"));
    let source = &pod(&federated)["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(
        *source,
        json!({"path": "token", "audience": "api://AzureADTokenExchange", "expirationSeconds": 3600})
    );
    for auth in ["certificate", "secret"] {
        let objects = with(auth, &[]);
        assert!(args(&objects).contains(&"--credential-dir=/etc/lanyard/credential"));
        assert!(args(&objects).contains(&&*format!("--auth={auth}")));
        let pod = pod(&objects);
        assert_eq!(pod["securityContext"]["fsGroup"], 65532);
        let secret = &pod["volumes"][0]["secret"];
        assert_eq!(*secret, json!({"secretName": "arm", "defaultMode": 0o400}));
        // A file that was mounted by its own name would never change.
        let mount = &pod["containers"][0]["volumeMounts"][0];
        assert!(mount["subPath"].is_null() && mount["readOnly"] == true);
    }
}

/// The chart writes flags, the program reads them: each sign-in's, the dry run's, and the job's of the removal.
#[test]
fn the_program_takes_the_flags_that_the_chart_gives() {
    let taken = |container: &Value| {
        let args = container["args"].as_array().unwrap();
        let args = args.iter().map(|arg| {
            let arg = arg.as_str().unwrap().replace("$(POD_IP)", "10.0.0.1");
            arg.replace("$(NAMESPACE)", "lanyard-system")
        });
        if let Err(error) = Cli::try_parse_from(["lanyard".to_owned()].into_iter().chain(args)) {
            panic!("{error}");
        }
    };
    for auth in ["federated", "certificate", "secret", "nodeIdentity"] {
        let objects = with(auth, &["azure.armEndpoint=https://management.example.com"]);
        taken(&pod(&objects)["containers"][0]);
    }
    let objects = with("federated", &["controller.dryRun=true"]);
    for (objects, job) in [
        (&objects, "lanyard-controller-dry-run-1"),
        (&with("federated", &[]), "lanyard-removal"),
    ] {
        let job = find(objects, "Job", job);
        taken(&job["spec"]["template"]["spec"]["containers"][0]);
    }
}

/// Only there, for a pod's own requests to IMDS would be the agent's to answer.
#[test]
fn with_the_nodes_identity_it_is_on_the_hosts_network() {
    let objects = with("nodeIdentity", &[]);
    let pod = pod(&objects);
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["dnsPolicy"], "ClusterFirstWithHostNet");
    assert!(pod["volumes"].is_null());
    let args = args(&objects);
    assert!(args.contains(&"--metrics-address=$(POD_IP):9465"));
    for absent in [
        "--client-id",
        "--tenant-id",
        "--credential-dir",
        "--federated-token-file",
    ] {
        assert!(!has(&args, absent), "{args:?}");
    }
    // The port is the node's: a new pod may have to wait until an old one gives it up.
    let strategy = &find(&objects, "Deployment", "lanyard-controller")["spec"]["strategy"];
    assert_eq!(
        strategy["rollingUpdate"],
        json!({"maxSurge": 0, "maxUnavailable": 1})
    );
}

#[test]
fn its_series_are_scraped_and_alerted_of() {
    let objects = with(
        "federated",
        &["podMonitor.enabled=true,prometheusRule.enabled=true"],
    );
    let monitor = find(&objects, "PodMonitor", "lanyard-controller");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    let rules = &find(&objects, "PrometheusRule", "lanyard-controller")["spec"]["groups"];
    assert!(rules[0]["rules"].as_array().unwrap().len() >= 5);
    // Without a controller the alert that none is at work must not go off.
    let without = render(&["podMonitor.enabled=true,prometheusRule.enabled=true"]);
    assert!(
        !without
            .iter()
            .any(|object| object["kind"] == "PrometheusRule"
                && object.to_string().contains("NoController"))
    );
}

#[test]
fn a_network_policy_is_there_when_asked_for() {
    let plain = with("federated", &[]);
    assert!(!plain.iter().any(|object| object["kind"] == "NetworkPolicy"));
    let asked = with(
        "federated",
        &[
            "controller.networkPolicy.enabled=true",
            "controller.networkPolicy.egressPorts={443,8443}",
        ],
    );
    let policy = &find(&asked, "NetworkPolicy", "lanyard-controller")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["ingress"][0]["ports"][0]["port"], 9465);
    assert_eq!(policy["egress"][1]["ports"][1]["port"], 8443);
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_reason() {
    let chart = root().join("charts/lanyard").display().to_string();
    let on = "controller.enabled=true,controller.azure";
    for (set, words) in [
        (
            format!("{on}.auth=federated"),
            "needs controller.azure.clientID",
        ),
        (format!("{on}.auth=federated,{CLIENT}"), "azure.tenantID"),
        (
            format!("{on}.auth=certificate,{CLIENT},{TENANT}"),
            "tls.crt and tls.key",
        ),
        (
            format!("{on}.auth=secret,{CLIENT},{TENANT}"),
            "with clientSecret",
        ),
        (
            format!("{on}.auth=federated,{CLIENT},{TENANT},{SECRET}"),
            "nothing reads it",
        ),
        (format!("{on}.auth=magic"), "auth"),
        (format!("{on}.clientID=me"), "clientID"),
        (
            format!("{on}.auth=nodeIdentity,controller.networkPolicy.enabled=true"),
            "no NetworkPolicy counts",
        ),
        (
            format!("{on}.auth=nodeIdentity,controller.metrics.port=9464"),
            "a port of the node",
        ),
        (
            format!(
                "{on}.auth=federated,{CLIENT},{TENANT},agent.federated.namespaces={{lanyard-system}}"
            ),
            "keep pods that need tokens out",
        ),
        (
            format!(
                "{on}.auth=secret,{CLIENT},{TENANT},{SECRET},agent.secrets[0].namespace=lanyard-system,agent.secrets[0].names={{arm}}"
            ),
            "which is the controller's",
        ),
        ("controller.replicas=0".to_owned(), "replicas"),
        ("controller.debounce=1".to_owned(), "debounce"),
        (
            "azure.armEndpoint=http://management.example.com".to_owned(),
            "write https://",
        ),
        (
            "uninstall.managedIdentities=delete".to_owned(),
            "needs controller.enabled=true",
        ),
        (
            "uninstall.managedIdentities=delete,uninstall.enabled=false".to_owned(),
            "leave that true",
        ),
        (
            "uninstall.identitiesTimeout=3".to_owned(),
            "identitiesTimeout",
        ),
        (
            "uninstall.managedIdentities=keep".to_owned(),
            "managedIdentities",
        ),
    ] {
        let output = helm(&[
            "template",
            "lanyard",
            &chart,
            "--namespace",
            "lanyard-system",
            "--set",
            &set,
        ]);
        assert!(!output.status.success(), "{set} was accepted");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(words), "{set}: {told}");
    }
}
