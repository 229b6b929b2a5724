//! What the API server was last heard to have of one kind: names and versions only. Pure.
//!
//! In: a complete list, or single events. Out: the changes that they mean. Holds that what is gone
//! from a list is deleted, that nothing older takes the place of something newer, and that a
//! malformed object counts as gone (fail closed), alone. Of what does not concern us nothing is kept:
//! most service accounts of a cluster name no identity.

use std::collections::{HashMap, HashSet};

use super::kind::{Kind, Read, Version};
use crate::agent::world::Change;
use crate::api::object::ObjectKey;
use crate::model::ids::ObjectName;

/// The objects of one kind.
#[derive(Debug)]
pub struct Mirror {
    kind: Kind,
    known: HashMap<ObjectName, Known>,
    malformed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    version: Version,
    malformed: bool,
}

impl Mirror {
    /// Nothing is known yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            known: HashMap::new(),
            malformed: 0,
        }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many objects cannot be used.
    pub fn malformed(&self) -> usize {
        self.malformed
    }

    /// An object came in an event, or was asked for: taken unless it is older than what is known.
    pub fn take(&mut self, read: Read) -> Option<Change> {
        let known = self.known.get(&read.name);
        if known.is_some_and(|known| read.version.is_old_beside(known.version)) {
            return None;
        }
        self.put(read)
    }

    /// An object was deleted at this version.
    pub fn delete(&mut self, name: &ObjectName, version: Version) -> Option<Change> {
        let known = self.known.get(name)?;
        // A successor of the same name may have been asked for already.
        if version.is_old_beside(known.version) && version != known.version {
            return None;
        }
        Some(self.remove(name.clone()))
    }

    /// All objects there are. What differs is taken, whatever its version: a cluster that was
    /// restored from a backup begins again with lower ones.
    pub fn replace(&mut self, all: Vec<Read>) -> Vec<Change> {
        let listed: HashSet<ObjectName> = all.iter().map(|read| read.name.clone()).collect();
        let gone = self.known.keys().filter(|name| !listed.contains(*name));
        let gone: Vec<ObjectName> = gone.cloned().collect();
        let mut changes: Vec<Change> = gone.into_iter().map(|name| self.remove(name)).collect();
        for read in all {
            let known = self.known.get(&read.name);
            let same = known.is_some_and(|known| {
                known.version == read.version && read.version != Version::default()
            });
            if !same {
                changes.extend(self.put(read));
            }
        }
        changes
    }

    fn put(&mut self, read: Read) -> Option<Change> {
        let Read {
            name,
            version,
            object,
        } = read;
        if let Ok(None) = object {
            return self.known.contains_key(&name).then(|| self.remove(name));
        }
        let before = self.known.get(&name).is_some_and(|known| known.malformed);
        let known = Known {
            version,
            malformed: object.is_err(),
        };
        self.malformed += usize::from(known.malformed);
        self.malformed -= usize::from(before);
        self.known.insert(name.clone(), known);
        match object.transpose()? {
            Ok(object) => Some(Change::Apply(object)),
            Err(problem) => {
                let kind = self.kind.singular();
                tracing::warn!(kind, %name, %problem, "object ignored until it is corrected");
                Some(Change::Delete(self.key(name)))
            }
        }
    }

    fn remove(&mut self, name: ObjectName) -> Change {
        let known = self.known.remove(&name);
        self.malformed -= usize::from(known.is_some_and(|known| known.malformed));
        Change::Delete(self.key(name))
    }

    fn key(&self, name: ObjectName) -> ObjectKey {
        ObjectKey {
            kind: self.kind,
            name,
        }
    }
}
