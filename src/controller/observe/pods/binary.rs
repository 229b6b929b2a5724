//! The same fields of a pod in Kubernetes' binary form. Pure.
//!
//! Numbers of fields: `k8s.io/api/core/v1/generated.proto` and `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`,
//! where they never change. What is not named here is passed over.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::{DecodeError, Message};

use super::{Slim, Wanted};
use crate::api::IDENTITY_ANNOTATION;

#[derive(Clone, PartialEq, Eq, Message)]
struct Pod {
    #[prost(message, required, tag = "1")]
    metadata: Metadata,
    #[prost(message, required, tag = "2")]
    spec: Spec,
    #[prost(message, required, tag = "3")]
    status: Status,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "12")]
    annotations: Vec<Annotation>,
}

/// An entry of a map: annotations may be long, so that none is copied that does not count.
#[derive(Clone, PartialEq, Eq, Message)]
struct Annotation {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Spec {
    #[prost(string, tag = "8")]
    service_account_name: String,
    #[prost(string, tag = "10")]
    node_name: String,
    #[prost(bool, tag = "11")]
    host_network: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Status {
    #[prost(string, tag = "1")]
    phase: String,
}

/// Reads a pod.
pub(super) fn slim(bytes: Bytes) -> Result<Slim, DecodeError> {
    let Pod {
        metadata,
        spec,
        status,
    } = Pod::decode(bytes)?;
    let mut annotations = metadata.annotations.into_iter();
    let wanted = annotations.find(|one| *one.key == *IDENTITY_ANNOTATION.as_bytes());
    let wanted = wanted.map(|one| Wanted(Some(String::from_utf8_lossy(&one.value).into_owned())));
    Ok(Slim {
        metadata: super::Metadata {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            labels: Some(metadata.labels),
            annotations: wanted,
        },
        spec: super::Spec {
            node_name: Some(spec.node_name),
            service_account_name: Some(spec.service_account_name),
            host_network: Some(spec.host_network),
        },
        status: super::Status {
            phase: Some(status.phase),
        },
    })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::*;

    /// A pod as the API server would write it.
    pub fn written(pod: &Value) -> Bytes {
        let text = |at: &str| {
            let found = pod.pointer(at).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let map = |at: &str| {
            let found = pod.pointer(at).and_then(Value::as_object);
            let found = found.into_iter().flatten();
            found.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        };
        let annotation = |(key, value): (String, String)| Annotation {
            key: key.into(),
            value: value.into(),
        };
        let pod = Pod {
            metadata: Metadata {
                name: text("/metadata/name"),
                namespace: text("/metadata/namespace"),
                uid: text("/metadata/uid"),
                resource_version: text("/metadata/resourceVersion"),
                labels: map("/metadata/labels").collect(),
                annotations: map("/metadata/annotations").map(annotation).collect(),
            },
            spec: Spec {
                service_account_name: text("/spec/serviceAccountName"),
                node_name: text("/spec/nodeName"),
                host_network: pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)),
            },
            status: Status {
                phase: text("/status/phase"),
            },
        };
        pod.encode_to_vec().into()
    }
}
