//! What a reader makes of an object's text, and what every text says. Pure.
//!
//! Holds that a malformed object is dropped alone: what it is called is read before anything else.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU64;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::Malformed;
use crate::api::kind::Kind;
use crate::model::ids::ObjectName;

/// Makes something of the objects of one kind.
pub trait Reader: Send + 'static {
    /// What is made of an object.
    type Object: Send;
    /// What tells others that an object is now like this, or gone.
    type Change: Send;
    /// Changes that were observed together.
    type Batch: Send;

    /// The kind.
    fn kind(&self) -> Kind;

    /// Reads an object. An error only where not even its name can be read.
    fn read(&mut self, text: &RawValue) -> Result<Read<Self::Object>, Malformed>;

    /// The same of an object in Kubernetes' binary form, for collections that ask for it
    /// ([`crate::kubernetes::Collection::binary`]).
    fn read_binary(&mut self, _: Bytes) -> Result<Read<Self::Object>, Malformed> {
        Err(Malformed::at("object", "the binary form was not asked for"))
    }

    /// The object is now like this.
    fn applied(&self, name: &ObjectName, object: Self::Object) -> Self::Change;

    /// The object is gone, or does not concern us any more.
    fn deleted(&self, name: ObjectName) -> Self::Change;

    /// Changes in their order; `complete`: with them every kind was told at least once.
    fn batch(changes: Vec<Self::Change>, complete: bool) -> Self::Batch;
}

/// An object as it came.
#[derive(Debug)]
pub struct Read<T> {
    /// Its name; the namespace is empty for cluster kinds.
    pub name: ObjectName,
    /// Its `resourceVersion`.
    pub version: Version,
    /// What it says; `None`: nothing that concerns us, or nothing that can be used.
    pub object: Option<T>,
    /// Why it cannot be used.
    pub malformed: Option<Malformed>,
    /// A fingerprint of what counts of it: where that is the same as before, nothing has changed.
    /// `None`: every version is a change.
    pub digest: Option<Digest>,
}

/// A fingerprint of what counts of an object, of use in one process only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(NonZeroU64);

impl Digest {
    /// The fingerprint of a value. `keys` must be the same for all that are compared.
    pub fn of(keys: &RandomState, value: impl Hash) -> Self {
        Self(NonZeroU64::new(keys.hash_one(value)).unwrap_or(NonZeroU64::MIN))
    }
}

/// A `resourceVersion`. Numbers are compared by size (they are etcd's revisions), anything else only
/// for being the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version(u64);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl Version {
    /// Reads a version; 0 stands for "unknown".
    pub fn of(text: &str) -> Self {
        Self(text.parse().unwrap_or_default())
    }

    /// Whether this one is surely not newer than `other`.
    pub fn is_old_beside(self, other: Self) -> bool {
        self.0 != 0 && self.0 <= other.0
    }
}

/// What every object is called, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name; the namespace is empty for cluster kinds.
    pub name: ObjectName,
    /// Its `resourceVersion`, as written.
    pub version: String,
}

#[derive(Debug, Deserialize)]
struct Whole {
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    resource_version: String,
}

impl Named {
    /// Reads name and version out of an object's text, whatever else it holds. A bookmark has no name.
    pub fn read(text: &RawValue) -> Result<Self, Malformed> {
        let whole: Whole =
            serde_json::from_str(text.get()).map_err(|error| Malformed::at("metadata", error))?;
        let Metadata {
            name,
            namespace,
            resource_version,
        } = whole.metadata;
        Ok(Self {
            name: ObjectName::new(namespace, name),
            version: resource_version,
        })
    }
}
