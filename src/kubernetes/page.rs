//! A page of a list, as the API server sent it: JSON, or Kubernetes' binary form. Pure.
//!
//! The binary form is four bytes, then a `runtime.Unknown` whose `raw` is the list in protobuf (source:
//! k8s.io/apimachinery, pkg/runtime/serializer/protobuf; the fields' numbers are in each generated.proto).
//! A list of pods is half as long in it, and most of it is passed over unread.

use bytes::{Buf, Bytes};
use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use prost::Message;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Failure;

const BINARY: &str = "application/vnd.kubernetes.protobuf";
/// For `Accept`, before the other form.
pub(super) const BINARY_FIRST: &str = "application/vnd.kubernetes.protobuf,";
const MAGIC: &[u8] = b"k8s\0";

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Binary,
}

impl Form {
    /// What an answer says of itself.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let said = headers.get(CONTENT_TYPE);
        if said.is_some_and(|said| said.as_bytes().starts_with(BINARY.as_bytes())) {
            Self::Binary
        } else {
            Self::Json
        }
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    bytes: Bytes,
    form: Form,
    /// How many objects were asked for: a good limit for the next page, too.
    pub limit: usize,
}

/// What a page in JSON holds.
#[derive(Debug, Deserialize)]
pub struct PageItems<'a> {
    /// About the list.
    pub metadata: ListMeta,
    /// The objects.
    #[serde(borrow, default, deserialize_with = "null_is_empty")]
    pub items: Vec<&'a RawValue>,
}

/// One object of a page.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// As JSON.
    Json(&'a RawValue),
    /// As protobuf, without the four bytes and `runtime.Unknown`.
    Binary(Bytes),
}

/// An empty list of metadata has `null` for its objects.
fn null_is_empty<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Vec<&'a RawValue>, D::Error> {
    Ok(Option::<Vec<&'a RawValue>>::deserialize(from)?.unwrap_or_default())
}

/// About a list.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    /// The version of the whole list: a watch begins there.
    #[prost(string, tag = "2")]
    #[serde(default)]
    pub resource_version: String,
    /// Where the next page begins; empty at the end.
    #[prost(string, tag = "3")]
    #[serde(default, rename = "continue")]
    pub next: String,
}

/// `k8s.io.apimachinery.pkg.runtime.Unknown`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Unknown {
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

/// A list of any kind.
#[derive(Clone, PartialEq, Eq, Message)]
struct List {
    #[prost(message, required, tag = "1")]
    metadata: ListMeta,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    items: Vec<Bytes>,
}

impl Page {
    pub(super) const fn new(bytes: Bytes, form: Form, limit: usize) -> Self {
        Self { bytes, form, limit }
    }

    /// Reads a page of a collection that is not [`super::Collection::binary`].
    pub fn items(&self) -> Result<PageItems<'_>, Failure> {
        serde_json::from_slice(&self.bytes).map_err(|error| Failure::Nonsense(error.to_string()))
    }

    /// Reads the page in either form.
    pub fn objects(&self) -> Result<(ListMeta, Vec<Item<'_>>), Failure> {
        if self.form == Form::Json {
            let PageItems { metadata, items } = self.items()?;
            return Ok((metadata, items.into_iter().map(Item::Json).collect()));
        }
        let List { metadata, items } = list(self.bytes.clone())?;
        Ok((metadata, items.into_iter().map(Item::Binary).collect()))
    }
}

fn list(mut bytes: Bytes) -> Result<List, Failure> {
    let nonsense = |error: prost::DecodeError| Failure::Nonsense(error.to_string());
    if !bytes.starts_with(MAGIC) {
        return Err(Failure::Nonsense("a binary list that is none".to_owned()));
    }
    bytes.advance(MAGIC.len());
    let unknown = Unknown::decode(bytes).map_err(nonsense)?;
    let list = List::decode(unknown.raw).map_err(nonsense)?;
    // Nothing at all would be an empty list, too: everything would be gone.
    if list.metadata.resource_version.is_empty() {
        return Err(Failure::Nonsense(
            "a binary list without a version".to_owned(),
        ));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(bytes: impl Into<Bytes>, form: Form) -> Page {
        Page::new(bytes.into(), form, 250)
    }

    #[test]
    fn a_list_of_nothing_is_read() {
        for items in ["null", "[]"] {
            let text = format!(r#"{{"metadata": {{"resourceVersion": "7"}}, "items": {items}}}"#);
            let page = page(text, Form::Json);
            let read = page.items().unwrap();
            assert_eq!(
                (read.items.len(), &*read.metadata.resource_version),
                (0, "7")
            );
        }
    }

    #[test]
    fn a_binary_list_is_read_and_nonsense_is_an_error() {
        let metadata = ListMeta {
            resource_version: "7".to_owned(),
            next: "more".to_owned(),
        };
        let list = List {
            metadata: metadata.clone(),
            items: vec![Bytes::from_static(b"one"), Bytes::from_static(b"")],
        };
        let unknown = Unknown {
            raw: list.encode_to_vec().into(),
        };
        let whole = [MAGIC, &unknown.encode_to_vec()].concat();
        let read = page(whole.clone(), Form::Binary);
        let (about, items) = read.objects().unwrap();
        assert_eq!(about, metadata);
        assert!(matches!(&items[..], [Item::Binary(one), Item::Binary(_)] if &**one == b"one"));
        for end in 0..whole.len() - 1 {
            // Cut off anywhere: an error, never a shorter list.
            assert!(
                page(whole[..end].to_vec(), Form::Binary).objects().is_err(),
                "{end}"
            );
        }
        assert!(page(&b"{}"[..], Form::Binary).objects().is_err());
    }

    #[test]
    fn an_answer_says_how_it_is_written() {
        let of = |text: &'static str| {
            let header = (CONTENT_TYPE, hyper::header::HeaderValue::from_static(text));
            Form::of(&HeaderMap::from_iter([header]))
        };
        assert_eq!(of(BINARY), Form::Binary);
        assert_eq!(of("application/json"), Form::Json);
        assert_eq!(Form::of(&HeaderMap::new()), Form::Json);
        assert!(BINARY_FIRST.starts_with(BINARY));
    }
}
