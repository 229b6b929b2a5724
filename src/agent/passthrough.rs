//! Metadata paths other than tokens: closed, unless an `AzureMetadataException` opens exactly this
//! path for the pod's namespace and service account. The decision and the redaction are pure.
//!
//! Holds invariant 1: what is forwarded is a plain path that an operator listed, nothing else.

use std::sync::Arc;

use serde_json::Value;

use crate::model::facts::{ExceptionFacts, PodFacts};
use crate::model::fault::{Fault, FaultKind};
use crate::model::path::PlainPath;

/// Keys of the instance document that often hold the node's secrets.
const NODE_SECRETS: [&str; 2] = ["userdata", "customdata"];

/// How a path is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// As it is.
    Whole,
    /// Without `userData` and `customData`.
    Redacted,
}

/// Whether a path is open for a pod.
pub fn decide(
    exceptions: &[Arc<ExceptionFacts>],
    pod: &PodFacts,
    path: &PlainPath,
) -> Result<Opened, Fault> {
    let applies = |exception: &&Arc<ExceptionFacts>| {
        exception.namespace == pod.name.namespace
            && exception
                .service_accounts
                .iter()
                .any(|name| **name == *pod.service_account)
            && exception.paths.contains(path)
    };
    let mut opened = None;
    for exception in exceptions.iter().filter(applies) {
        if exception.allow_node_identity {
            return Ok(Opened::Whole);
        }
        opened = Some(Opened::Redacted);
    }
    let node_secret = path
        .as_str()
        .split('/')
        .any(|segment| NODE_SECRETS.contains(&segment));
    match opened {
        Some(opened) if !node_secret => Ok(opened),
        _ => Err(closed(path)),
    }
}

/// The refusal of a path. It says who can open it; it needs no look-up.
#[must_use]
pub fn closed(path: &PlainPath) -> Fault {
    let public = "This metadata path is not available to pods; a cluster operator can open it with an AzureMetadataException";
    // Shortened: what a pod sends as a path could be anything, a token of its own included.
    Fault::new(FaultKind::PathForbidden, public)
        .with_detail(&path.as_str()[..path.as_str().len().min(100)])
}

/// Takes the node's secrets out of a JSON document, whatever its content type says: what a client
/// may read as a document is treated as one. Other text (a single value, a listing of keys) cannot
/// hold them unless its path names them, which [`decide`] refuses. `None` for what says that it is
/// JSON and is none.
#[must_use]
pub fn redact(body: &[u8], content_type: Option<&str>) -> Option<Vec<u8>> {
    let says_json = content_type.is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
    let start = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if !says_json && !matches!(start, Some(b'{' | b'[')) {
        return Some(body.to_vec());
    }
    let mut value: Value = serde_json::from_slice(body).ok()?;
    remove_secrets(&mut value);
    serde_json::to_vec(&value).ok()
}

fn remove_secrets(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !NODE_SECRETS.contains(&key.to_ascii_lowercase().as_str()));
            map.values_mut().for_each(remove_secrets);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_secrets),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::receive::{Ask, receive};
    use super::super::testkit::{pod, pod_at, world};
    use super::*;

    fn path(path: &str) -> PlainPath {
        let request = hyper::Request::builder().uri(format!("{path}?api-version=2021-02-01"));
        let head = request
            .header("Metadata", "true")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        match receive(&head) {
            Ok(Ask::Metadata(query)) => query.path,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn opened(
        paths: &[&str],
        allow_node_identity: bool,
        account: &str,
        asked: &str,
    ) -> Option<Opened> {
        let world = world([pod("a", "p", "10.0.0.1", None)]);
        // Written out: manifests that list user data without the word for it are refused earlier.
        let exceptions = [Arc::new(ExceptionFacts {
            name: "x".into(),
            namespace: "a".into(),
            service_accounts: vec![account.to_owned()],
            paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
            allow_node_identity,
        })];
        decide(&exceptions, &pod_at(&world, "10.0.0.1"), &path(asked)).ok()
    }

    #[test]
    fn only_the_listed_path_opens_and_only_for_the_listed_pods() {
        let compute = ["/metadata/instance/compute/location"];
        assert_eq!(
            opened(&compute, false, "sa-p", compute[0]),
            Some(Opened::Redacted)
        );
        assert_eq!(
            opened(
                &compute,
                false,
                "sa-p",
                "/Metadata/Instance/compute/location/"
            ),
            Some(Opened::Redacted)
        );
        assert_eq!(opened(&compute, false, "sa-q", compute[0]), None);
        assert_eq!(
            opened(&compute, false, "sa-p", "/metadata/instance/compute"),
            None
        );
        assert_eq!(
            opened(&["/metadata/instance"], false, "sa-p", compute[0]),
            None
        );
        assert_eq!(
            opened(&[], false, "sa-p", "/metadata/attested/document"),
            None
        );
    }

    #[test]
    fn user_data_needs_the_operators_word() {
        let user_data = ["/metadata/instance/compute/userData"];
        assert_eq!(opened(&user_data, false, "sa-p", user_data[0]), None);
        assert_eq!(
            opened(&user_data, true, "sa-p", user_data[0]),
            Some(Opened::Whole)
        );
    }

    #[test]
    fn user_data_is_taken_out_of_every_document() {
        let body = json!({"compute": {"location": "x", "userData": "c2VjcmV0", "CustomData": "c2VjcmV0", "list": [{"userdata": 1}]}});
        let redacted = redact(body.to_string().as_bytes(), Some("application/json")).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&redacted).unwrap(),
            json!({"compute": {"location": "x", "list": [{}]}})
        );
        assert_eq!(redact(b"westeurope", Some("application/json")), None);
    }

    #[test]
    fn a_document_is_redacted_whatever_its_content_type() {
        let body = br#" {"userData": "c2VjcmV0"}"#;
        for kind in [None, Some("text/plain"), Some("Application/JSON")] {
            assert_eq!(redact(body, kind).unwrap(), b"{}", "{kind:?}");
            let cut = &body[..body.len() - 1];
            assert_eq!(redact(cut, kind), None, "not read, not passed on: {kind:?}");
        }
        assert_eq!(redact(b"westeurope", None).unwrap(), b"westeurope");
    }
}
