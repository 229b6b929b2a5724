//! One Secret, by its name: read, and watched for changes. Secrets are never listed: the rights that are
//! needed are `get` and `watch` on this one name.
//!
//! In: namespace and name. Out: the values of its keys, wiped from memory when dropped. What this
//! process read of the connection is wiped, too, as far as it is ours: buffers of the HTTP and TLS
//! libraries are not, they are overwritten by what comes next.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};
use kube::client::Body;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::{Zeroize, Zeroizing};

use super::Cluster;
use super::collection::{Collection, Events, Failure, causes, in_time};
use crate::model::ids::ObjectName;

/// A Secret has at most 1 MiB of values; base64 and JSON make more of it.
const LONGEST: usize = 4 << 20;

/// What a Secret holds, by key. Shows its keys only, and wipes its values when dropped.
#[derive(Default)]
pub struct SecretData {
    values: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

/// A Secret that was read.
#[derive(Debug)]
pub struct SecretObject {
    /// What it holds.
    pub data: SecretData,
    /// Its `resourceVersion`: a watch goes on from there.
    pub version: String,
}

impl SecretData {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(|value| value.as_slice())
    }

    /// Sets a key's value.
    pub fn insert(&mut self, key: String, value: Zeroizing<Vec<u8>>) {
        self.values.insert(key, value);
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// A Secret as the API server writes it; nothing is copied where nothing is escaped.
#[derive(Deserialize)]
struct Written<'a> {
    metadata: Metadata,
    #[serde(borrow, default)]
    data: Option<BTreeMap<String, Text<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Drop for Text<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

/// Not a word of the text: it may be the secret.
fn unreadable() -> Failure {
    Failure::Nonsense("it is not what a Secret looks like".to_owned())
}

impl SecretObject {
    /// Reads the JSON of a Secret. The error says nothing of the text.
    pub fn read(text: &str) -> Result<Self, Failure> {
        let written: Written<'_> = serde_json::from_str(text).map_err(|_| unreadable())?;
        let mut data = SecretData::default();
        for (key, Text(encoded)) in written.data.iter().flatten() {
            let value = decoded(encoded).ok_or_else(unreadable)?;
            data.insert(key.clone(), value);
        }
        Ok(Self {
            data,
            version: written.metadata.resource_version,
        })
    }
}

/// Base64 as values of Secrets are written. In a buffer that does not grow: a smaller one would be left
/// behind with what was in it.
#[must_use]
pub fn decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut value = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = STANDARD.decode_slice(text, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

impl Cluster {
    /// A Secret as it is now; `None`: there is none of that name.
    pub async fn secret(
        &self,
        name: &ObjectName,
        deadline: Duration,
    ) -> Result<Option<SecretObject>, Failure> {
        match in_time(deadline, self.secret_text(name)).await {
            Ok(text) => {
                let text = std::str::from_utf8(&text).map_err(|_| unreadable())?;
                SecretObject::read(text).map(Some)
            }
            Err(Failure::Refused { status: 404, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn secret_text(&self, name: &ObjectName) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let path = format!(
            "/api/v1/namespaces/{}/secrets/{}",
            name.namespace, name.name
        );
        let request = Request::get(path)
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .body(Body::empty())
            .map_err(|error| Failure::Nonsense(error.to_string()))?;
        let answer = self.send(request).await?;
        let mut body = Limited::new(answer.into_body(), LONGEST);
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Unreachable(causes(error.as_ref())))?;
            frames.extend(frame.into_data());
        }
        let mut text = Zeroizing::new(Vec::with_capacity(frames.iter().map(Bytes::len).sum()));
        for frame in frames {
            text.extend_from_slice(&frame);
            wipe(frame);
        }
        Ok(text)
    }

    /// Begins to watch a Secret behind a version; with an empty one from how it is now, should it be
    /// there by then. The server ends the watch after `lifetime`.
    pub async fn watch_secret(
        &self,
        name: &ObjectName,
        version: &str,
        lifetime: Duration,
        deadline: Duration,
    ) -> Result<Events, Failure> {
        let collection = Collection {
            path: format!("/api/v1/namespaces/{}/secrets", name.namespace),
            // The API server takes this selector for the name that the right is about.
            selector: format!("fieldSelector=metadata.name%3D{}", name.name),
            metadata_only: false,
            binary: false,
        };
        let events = self.watch(&collection, version, lifetime, deadline).await?;
        Ok(events.wiped())
    }
}

/// Overwrites what came, unless somebody else holds it, too.
fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.zeroize();
    }
}

/// Reads the Secret of an event.
impl TryFrom<&RawValue> for SecretObject {
    type Error = Failure;

    fn try_from(object: &RawValue) -> Result<Self, Failure> {
        Self::read(object.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_shown_nowhere() {
        let text = r#"{"kind":"Secret","metadata":{"name":"app","resourceVersion":"7"},
            "data":{"clientSecret":"aHVudGVyMg==","empty":""},"type":"Opaque"}"#;
        let object = SecretObject::read(text).unwrap();
        assert_eq!(object.version, "7");
        assert_eq!(object.data.get("clientSecret"), Some(&b"hunter2"[..]));
        assert_eq!(object.data.get("empty"), Some(&b""[..]));
        assert_eq!(object.data.get("other"), None);
        assert_eq!(
            object.data.keys().collect::<Vec<_>>(),
            ["clientSecret", "empty"]
        );
        assert!(!format!("{object:?}").contains("hunter2"));
    }

    #[test]
    fn a_secret_without_data_is_an_empty_one() {
        for data in ["", r#","data":null"#, r#","data":{}"#] {
            let text = format!(r#"{{"metadata":{{"name":"app"}}{data}}}"#);
            assert_eq!(SecretObject::read(&text).unwrap().data.keys().count(), 0);
        }
    }

    #[test]
    fn nonsense_is_not_quoted() {
        for text in [
            r#"{"metadata":{},"data":"hunter2"}"#,
            r#"{"metadata":{},"data":{"a":"hunter2!"}}"#,
            r#"{"metadata":"hunter2"}"#,
            "hunter2",
        ] {
            let error = SecretObject::read(text).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("hunter2"));
        }
    }
}
