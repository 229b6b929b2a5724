//! What the API server was last heard to have of one kind: names, versions and fingerprints only. Pure.
//!
//! In: a complete list, or single events. Out: the changes that they mean. Holds that what is gone
//! from a list is deleted, that nothing older takes the place of something newer, that what says the
//! same as before is no change, and that a malformed object harms no other. Of what does not concern
//! us nothing is kept: most service accounts of a cluster name no identity, most ended pods ran long ago.

use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::read::{Digest, Read, Reader, Version};
use crate::api::Malformed;
use crate::api::kind::Kind;
use crate::kubernetes::Item;
use crate::model::ids::ObjectName;

/// The objects of one kind.
#[derive(Debug)]
pub struct Mirror<R> {
    reader: R,
    known: HashMap<ObjectName, Known>,
    malformed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    version: Version,
    digest: Option<Digest>,
    malformed: bool,
}

impl<R: Reader> Mirror<R> {
    /// Nothing is known yet.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            known: HashMap::new(),
            malformed: 0,
        }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.reader.kind()
    }

    /// How many objects cannot be used.
    pub fn malformed(&self) -> usize {
        self.malformed
    }

    /// Makes of an object in a list what can be taken.
    pub fn read_item(&mut self, item: &Item<'_>) -> Result<Read<R::Object>, Malformed> {
        match item {
            Item::Json(text) => self.reader.read(text),
            Item::Binary(bytes) => self.reader.read_binary(bytes.clone()),
        }
    }

    /// Makes of an object's text what can be taken.
    pub fn read(&mut self, text: &RawValue) -> Result<Read<R::Object>, Malformed> {
        self.reader.read(text)
    }

    /// An object came in an event, or was asked for: taken unless it is older than what is known.
    pub fn take(&mut self, read: Read<R::Object>) -> Option<R::Change> {
        let known = self.known.get(&read.name);
        if known.is_some_and(|known| read.version.is_old_beside(known.version)) {
            return None;
        }
        self.put(read)
    }

    /// An object was deleted at this version.
    pub fn delete(&mut self, name: &ObjectName, version: Version) -> Option<R::Change> {
        let known = self.known.get(name)?;
        // A successor of the same name may have been asked for already.
        if version.is_old_beside(known.version) && version != known.version {
            return None;
        }
        Some(self.remove(name.clone()))
    }

    /// All objects there are. What differs is taken, whatever its version: a cluster that was
    /// restored from a backup begins again with lower ones.
    pub fn replace(&mut self, all: Vec<Read<R::Object>>) -> Vec<R::Change> {
        let listed: HashSet<&ObjectName> = all.iter().map(|read| &read.name).collect();
        let gone = self.known.keys().filter(|name| !listed.contains(*name));
        let gone: Vec<ObjectName> = gone.cloned().collect();
        let mut changes: Vec<R::Change> = gone.into_iter().map(|name| self.remove(name)).collect();
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

    fn put(&mut self, read: Read<R::Object>) -> Option<R::Change> {
        let Read {
            name,
            version,
            object,
            malformed,
            digest,
        } = read;
        if object.is_none() && malformed.is_none() {
            return self.known.contains_key(&name).then(|| self.remove(name));
        }
        let known = Known {
            version,
            digest,
            malformed: malformed.is_some(),
        };
        let before = self.known.insert(name.clone(), known);
        self.malformed += usize::from(known.malformed);
        self.malformed -= usize::from(before.is_some_and(|before| before.malformed));
        if digest.is_some() && before.is_some_and(|before| before.digest == digest) {
            return None;
        }
        if let Some(problem) = malformed {
            let kind = self.kind().singular();
            tracing::warn!(kind, %name, %problem, "object ignored until it is corrected");
        }
        Some(match object {
            Some(object) => self.reader.applied(&name, object),
            None => self.reader.deleted(name),
        })
    }

    fn remove(&mut self, name: ObjectName) -> R::Change {
        let known = self.known.remove(&name);
        self.malformed -= usize::from(known.is_some_and(|known| known.malformed));
        self.reader.deleted(name)
    }
}
