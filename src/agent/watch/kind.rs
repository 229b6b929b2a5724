//! The kinds that are watched: where each lives, how much of it is asked for, and how one object's
//! text becomes a fact. Pure.
//!
//! Holds that a malformed object is dropped alone: what it is called is read before anything else.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::slim;
pub use crate::api::kind::Kind;
use crate::api::object::{Object, read};
use crate::api::{API_VERSION, Malformed};
use crate::kubernetes::Collection;
use crate::model::ids::ObjectName;

/// Bytes of a spec. The schema's bounds multiply to megabytes, each agent keeps all objects, and teams
/// write these kinds: without a bound a few hundred objects of one team would end every agent.
const LARGEST_BINDING: usize = 64 << 10;
/// An identity may carry a few CA bundles of 64 KiB.
const LARGEST_IDENTITY: usize = 288 << 10;

/// What every object has.
#[derive(Debug, Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    resource_version: String,
}

/// How much an object says, whatever it says.
#[derive(Debug, Deserialize)]
struct Extent<'a> {
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
}

/// An object as it came.
#[derive(Debug)]
pub struct Read {
    /// Its name; the namespace is empty for cluster kinds.
    pub name: ObjectName,
    /// Its `resourceVersion`.
    pub version: Version,
    /// What it says; `None`: nothing that concerns us, which only a service account may.
    pub object: Result<Option<Object>, Malformed>,
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

impl Kind {
    /// The kinds that every agent follows; [`Kind::Assignments`] only where assignments count,
    /// [`Kind::ServiceAccounts`] only where their annotations do.
    pub const ALL: [Self; 6] = [
        Self::Pods,
        Self::Namespaces,
        Self::Identities,
        Self::Bindings,
        Self::Policies,
        Self::Exceptions,
    ];

    /// The objects that concern a node: of pods by its name, of assignments by their own one's.
    pub fn collection(self, name: &str) -> Collection {
        let plural = self.as_str();
        Collection {
            path: if self.is_ours() {
                format!("/apis/{API_VERSION}/{plural}")
            } else {
                format!("/api/v1/{plural}")
            },
            selector: match self {
                Self::Pods => format!("fieldSelector=spec.nodeName%3D{name}"),
                Self::Assignments => format!("fieldSelector=metadata.name%3D{name}"),
                _ => String::new(),
            },
            metadata_only: matches!(self, Self::Namespaces | Self::ServiceAccounts),
        }
    }

    /// Reads an object of this kind. An error only where not even its name can be read.
    pub fn read(self, text: &RawValue) -> Result<Read, Malformed> {
        let named: Named =
            serde_json::from_str(text.get()).map_err(|error| Malformed::at("metadata", error))?;
        let Metadata {
            name,
            namespace,
            resource_version,
        } = named.metadata;
        Ok(Read {
            object: self.object(text, &resource_version),
            name: ObjectName::new(namespace, name),
            version: Version::of(&resource_version),
        })
    }

    fn check_size(self, text: &RawValue) -> Result<(), Malformed> {
        let largest = match self {
            Self::Bindings => LARGEST_BINDING,
            Self::Identities => LARGEST_IDENTITY,
            _ => return Ok(()),
        };
        let extent: Extent<'_> =
            serde_json::from_str(text.get()).map_err(|error| Malformed::at("object", error))?;
        let length = extent.spec.map_or(0, |spec| spec.get().len());
        if length > largest {
            let problem = format!("has {length} bytes, more than {largest}: split it");
            return Err(Malformed::at("spec", problem));
        }
        Ok(())
    }

    fn object(self, text: &RawValue, version: &str) -> Result<Option<Object>, Malformed> {
        if self == Self::Pods {
            return slim::read(text.get()).map(Some);
        }
        self.check_size(text)?;
        let mut value: Value =
            serde_json::from_str(text.get()).map_err(|error| Malformed::at("object", error))?;
        // Items of a list do not say what they are, and metadata alone calls itself something else.
        value["apiVersion"] = json!(if self.is_ours() { API_VERSION } else { "v1" });
        value["kind"] = json!(self.singular());
        let object = read(value, version)?;
        if object.is_none() && self != Self::ServiceAccounts {
            return Err(Malformed::at("kind", "is not one of ours"));
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_binding(values: usize) -> Read {
        let values: Vec<String> = (0..values).map(|n| format!("v{n:060}")).collect();
        let subject = json!({"podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": values}]}});
        let text = json!({"metadata": {"name": "b", "namespace": "a", "annotations": {"x": "y".repeat(200_000)}},
            "spec": {"identity": "i", "subjects": vec![subject; 32]}});
        let text = serde_json::value::to_raw_value(&text).unwrap();
        Kind::Bindings.read(&text).unwrap()
    }

    #[test]
    fn a_binding_of_the_size_of_many_is_malformed_and_still_named() {
        assert!(read_binding(4).object.is_ok(), "annotations are not kept");
        let large = read_binding(60);
        assert_eq!(&*large.name.name, "b");
        let problem = large.object.unwrap_err().to_string();
        assert!(problem.contains("split it"), "{problem}");
    }
}
