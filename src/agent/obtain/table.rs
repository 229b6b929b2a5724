//! All entries, by identity and resource, within bounds.
//!
//! In: keys. Out: entries. Never waits; a look-up copies nothing. Invariant 5: at most 64 keys for
//! one identity. Whoever needs room gives up an entry of his own first; only then the least
//! recently used one goes, those without a usable token before those with. An entry with a fetch in
//! flight is never evicted, so a key cannot get a second fetch.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::model::grant::Asker;

use super::clock::Moment;
use super::entry::Entry;
use super::key::IdentityKey;

type Resources = HashMap<Box<str>, Arc<Entry>>;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Keys of one identity.
    pub per_identity: usize,
    /// Keys at all.
    pub total: usize,
}

/// No room: everything that could go has a fetch in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The entries.
#[derive(Debug)]
pub struct Table {
    bounds: Bounds,
    identities: RwLock<Identities>,
}

#[derive(Debug, Default)]
struct Identities {
    by_key: HashMap<IdentityKey, Resources>,
    count: usize,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            identities: RwLock::default(),
        }
    }

    /// The entry of a key, if there is one.
    #[must_use]
    pub fn find(&self, key: &IdentityKey, resource: &str) -> Option<Arc<Entry>> {
        let identities = self.identities.read();
        identities.by_key.get(key)?.get(resource).cloned()
    }

    /// The entry of a key; a new one is made, and room for it, if there is none.
    pub fn find_or_insert(
        &self,
        key: &IdentityKey,
        resource: &str,
        asker: &Asker,
        now: Moment,
    ) -> Result<Arc<Entry>, Full> {
        let mut identities = self.identities.write();
        let identities = &mut *identities;
        if let Some(own) = identities.by_key.get_mut(key) {
            if let Some(entry) = own.get(resource) {
                return Ok(Arc::clone(entry));
            }
            if own.len() >= self.bounds.per_identity {
                evict(own, asker, now).ok_or(Full)?;
                identities.count -= 1;
            }
        }
        if identities.count >= self.bounds.total {
            identities.evict_anywhere(asker, now)?;
        }
        let entry = Arc::new(Entry::new(asker.clone(), now.mono));
        let own = identities.by_key.entry(key.clone()).or_default();
        own.insert(resource.into(), Arc::clone(&entry));
        identities.count += 1;
        Ok(entry)
    }

    /// Keeps only identities that are still in use (and fetches in flight, to their end).
    pub fn retain(&self, alive: impl Fn(&IdentityKey) -> bool) {
        let mut identities = self.identities.write();
        let identities = &mut *identities;
        let mut count = 0;
        identities.by_key.retain(|key, resources| {
            if !alive(key) {
                resources.retain(|_, entry| !retire(entry));
            }
            count += resources.len();
            !resources.is_empty()
        });
        identities.count = count;
    }

    /// Does something with every entry of the matching identities.
    pub fn each(&self, matching: impl Fn(&IdentityKey) -> bool, act: impl Fn(&Entry)) {
        let identities = self.identities.read();
        let matching = identities.by_key.iter().filter(|(key, _)| matching(key));
        matching
            .flat_map(|(_, resources)| resources.values())
            .for_each(|entry| act(entry));
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.read().count
    }
}

impl Identities {
    fn evict_anywhere(&mut self, asker: &Asker, now: Moment) -> Result<(), Full> {
        let ranked = self.by_key.iter().filter_map(|(key, resources)| {
            victim(resources, asker, now).map(|(rank, _)| (rank, key.clone()))
        });
        let (_, key) = ranked.min_by_key(|(rank, _)| *rank).ok_or(Full)?;
        let resources = self.by_key.get_mut(&key).ok_or(Full)?;
        evict(resources, asker, now).ok_or(Full)?;
        if resources.is_empty() {
            self.by_key.remove(&key);
        }
        self.count -= 1;
        Ok(())
    }
}

/// Who goes first: one's own, then those without a usable token, then the least recently used.
type Rank = (bool, bool, u64);

fn victim<'a>(resources: &'a Resources, asker: &Asker, now: Moment) -> Option<(Rank, &'a str)> {
    let ranked = resources.iter().filter_map(|(resource, entry)| {
        let cell = entry.cell.lock();
        let rank = (
            !entry.is_only_of(asker),
            cell.slot.usable(now).is_some(),
            entry.used(),
        );
        (!cell.slot.in_flight()).then_some((rank, &**resource))
    });
    ranked.min_by_key(|(rank, _)| *rank)
}

fn evict(resources: &mut Resources, asker: &Asker, now: Moment) -> Option<()> {
    let (_, resource) = victim(resources, asker, now)?;
    let resource: Box<str> = resource.into();
    // A fetch may have begun since the ranking; then its entry stays, and the table is full.
    retire(resources.get(&resource)?).then_some(())?;
    resources.remove(&resource);
    Some(())
}

/// Marks an entry as gone, unless a fetch is in flight.
fn retire(entry: &Entry) -> bool {
    let mut cell = entry.cell.lock();
    cell.gone = !cell.slot.in_flight();
    cell.gone
}
