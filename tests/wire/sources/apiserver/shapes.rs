//! What the stand-in says and hears, as JSON: objects, watch lines, statuses, Events.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use serde_json::{Value, json};

/// A Secret as it is kept: its keys' values, already in base64.
pub type Data = BTreeMap<String, String>;
/// An answer.
pub type Answer = Response<BoxBody<Bytes, Infallible>>;

/// An Event, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub reason: String,
    /// `Kind/namespace/name`.
    pub about: String,
    pub note: String,
}

impl Event {
    pub fn of(value: &Value) -> Self {
        let text = |field: &str| {
            let found = value.pointer(field).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let about = ["kind", "namespace", "name"].map(|part| text(&format!("/regarding/{part}")));
        Self {
            reason: text("/reason"),
            about: about.join("/"),
            note: text("/note"),
        }
    }
}

pub fn object((namespace, name): &(String, String), version: u64, data: &Data) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-{name}"),
            "resourceVersion": version.to_string(),
        },
    })
}

pub fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

/// A parameter of a query, as it is written there.
pub fn value(query: &str, key: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
}

pub fn status(code: u16, message: &str) -> Answer {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        _ => "InternalError",
    };
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    plain(code, &body)
}

pub fn plain(code: u16, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *answer.status_mut() = code.try_into().unwrap();
    let json = hyper::header::HeaderValue::from_static("application/json");
    answer
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    answer
}
