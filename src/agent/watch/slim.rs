//! A pod's text → its facts, without making anything of the nine tenths that do not concern us
//! (containers, volumes, managed fields): a node lists all of its pods at once. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodCondition, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::api::object::Object;
use crate::api::{Malformed, pod};
use crate::model::ids::ObjectName;

#[derive(Deserialize)]
struct Slim {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    service_account_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<Program>>,
    init_containers: Option<Vec<Program>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Program {
    env: Option<Vec<Variable>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIP>>,
    conditions: Option<Vec<PodCondition>>,
}

/// The pod in this text.
pub fn read(text: &str) -> Result<Object, Malformed> {
    let slim: Slim = serde_json::from_str(text).map_err(|error| Malformed::at("object", error))?;
    let Metadata {
        name,
        namespace,
        uid,
        resource_version,
        labels,
        annotations,
    } = slim.metadata;
    let called = ObjectName::new(namespace.unwrap_or("default".into()), name);
    let whole = Pod {
        metadata: ObjectMeta {
            uid,
            resource_version,
            labels,
            annotations,
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            service_account_name: slim.spec.service_account_name,
            host_network: slim.spec.host_network,
            containers: programs(slim.spec.containers),
            init_containers: Some(programs(slim.spec.init_containers)),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: slim.status.phase,
            pod_ip: slim.status.pod_ip,
            pod_ips: slim.status.pod_ips,
            conditions: slim.status.conditions,
            ..PodStatus::default()
        }),
    };
    Ok(Object::Pod(pod::facts(&whole, called, "")))
}

/// Containers with the variables that count.
fn programs(slim: Option<Vec<Program>>) -> Vec<Container> {
    let variables = |program: Program| {
        let all = program.env.into_iter().flatten();
        let counting = all.filter(|one| pod::SECRET_VARIABLES.contains(&one.name.as_str()));
        let kept = counting.map(|Variable { name, value }| EnvVar {
            name,
            value,
            value_from: None,
        });
        Container {
            env: Some(kept.collect()),
            ..Container::default()
        }
    };
    slim.into_iter().flatten().map(variables).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slim_reading_says_what_a_whole_one_says() {
        let pods = [
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "p", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "p"}, "annotations": {"lanyard.dev/identity": "one, b/two", "other": "x"}, "managedFields": [{}]},
                "spec": {"serviceAccountName": "sa", "containers": [{"name": "main"}]},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "h", "uid": "u", "resourceVersion": "7"},
                "spec": {"hostNetwork": true, "containers": []}, "status": {"phase": "Running", "podIP": "10.0.0.1"}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "e", "uid": "u", "resourceVersion": "7"},
                "spec": {"containers": []}, "status": {"phase": "Failed"}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "n", "uid": "u", "resourceVersion": "7", "labels": null}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "s", "uid": "u", "resourceVersion": "7"},
                "spec": {"containers": [{"name": "none", "env": null}, {"name": "main", "env": [{"name": "IDENTITY_HEADER", "value": "one"},
                    {"name": "HOME", "value": "/"}, {"name": "MSI_SECRET", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]}],
                    "initContainers": [{"name": "first", "env": [{"name": "MSI_SECRET", "value": "two"}]}]}}),
        ];
        for pod in pods {
            let slim = read(&pod.to_string()).unwrap();
            let whole = crate::api::object::read(pod, "").unwrap().unwrap();
            assert_eq!(slim, whole);
            let Object::Pod(facts) = slim else {
                panic!("a pod");
            };
            let expected = if &*facts.name.name == "s" { 2 } else { 0 };
            assert_eq!(facts.secrets.len(), expected);
            assert_eq!(facts.host_network, &*facts.name.name == "h");
        }
    }
}
