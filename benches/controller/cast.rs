//! What is in the cluster and in Azure: names, ids and objects, all of them by number.
//!
//! Pods of one identity run on five scale sets, so that each scale set needs fifty identities. Objects are
//! as large as real ones: what parsing costs and what pages take is by their bytes.

use std::fmt::Write as _;

use serde_json::{Value, json};

const SUBSCRIPTION: &str = "5d9c1e00-0000-4000-8000-000000000001";
pub const TENANT: &str = "72f988bf-0000-4000-8000-0000000000aa";
pub const CLIENT: &str = "c0000000-0000-4000-8000-000000000001";
pub const SECRET: &str = "of-the-bench";
/// Nodes of a scale set, and pods of a node.
const NODES: usize = 20;
const PODS: usize = 20;
/// Identities of a namespace.
const IDENTITIES: usize = 10;
/// Scale sets that an identity's pods run on.
const SPREAD: usize = 5;
/// Identities beyond those that pods use from the start: one for each binding that is timed.
pub const EXTRA: usize = 20;

/// How much there is; everything follows from the number of scale sets.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub sets: usize,
}

/// Where a pod runs and whose it is.
pub struct Place {
    pub team: usize,
    pub identity: usize,
    pub set: usize,
    pub node: usize,
}

impl Size {
    pub const fn teams(self) -> usize {
        self.sets
    }

    pub const fn nodes(self) -> usize {
        self.sets * NODES
    }

    pub const fn identities(self) -> usize {
        self.sets * IDENTITIES
    }

    pub const fn pods(self) -> usize {
        self.nodes() * PODS
    }

    /// Identities on scale sets, each counted on each.
    pub const fn assignments(self) -> usize {
        self.identities() * SPREAD
    }

    /// The namespace of an identity, and of its pods.
    pub const fn team_of(identity: usize) -> usize {
        identity / IDENTITIES
    }

    /// Place of a pod: 8 of each identity on each of its scale sets, 20 on each node.
    pub const fn place(self, pod: usize) -> Place {
        let each = self.pods() / self.assignments();
        let (identity, nth) = (pod / (each * SPREAD), pod % (each * SPREAD));
        let (turn, of_set) = (nth / each, nth % each);
        let ordinal = (turn * IDENTITIES + identity / self.sets) * each + of_set;
        Place {
            team: Self::team_of(identity),
            identity,
            set: (identity + turn * self.sets / SPREAD) % self.sets,
            node: ordinal % NODES,
        }
    }
}

pub fn team(number: usize) -> String {
    format!("team-{number}")
}

pub fn set_name(number: usize) -> String {
    format!("pool-{number}")
}

/// The name of a pod in its namespace.
pub fn pod_name(number: usize) -> String {
    format!("web-7c5ddbdf54-{number:05}")
}

pub fn identity_id(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/identities/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

fn set_id(number: usize) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/{}",
        set_name(number)
    )
}

/// Azure: changes of scale sets take 30 s, requests are throttled as documented.
pub fn azure(size: Size) -> String {
    let mut world = format!(
        "tenant: {{id: {TENANT}}}\narm: {{operationDuration: 30s}}\napplications:\n- name: controller\n  clientID: {CLIENT}\n  \
         principalID: c0000000-0000-4000-8000-000000000002\n  secrets: [{{value: {SECRET}}}]\nvms:\n- {{name: nobody}}\nidentities:\n"
    );
    let names = (0..size.identities()).map(app).chain((0..EXTRA).map(extra));
    for (number, name) in names.enumerate() {
        write!(
            world,
            "- name: {name}\n  clientID: 10000000-0000-4000-8000-{number:012x}\n  principalID: 20000000-0000-4000-8000-{number:012x}\n  resourceID: {}\n",
            identity_id(&name)
        )
        .unwrap();
    }
    world += "scaleSets:\n";
    for number in 0..size.sets {
        writeln!(
            world,
            "- {{name: {}, resourceID: {}}}",
            set_name(number),
            set_id(number)
        )
        .unwrap();
    }
    world
}

/// Name of an identity, and value of the label `app` of its pods.
pub fn app(identity: usize) -> String {
    format!("app-{identity}")
}

/// Name of an identity that no pod uses at first.
pub fn extra(number: usize) -> String {
    format!("extra-{number}")
}

pub fn namespace(number: usize) -> Value {
    json!({"metadata": {"name": team(number), "labels": {"team": team(number)}}})
}

pub fn account() -> Value {
    json!({"metadata": {"name": "default"}})
}

pub fn node(number: usize) -> Value {
    let set = number / NODES;
    let images: Vec<Value> = (0..40)
        .map(|image| {
            let name = format!("registry.example/team/service-{image}@sha256:{image:064x}");
            json!({"names": [name, format!("registry.example/team/service-{image}:1.{image}.0")], "sizeBytes": 100_000_000})
        })
        .collect();
    json!({"metadata": {"name": node_name(set, number % NODES), "labels": {"agentpool": set_name(set), "kubernetes.io/os": "linux"}},
        "spec": {"providerID": format!("azure://{}/virtualMachines/{}", set_id(set), number % NODES)},
        "status": {"images": images, "capacity": {"cpu": "8", "memory": "32Gi", "pods": "250"}}})
}

pub fn node_name(set: usize, nth: usize) -> String {
    format!("aks-{}-vmss{nth:06}", set_name(set))
}

pub fn policy(prefixes: &[&str]) -> Value {
    json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy", "metadata": {"name": "all"},
        "spec": {"namespaces": {}, "resourceIDPrefixes": prefixes}})
}

/// The resource groups of the identities, and of none of them.
pub fn admitting() -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/identities")
}

pub fn refusing() -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/elsewhere")
}

pub fn identity(team_number: usize, name: &str) -> Value {
    json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
        "metadata": {"namespace": team(team_number), "name": name}, "spec": {"resourceID": identity_id(name)}})
}

/// A binding to the pods of a namespace with that label.
pub fn binding(team_number: usize, identity: &str, label: (&str, &str)) -> Value {
    let (key, value) = label;
    json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding",
        "metadata": {"namespace": team(team_number), "name": identity},
        "spec": {"identity": identity, "subjects": [{"podSelector": {"matchLabels": {key: value}}}]}})
}

/// A pod as a Deployment makes it: two containers, probes, variables, volumes.
pub fn pod(size: Size, number: usize, name: &str) -> Value {
    let place = size.place(number);
    let app = app(place.identity);
    let variables: Vec<Value> = (0..12)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("https://service-{n}.{app}.svc:8443/path")}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
    let container = |container: &str| {
        json!({"name": container, "image": format!("registry.example/{app}/{container}:1.27.3"),
            "env": variables, "ports": [{"containerPort": 8080}],
            "livenessProbe": probe, "readinessProbe": probe,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}, {"name": "cache", "mountPath": "/cache"}]})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": team(place.team), "name": name,
            "labels": {"app": app, "pool": set_name(place.set), "pod-template-hash": "7c5ddbdf54", "app.kubernetes.io/part-of": team(place.team)},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7c5ddbdf54", "uid": format!("30000000-0000-4000-8000-{:012x}", place.identity), "controller": true}]},
        "spec": {"nodeName": node_name(place.set, place.node), "terminationGracePeriodSeconds": 0,
            "containers": [container("web"), container("metrics")],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}, {"name": "cache", "emptyDir": {}}]}})
}
