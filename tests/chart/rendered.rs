//! What the chart renders, and what it refuses.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::capabilities::OF_HOST_NETWORK_PODS;
use crate::{helm, root, template, text, values};

fn chart() -> String {
    root().join("charts/lanyard").display().to_string()
}

fn kinds(objects: &[Value]) -> BTreeSet<&str> {
    objects
        .iter()
        .map(|object| object["kind"].as_str().unwrap())
        .collect()
}

fn refusal(set: &str) -> String {
    let output = helm(&["template", "lanyard", &chart(), "--set", set]);
    assert!(!output.status.success(), "{set} was accepted");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn lint_has_nothing_to_say() {
    let said = text(helm(&["lint", "--strict", &chart()]));
    assert!(said.contains("0 chart(s) failed"), "{said}");
    assert!(!said.contains("[WARNING]"), "{said}");
}

/// Wherever values have names of their own, a name that nobody knows is an error.
#[test]
fn a_typo_anywhere_is_an_error() {
    let free = [
        "resources",
        "nodeSelector",
        "affinity",
        "commonLabels",
        "podAnnotations",
        "podLabels",
        "annotations",
        "labels",
    ];
    let mut places = vec![String::new()];
    let mut stack = vec![(String::new(), values())];
    while let Some((path, value)) = stack.pop() {
        for (name, inner) in value.as_object().unwrap() {
            if inner.is_object() && !free.contains(&name.as_str()) {
                places.push(format!("{path}{name}."));
                stack.push((format!("{path}{name}."), inner.clone()));
            }
        }
    }
    assert!(places.len() > 12, "{places:?}");
    for place in places {
        let told = refusal(&format!("{place}tpyo=1"));
        assert!(told.contains("'tpyo' not allowed"), "{place}: {told}");
    }
}

#[test]
fn values_that_cannot_be_meant_are_refused_with_a_reason() {
    for (set, words) in [
        ("agent.enforcement=maybe", "enforcement"),
        ("agent.address=10.0.0.1", "address"),
        ("agent.address=169.254.169.254", "address"),
        ("agent.drainTimeout=10", "drainTimeout"),
        ("agent.metrics.port=0", "port"),
        ("agent.extraArgs={agent}", "extraArgs"),
        ("controller.enabled=true", "needs controller.azure.clientID"),
        ("azure.cloud=mars", "cloud"),
        ("azure.tenantID=contoso", "tenantID"),
        ("azure.authorityHost=login.example.com", "authorityHost"),
        (
            "azure.authorityHost=http://login.example.com",
            "write https://",
        ),
        ("azure.caBundle=/etc/ca.pem", "caBundle"),
        ("azure.httpsProxy=proxy:3128", "httpsProxy"),
        ("agent.secrets[0].namespace=shop", "names"),
        (
            "agent.secrets[0].namespace=shop,agent.secrets[0].names={}",
            "names",
        ),
        (
            "agent.secrets[0].namespace=a,agent.secrets[0].names={x},agent.secrets[1].namespace=a,agent.secrets[1].names={y}",
            "namespace a twice",
        ),
        ("agent.federated.namespaces={a,a}", "namespaces"),
        ("agent.federated.namespaces={*}", "namespaces"),
        ("admission.replicas=0", "replicas"),
        ("appService.enabled=yes", "appService"),
        ("admission.certificate.existingSecret=own", "who signed it"),
        (
            "admission.certificate.caBundle=-----BEGIN CERTIFICATE-----",
            "existingSecret",
        ),
        ("hostToken.listen=127.0.0.1:2579", "set that, too"),
        (
            "hostToken.enabled=true,hostToken.listen=0.0.0.0:2579",
            "listen",
        ),
        (
            "hostToken.enabled=true,hostToken.listen=127.0.0.1",
            "listen",
        ),
        ("agent.hostNetworkPods.cgroupRoot=/etc", "cgroupRoot"),
        (
            "agent.hostNetworkPods.enabled=true,controller.enabled=true,controller.azure.auth=nodeIdentity",
            "choose another auth",
        ),
        (
            "agent.enforcement=observe,agent.bootGuard.enabled=true",
            "until you enforce",
        ),
        (
            "agent.enforcement=observe,agent.mode=in-pod",
            "with agent.mode=redirect only",
        ),
        ("agent.mode=inpod", "mode"),
        (
            "agent.inPod.vmExtensionEndpoint=true",
            "nothing listens inside pods",
        ),
        ("agent.inPod.runtimeState=run", "runtimeState"),
    ] {
        let told = refusal(set);
        assert!(told.contains(words), "{set}: {told}");
    }
}

#[test]
fn the_names_that_others_rely_on() {
    let objects = template("lanyard", &[]);
    for (kind, name) in [
        ("DaemonSet", "lanyard-agent"),
        ("ServiceAccount", "lanyard-agent"),
        ("ClusterRole", "lanyard-agent"),
        ("ConfigMap", "lanyard-removal-acks"),
        ("Job", "lanyard-removal"),
    ] {
        let named = objects
            .iter()
            .any(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        assert!(named, "no {kind} {name}");
    }
    // The marker is made by the hook only: in the release it would make every agent leave.
    let marker = |object: &&Value| {
        object["kind"] == "ConfigMap" && object["metadata"]["name"] == "lanyard-removal"
    };
    assert!(!objects.iter().any(|object| marker(&object)));
}

#[test]
fn another_releases_objects_have_other_names_and_all_have_the_labels() {
    for object in template("blue", &[]) {
        let (kind, name) = (
            &object["kind"],
            object["metadata"]["name"].as_str().unwrap(),
        );
        assert!(
            name.starts_with("blue-lanyard-") || kind == "CustomResourceDefinition",
            "{kind} {name}"
        );
        let labels = &object["metadata"]["labels"];
        for label in [
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/managed-by",
            "helm.sh/chart",
        ] {
            assert!(
                labels[label].is_string(),
                "{kind} {name} has no label {label}"
            );
        }
    }
}

#[test]
fn crds_come_with_the_release_stay_after_it_and_can_be_left_out() {
    let objects = template("lanyard", &[]);
    let crds: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == "CustomResourceDefinition")
        .collect();
    assert_eq!(crds.len(), 5);
    for crd in crds {
        assert_eq!(
            crd["metadata"]["annotations"]["helm.sh/resource-policy"],
            "keep"
        );
    }
    let without = template("lanyard", &["--set", "crds.install=false"]);
    assert!(!kinds(&without).contains("CustomResourceDefinition"));
}

#[test]
fn the_operators_objects_are_there_only_when_asked_for() {
    let plain = template("lanyard", &[]);
    for kind in ["PodMonitor", "PrometheusRule"] {
        assert!(!kinds(&plain).contains(kind), "{kind}");
    }
    let asked = template(
        "lanyard",
        &[
            "--set",
            "podMonitor.enabled=true,prometheusRule.enabled=true",
        ],
    );
    assert!(kinds(&asked).is_superset(&BTreeSet::from(["PodMonitor", "PrometheusRule"])));
    let rule = asked
        .iter()
        .find(|object| object["kind"] == "PrometheusRule")
        .unwrap();
    assert!(rule["spec"]["groups"][0]["rules"].as_array().unwrap().len() > 5);
}

fn agents(objects: &[Value]) -> &Value {
    let mut sets = objects.iter();
    sets.find(|object| object["kind"] == "DaemonSet").unwrap()
}

/// The host's folders and files that agents see.
fn paths(objects: &[Value]) -> Vec<&str> {
    let volumes = &agents(objects)["spec"]["template"]["spec"]["volumes"];
    let volumes = volumes.as_array().unwrap().iter();
    volumes
        .filter_map(|volume| volume["hostPath"]["path"].as_str())
        .collect()
}

/// Invariants 6 and 9, as far as a manifest can hold them.
#[test]
fn the_agents_pod_has_what_it_needs_and_no_more() {
    let objects = template("lanyard", &[]);
    let set = agents(&objects);
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    assert_eq!(
        security["capabilities"]["add"].to_string(),
        r#"["NET_ADMIN","NET_RAW"]"#
    );
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert!(
        security["privileged"].is_null() && pod["hostPID"].is_null() && pod["hostIPC"].is_null()
    );
    assert!(
        container["ports"].is_null(),
        "ports keep the next version off the node"
    );
    assert!(container["resources"]["limits"]["cpu"].is_null());
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        0
    );
    assert_eq!(paths(&objects), ["/run/lanyard", "/run/xtables.lock"]);
    let guarded = template("lanyard", &["--set", "agent.bootGuard.enabled=true"]);
    assert_eq!(
        paths(&guarded),
        ["/run/lanyard", "/run/xtables.lock", "/", "/etc"]
    );
    let doors = template("lanyard", &["--set", "hostToken.enabled=true"]);
    assert_eq!(
        paths(&doors),
        ["/run/lanyard", "/run/xtables.lock", "/run/lanyard-host"]
    );
    let args = |sets: &str| {
        let objects = template("lanyard", &["--set", sets]);
        let set = objects.iter().find(|object| object["kind"] == "DaemonSet");
        let container = &set.unwrap()["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            container["securityContext"]["capabilities"]["add"].to_string(),
            r#"["NET_ADMIN","NET_RAW"]"#
        );
        container["args"].to_string()
    };
    assert!(!args("hostToken.enabled=false").contains("host-token"));
    let socket = "--host-token-socket=/run/lanyard-host/token.sock";
    let one = args("hostToken.enabled=true");
    assert!(one.contains(socket) && !one.contains("--host-token-listen"));
    let two = args("hostToken.enabled=true,hostToken.listen=127.0.0.1:2579");
    assert!(two.contains(socket) && two.contains("--host-token-listen=127.0.0.1:2579"));
}

/// What a mode needs comes with that mode, and what it reads it cannot write.
#[test]
fn agents_that_enter_pods_have_what_that_takes() {
    const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";
    for mode in ["in-pod", "mixed"] {
        let objects = template("lanyard", &["--set", &format!("agent.mode={mode}")]);
        let container = &agents(&objects)["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            container["securityContext"]["capabilities"]["add"].to_string(),
            r#"["NET_ADMIN","NET_RAW","SYS_ADMIN"]"#
        );
        let args = container["args"].to_string();
        assert!(args.contains(&format!("--mode={mode}")), "{args}");
        assert!(!args.contains("vm-extension"), "{args}");
        assert_eq!(
            paths(&objects),
            ["/run/lanyard", "/run/xtables.lock", "/run/netns", BUNDLES]
        );
        for folder in ["/run/netns", BUNDLES] {
            let mounts = container["volumeMounts"].as_array().unwrap();
            let mount = mounts.iter().find(|mount| mount["mountPath"] == folder);
            let mount = mount.unwrap();
            // What the host unmounts would else be held here.
            assert_eq!(mount["mountPropagation"], "HostToContainer");
            assert_eq!(mount["readOnly"], true);
        }
    }
}

/// Beside an agent that enters pods, and no other, is one who holds its listeners; it has the folder of their socket and
/// nothing else.
#[test]
fn who_holds_listeners_may_do_nothing() {
    let containers = |mode: &str| {
        let objects = template("lanyard", &["--set", &format!("agent.mode={mode}")]);
        let containers = &agents(&objects)["spec"]["template"]["spec"]["containers"];
        containers.as_array().unwrap().clone()
    };
    assert_eq!(containers("redirect").len(), 1);
    for mode in ["in-pod", "mixed"] {
        let [agent, hold] = &containers(mode)[..] else {
            panic!("an agent and a holder");
        };
        let socket = |container: &Value, flag: &str| {
            let args = container["args"].as_array().unwrap().iter();
            let mut values = args.filter_map(|arg| arg.as_str()?.strip_prefix(flag));
            values.next().map(str::to_owned)
        };
        let given = socket(agent, "--hold-socket=").unwrap();
        assert_eq!(socket(hold, "--socket="), Some(given));
        let context = &hold["securityContext"];
        assert_eq!(context["capabilities"].to_string(), r#"{"drop":["ALL"]}"#);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        // As the agent, or it could not connect.
        assert_eq!(context["runAsUser"], agent["securityContext"]["runAsUser"]);
        let mounts = hold["volumeMounts"].as_array().unwrap().iter();
        let mounts: Vec<_> = mounts
            .map(|mount| [&mount["name"], &mount["mountPath"]])
            .collect();
        // Where there is a mount, Kubernetes mounts no token.
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        assert_eq!(mounts, [["pod", "/run/lanyard-pod"], ["nothing", token]]);
    }
}

/// What telling host-network pods apart takes is there with its value, and only then.
#[test]
fn host_network_pods_are_told_apart_at_a_price() {
    let set = |settings: &[&str]| {
        let objects = template("lanyard", settings);
        let found = objects.iter().find(|object| object["kind"] == "DaemonSet");
        found.unwrap()["spec"]["template"]["spec"].clone()
    };
    let told = |pod: &Value| {
        let args = pod["containers"][0]["args"].as_array().unwrap();
        args.iter()
            .filter_map(Value::as_str)
            .filter(|arg| arg.contains("host-network") || arg.contains("cgroup"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let off = set(&[]);
    assert!(told(&off).is_empty() && off["hostPID"].is_null());
    let on = set(&["--set", "agent.hostNetworkPods.enabled=true"]);
    assert_eq!(
        told(&on),
        ["--host-network-pods=true", "--cgroup-root=/host-cgroup"]
    );
    assert_eq!(on["hostPID"], true);
    let container = &on["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(
        security["capabilities"],
        json!({"drop": ["ALL"], "add": OF_HOST_NETWORK_PODS})
    );
    assert_eq!(security["allowPrivilegeEscalation"], false);
    let both = set(&[
        "--set",
        "agent.hostNetworkPods.enabled=true,agent.mode=in-pod",
    ]);
    assert_eq!(
        both["containers"][0]["securityContext"]["capabilities"]["add"],
        json!(OF_HOST_NETWORK_PODS)
    );
    let profile = |pod: &Value| pod["containers"][0]["securityContext"]["appArmorProfile"].clone();
    assert!(profile(&off).is_null() && profile(&on)["type"] == "Unconfined");
    let mounts = container["volumeMounts"].as_array().unwrap();
    let cgroup = mounts.iter().find(|mount| mount["name"] == "cgroup");
    assert_eq!(cgroup.unwrap()["readOnly"], true);
    let deeper = set(&[
        "--set",
        "agent.hostNetworkPods.enabled=true,agent.hostNetworkPods.cgroupRoot=/sys/fs/cgroup/kubelet",
    ]);
    assert_eq!(told(&deeper)[1], "--cgroup-root=/host-cgroup/kubelet");
    let controller = |settings: &str| {
        let more = "controller.enabled=true,controller.azure.clientID=11111111-1111-4111-8111-111111111111,azure.tenantID=72f988bf-0000-4000-8000-00000000000a";
        let objects = template("lanyard", &["--set", &format!("{more}{settings}")]);
        let found = objects.into_iter().find(|object| {
            object["kind"] == "Deployment" && object["metadata"]["name"] == "lanyard-controller"
        });
        told(&found.unwrap()["spec"]["template"]["spec"])
    };
    assert!(controller("").is_empty());
    assert_eq!(
        controller(",agent.hostNetworkPods.enabled=true"),
        ["--host-network-pods=true"]
    );
}
