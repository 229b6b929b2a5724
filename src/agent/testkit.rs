//! Builders for tests of the steps: a world from a few manifests in YAML-like JSON.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::touched::Touched;
use super::world::{Change, World};
use crate::api::account;
use crate::api::object::{Object, read};
use crate::model::facts::PodFacts;
use crate::model::grant::Asker;
use crate::model::ids::ObjectName;

/// A GUID that ends in `n`.
pub fn guid(n: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{n:02x}")
}

/// The ARM id of an identity in a resource group.
pub fn arm(group: &str, name: &str) -> String {
    format!(
        "/subscriptions/s/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

/// Reads a manifest; version "1".
pub fn object(manifest: Value) -> Object {
    read(manifest, "1")
        .expect("well-formed")
        .expect("one of ours")
}

/// Somebody who asks: a pod of its own namespace.
pub fn asker(name: &str) -> Asker {
    Asker {
        uid: name.into(),
        pod: ObjectName::new(name, name),
        service_account: name.into(),
    }
}

/// A pod with labels `{app: NAME}` and an address.
pub fn pod(namespace: &str, name: &str, ip: &str, annotation: Option<&str>) -> Object {
    let annotations = annotation.map(|names| json!({"lanyard.dev/identity": names}));
    object(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"), "labels": {"app": name}, "annotations": annotations},
        "spec": {"containers": [], "serviceAccountName": format!("sa-{name}")},
        "status": {"phase": "Running", "podIP": ip}}))
}

/// A namespace with one label `team: TEAM`.
pub fn namespace(name: &str, team: &str) -> Object {
    object(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}}),
    )
}

/// An identity in resource group `rg-NAMESPACE`.
pub fn identity(namespace: &str, name: &str, n: u8) -> Object {
    object(
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"clientID": guid(n), "objectID": guid(n + 100), "resourceID": arm(&format!("rg-{namespace}"), name)}}),
    )
}

/// A binding of the same name as its identity.
pub fn binding(namespace: &str, identity: &str, subjects: &Value, default: bool) -> Object {
    object(
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding",
        "metadata": {"namespace": namespace, "name": identity},
        "spec": {"identity": identity, "subjects": subjects, "default": default}}),
    )
}

/// A policy for namespaces of a team.
pub fn policy(name: &str, team: &str, prefixes: &[&str]) -> Object {
    object(
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy", "metadata": {"name": name},
        "spec": {"namespaces": {"matchLabels": {"team": team}}, "resourceIDPrefixes": prefixes}}),
    )
}

/// A pod that asks for its service account's identity, by the label of Azure Workload Identity.
pub fn workload_pod(namespace: &str, name: &str, ip: &str, annotation: Option<&str>) -> Object {
    let Object::Pod(mut facts) = pod(namespace, name, ip, annotation) else {
        panic!("a pod")
    };
    facts
        .labels
        .insert(account::USE_LABEL.into(), "true".into());
    Object::Pod(facts)
}

/// The service account of the pod of that name, annotated for Azure Workload Identity.
pub fn account_of_pod(namespace: &str, pod: &str, n: u8) -> Object {
    let name = format!("sa-{pod}");
    object(json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{namespace}-{name}"),
            "annotations": {account::CLIENT_ID_ANNOTATION: guid(n), "azure.workload.identity/service-account-token-expiration": "3600"}}}))
}

/// A policy for namespaces of a team that lets annotations of service accounts count, for these
/// applications.
pub fn workload_policy(name: &str, team: &str, clients: &[u8]) -> Object {
    let clients: Vec<String> = clients.iter().copied().map(guid).collect();
    object(
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy", "metadata": {"name": name},
        "spec": {"namespaces": {"matchLabels": {"team": team}}, "clientIDs": clients, "workloadIdentity": true}}),
    )
}

/// A world of these objects, first seen at second 1.
pub fn world(objects: impl IntoIterator<Item = Object>) -> World {
    let mut world = World::default();
    for object in objects {
        let second = Duration::from_secs(1);
        world.change(Change::Apply(object), second, &mut Touched::default());
    }
    world
}

/// The pod at an address.
pub fn pod_at(world: &World, ip: &str) -> Arc<PodFacts> {
    let ip: IpAddr = ip.parse().expect("an address");
    world
        .pods()
        .find(|pod| pod.ips.contains(&ip))
        .expect("a pod")
        .clone()
}
