//! A pod → the few fields that decide, in one pass and without making anything of
//! the nine tenths that do not concern us (containers, volumes, managed fields). Pure.
//!
//! Lenient: a pod that Kubernetes took is never malformed here.

mod binary;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::intern::Interned;
use crate::api::pod::split_names;
use crate::api::{IDENTITY_ANNOTATION, Malformed};
use crate::controller::world::Pod;
use crate::model::facts::Labels;
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
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    labels: Option<Labels>,
    annotations: Option<Wanted>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    host_network: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
}

/// Of all annotations the one that asks for identities.
struct Wanted(Option<String>);

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Annotations)
    }
}

struct Annotations;

impl<'de> Visitor<'de> for Annotations {
    type Value = Wanted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Wanted, M::Error> {
        let mut wanted = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == IDENTITY_ANNOTATION {
                wanted = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Wanted(wanted))
    }
}

/// What pods have in common.
#[derive(Debug, Default)]
pub struct Shared {
    /// Whether host-network pods count: agents tell them apart.
    counts_hosts: bool,
    texts: Interned<str>,
    labels: Interned<Labels>,
    wanted: Interned<[String]>,
}

/// A pod as it came.
pub struct Found {
    /// Its name.
    pub name: ObjectName,
    /// Its `resourceVersion`.
    pub version: String,
    /// What counts of it; `None` where it does not count (see [`Pod`]).
    pub pod: Option<Pod>,
}

impl Shared {
    /// Of no pods yet; `counts_hosts`: host-network pods count, too.
    pub fn of_pods(counts_hosts: bool) -> Self {
        Self {
            counts_hosts,
            ..Self::default()
        }
    }

    /// The pod in this text.
    pub fn read(&mut self, text: &str) -> Result<Found, Malformed> {
        let slim = serde_json::from_str(text).map_err(|error| Malformed::at("object", error))?;
        Ok(self.found(slim))
    }

    /// The pod in these bytes.
    pub fn read_binary(&mut self, bytes: Bytes) -> Result<Found, Malformed> {
        let slim = binary::slim(bytes).map_err(|error| Malformed::at("object", error))?;
        Ok(self.found(slim))
    }

    fn found(&mut self, slim: Slim) -> Found {
        let Slim {
            metadata,
            spec,
            status,
        } = slim;
        let namespace = self.texts.get(metadata.namespace);
        let name = ObjectName::new(namespace, metadata.name);
        let node = spec.node_name.filter(|node| !node.is_empty());
        let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let is_told = self.counts_hosts || !spec.host_network.unwrap_or(false);
        let counts = node.filter(|_| !has_ended && is_told);
        let pod = counts.map(|node| Pod {
            uid: if metadata.uid.is_empty() {
                name.to_string().into()
            } else {
                metadata.uid.into()
            },
            node: self.texts.get(node),
            account: self.account(spec.service_account_name),
            labels: self.labels.get(metadata.labels.unwrap_or_default()),
            wanted: metadata.annotations.and_then(|wanted| self.wanted(&wanted)),
        });
        Found {
            name,
            version: metadata.resource_version,
            pod,
        }
    }

    fn account(&mut self, named: Option<String>) -> Arc<str> {
        let named = named.filter(|name| !name.is_empty());
        self.texts
            .get(named.unwrap_or_else(|| "default".to_owned()))
    }

    fn wanted(&mut self, wanted: &Wanted) -> Option<Arc<[String]>> {
        let names = wanted.0.as_deref()?;
        Some(self.wanted.get(split_names(names)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "7",
                "labels": {"app": "till"}, "annotations": {"lanyard.dev/identity": "one, b/two", "other": "x"},
                "managedFields": [{}]},
            "spec": {"nodeName": "node-1", "serviceAccountName": "till", "containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1"}});
        change(&mut pod);
        pod
    }

    fn read(pod: &Value) -> Option<Pod> {
        let text = Shared::default().read(&pod.to_string()).unwrap();
        // Lists come in the one form, events in the other: they must mean the same.
        let bytes = binary::tests::written(pod);
        let bytes = Shared::default().read_binary(bytes).unwrap();
        assert_eq!((&bytes.name, &bytes.version), (&text.name, &text.version));
        assert_eq!(bytes.pod, text.pod);
        text.pod
    }

    #[test]
    fn the_fields_that_decide_are_read() {
        let found = Shared::default()
            .read(&pod("p", |_| {}).to_string())
            .unwrap();
        assert_eq!(found.name, ObjectName::new("shop", "p"));
        assert_eq!(found.version, "7");
        let read = found.pod.unwrap();
        assert_eq!(
            (&*read.uid, &*read.node, &*read.account),
            ("uid-p", "node-1", "till")
        );
        assert_eq!(read.labels.get("app").map(String::as_str), Some("till"));
        let wanted = read.wanted.unwrap();
        assert_eq!(*wanted, ["one".to_owned(), "b/two".to_owned()]);
    }

    #[test]
    fn what_is_absent_or_null_has_its_default() {
        let bare = json!({"metadata": {"name": "p", "labels": null, "annotations": null}, "spec": {"nodeName": "n"}});
        let read = read(&bare).unwrap();
        assert_eq!((&*read.account, &read.wanted), ("default", &None));
        let empty = pod("p", |pod| {
            pod["metadata"]["annotations"]["lanyard.dev/identity"] = json!("");
        });
        assert_eq!(super::tests::read(&empty).unwrap().wanted.unwrap().len(), 0);
    }

    #[test]
    fn pods_that_need_no_identity_do_not_count() {
        let phase = |phase: &str| pod("p", |pod| pod["status"]["phase"] = json!(phase));
        assert!(read(&phase("Pending")).is_some(), "on a node, not yet run");
        assert!(read(&phase("Succeeded")).is_none());
        assert!(read(&phase("Failed")).is_none());
        assert!(read(&pod("p", |pod| pod["spec"]["nodeName"] = json!(""))).is_none());
        let host = pod("p", |pod| pod["spec"]["hostNetwork"] = json!(true));
        assert!(read(&host).is_none());
        let mut told_apart = Shared::of_pods(true);
        assert!(told_apart.read(&host.to_string()).unwrap().pod.is_some());
        let ending = pod("p", |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        assert!(read(&ending).is_some(), "it may ask for tokens to its end");
    }

    #[test]
    fn pods_of_one_template_share_what_they_have_in_common() {
        let mut shared = Shared::default();
        let mut read = |name: &str| shared.read(&pod(name, |_| {}).to_string()).unwrap();
        let (one, other) = (read("p-1"), read("p-2"));
        assert!(Arc::ptr_eq(&one.name.namespace, &other.name.namespace));
        let (one, other) = (one.pod.unwrap(), other.pod.unwrap());
        assert!(Arc::ptr_eq(&one.labels, &other.labels));
        assert!(Arc::ptr_eq(&one.node, &other.node));
        assert!(Arc::ptr_eq(&one.wanted.unwrap(), &other.wanted.unwrap()));
    }
}
