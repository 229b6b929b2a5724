//! The kinds that an agent watches: where each lives, how much of it is asked for, and how one object's
//! text becomes a fact. Pure.
//!
//! Holds that a malformed object counts as gone (fail closed), alone.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::slim;
use crate::agent::world::{Batch, Change};
use crate::api::kind::Kind;
use crate::api::object::{self, Object, ObjectKey};
use crate::api::{API_VERSION, Malformed};
use crate::kubernetes::Collection;
use crate::kubernetes::watch::{Named, Read, Reader, Version, check_size};
use crate::model::ids::ObjectName;

/// The kinds that every agent follows; [`Kind::Assignments`] only where assignments count,
/// [`Kind::ServiceAccounts`] only where their annotations do.
pub const ALWAYS: [Kind; 6] = [
    Kind::Pods,
    Kind::Namespaces,
    Kind::Identities,
    Kind::Bindings,
    Kind::Policies,
    Kind::Exceptions,
];

/// Makes facts of the objects of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Facts(pub Kind);

impl Reader for Facts {
    type Object = Object;
    type Change = Change;
    type Batch = Batch;

    fn kind(&self) -> Kind {
        self.0
    }

    fn read(&mut self, text: &RawValue) -> Result<Read<Object>, Malformed> {
        read(self.0, text)
    }

    fn applied(&self, _: &ObjectName, object: Object) -> Change {
        Change::Apply(object)
    }

    fn deleted(&self, name: ObjectName) -> Change {
        Change::Delete(ObjectKey { kind: self.0, name })
    }

    fn batch(changes: Vec<Change>, complete: bool) -> Batch {
        Batch {
            changes,
            malformed: None,
            complete,
        }
    }
}

/// The objects that concern a node: of pods by its name, of assignments by their own one's.
pub fn collection(kind: Kind, name: &str) -> Collection {
    let selector = match kind {
        Kind::Pods => format!("fieldSelector=spec.nodeName%3D{name}"),
        Kind::Assignments => format!("fieldSelector=metadata.name%3D{name}"),
        _ => String::new(),
    };
    Collection {
        selector,
        metadata_only: matches!(kind, Kind::Namespaces | Kind::ServiceAccounts),
        binary: false,
        ..Collection::every(kind)
    }
}

/// Reads an object. An error only where not even its name can be read.
pub fn read(kind: Kind, text: &RawValue) -> Result<Read<Object>, Malformed> {
    let Named { name, version } = Named::read(text)?;
    let (object, malformed) = match fact(kind, text, &version) {
        Ok(object) => (object, None),
        Err(problem) => (None, Some(problem)),
    };
    Ok(Read {
        name,
        version: Version::of(&version),
        object,
        malformed,
        // The agent compares by itself what follows from a fact.
        digest: None,
    })
}

fn fact(kind: Kind, text: &RawValue, version: &str) -> Result<Option<Object>, Malformed> {
    if kind == Kind::Pods {
        return slim::read(text.get()).map(Some);
    }
    check_size(kind, text)?;
    let mut value: Value =
        serde_json::from_str(text.get()).map_err(|error| Malformed::at("object", error))?;
    // Items of a list do not say what they are, and metadata alone calls itself something else.
    value["apiVersion"] = json!(if kind.is_ours() { API_VERSION } else { "v1" });
    value["kind"] = json!(kind.singular());
    let object = object::read(value, version)?;
    if object.is_none() && kind != Kind::ServiceAccounts {
        return Err(Malformed::at("kind", "is not one of ours"));
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_binding(values: usize) -> Read<Object> {
        let values: Vec<String> = (0..values).map(|n| format!("v{n:060}")).collect();
        let subject = json!({"podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": values}]}});
        let text = json!({"metadata": {"name": "b", "namespace": "a", "annotations": {"x": "y".repeat(200_000)}},
            "spec": {"identity": "i", "subjects": vec![subject; 32]}});
        let text = serde_json::value::to_raw_value(&text).unwrap();
        read(Kind::Bindings, &text).unwrap()
    }

    #[test]
    fn a_binding_of_the_size_of_many_is_malformed_and_still_named() {
        let small = read_binding(4);
        assert!(small.malformed.is_none(), "annotations are not kept");
        let large = read_binding(60);
        assert_eq!(&*large.name.name, "b");
        let problem = large.malformed.unwrap().to_string();
        assert!(problem.contains("split it"), "{problem}");
    }
}
