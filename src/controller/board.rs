//! Where apply tells how far each compute resource is, for the report: the newest record of each, and
//! what keeps a compute resource as a whole from being in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::known::Existence;
use super::managed::ManagedOutcome;
use super::record::Record;
use crate::model::compute::Compute;
use crate::model::ids::{ArmId, ObjectName};

/// How far a compute resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub compute: Arc<Compute>,
    /// Its record, as it was last written.
    pub record: Arc<Record>,
    /// What keeps all of it from being in order: throttled, gone, forbidden, an operation that hangs.
    pub trouble: Option<Trouble>,
}

/// Something that keeps a compute resource from being in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One word, for example `Throttled`.
    pub reason: Arc<str>,
    /// Azure's words and the way out.
    pub message: Arc<str>,
    /// Nothing is asked of it before (since the epoch).
    pub until: Option<Duration>,
}

/// Of so many identities it is remembered that something new was told.
const REMEMBERED: usize = 256;

/// The identities of which something new was told.
#[derive(Debug, Default)]
struct News {
    /// How often anything was.
    told: u64,
    /// Of which the last times, the oldest first.
    last: VecDeque<ArmId>,
}

/// What was told last of every compute resource and of every identity.
#[derive(Debug)]
pub struct Board {
    computes: RwLock<BTreeMap<ArmId, Told>>,
    identities: RwLock<BTreeMap<ArmId, Existence>>,
    troubles: RwLock<BTreeMap<ArmId, Trouble>>,
    managed: RwLock<BTreeMap<ObjectName, ManagedOutcome>>,
    leaving: RwLock<BTreeSet<ArmId>>,
    generation: watch::Sender<u64>,
    news: RwLock<News>,
    existences: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            computes: RwLock::default(),
            identities: RwLock::default(),
            troubles: RwLock::default(),
            managed: RwLock::default(),
            leaving: RwLock::default(),
            generation: watch::Sender::new(0),
            news: RwLock::default(),
            existences: watch::Sender::new(0),
        }
    }
}

impl Board {
    /// Tells how far a compute resource is.
    pub fn tell(&self, told: Told) {
        let mut computes = self.computes.write();
        if computes.get(&told.compute.id) == Some(&told) {
            return;
        }
        computes.insert(told.compute.id.clone(), told);
        drop(computes);
        self.changed();
    }

    /// A compute resource is gone, and with it its record.
    pub fn forget(&self, compute: &ArmId) {
        if self.computes.write().remove(compute).is_some() {
            self.changed();
        }
    }

    /// Tells what is known of an identity.
    pub fn tell_existence(&self, identity: &ArmId, existence: Existence) {
        let mut identities = self.identities.write();
        if identities.get(identity) == Some(&existence) {
            return;
        }
        identities.insert(identity.clone(), existence);
        drop(identities);
        self.news_of(identity);
        self.changed();
    }

    /// Nobody names the identity any more.
    pub fn forget_existence(&self, identity: &ArmId) {
        self.identities.write().remove(identity);
        self.troubles.write().remove(identity);
    }

    /// Tells what keeps an identity from being known (a role that is missing, a throttled subscription);
    /// `None`: nothing does any more.
    pub fn tell_trouble(&self, identity: &ArmId, trouble: Option<Trouble>) {
        let mut troubles = self.troubles.write();
        if troubles.get(identity) == trouble.as_ref() {
            return;
        }
        match trouble {
            Some(trouble) => drop(troubles.insert(identity.clone(), trouble)),
            None => drop(troubles.remove(identity)),
        }
        drop(troubles);
        self.changed();
    }

    /// What keeps an identity from being known; what was known before stays known meanwhile.
    #[must_use]
    pub fn trouble(&self, identity: &ArmId) -> Option<Trouble> {
        self.troubles.read().get(identity).cloned()
    }

    /// What is known of an identity.
    #[must_use]
    pub fn existence(&self, identity: &ArmId) -> Existence {
        let known = self.identities.read().get(identity).cloned();
        known.unwrap_or_default()
    }

    /// What is known of all identities.
    #[must_use]
    pub fn existences(&self) -> BTreeMap<ArmId, Existence> {
        self.identities.read().clone()
    }

    /// Whether an identity is about to be deleted in Azure: it is taken off all compute resources at once,
    /// wanted or not.
    pub fn tell_leaving(&self, identity: &ArmId, leaves: bool) {
        let mut leaving = self.leaving.write();
        let changed = if leaves {
            leaving.insert(identity.clone())
        } else {
            leaving.remove(identity)
        };
        drop(leaving);
        if changed {
            self.news_of(identity);
        }
    }

    /// Which of these identities are about to be deleted in Azure.
    pub fn leaving<'a>(&self, of: impl Iterator<Item = &'a ArmId>) -> Vec<ArmId> {
        let leaving = self.leaving.read();
        if leaving.is_empty() {
            return Vec::new();
        }
        of.filter(|id| leaving.contains(id)).cloned().collect()
    }

    /// Tells how far a managed identity is.
    pub fn tell_managed(&self, identity: &ObjectName, outcome: ManagedOutcome) {
        let mut managed = self.managed.write();
        if managed.get(identity) == Some(&outcome) {
            return;
        }
        managed.insert(identity.clone(), outcome);
        drop(managed);
        self.changed();
    }

    /// A managed identity's object (of this UID) is gone.
    pub fn forget_managed(&self, identity: &ObjectName, uid: &str) {
        let mut managed = self.managed.write();
        let is_it = managed.get(identity).is_some_and(|of| *of.uid == *uid);
        if is_it {
            managed.remove(identity);
            drop(managed);
            self.changed();
        }
    }

    /// How far a managed identity is; `None`: nothing was told (yet).
    #[must_use]
    pub fn managed(&self, identity: &ObjectName) -> Option<ManagedOutcome> {
        self.managed.read().get(identity).cloned()
    }

    /// How far all compute resources are.
    #[must_use]
    pub fn computes(&self) -> BTreeMap<ArmId, Told> {
        self.computes.read().clone()
    }

    /// Changes with everything that is told. Subscribe before the first look.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The identities of which something new was told since it had been `told` times, and how often it
    /// has been now. `None`: of more than are remembered.
    #[must_use]
    pub fn news_since(&self, told: u64) -> (u64, Option<Vec<ArmId>>) {
        let news = self.news.read();
        let missed = usize::try_from(news.told.saturating_sub(told)).unwrap_or(usize::MAX);
        let first = news.last.len().checked_sub(missed);
        (
            news.told,
            first.map(|first| news.last.range(first..).cloned().collect()),
        )
    }

    fn news_of(&self, identity: &ArmId) {
        let mut news = self.news.write();
        news.told += 1;
        if news.last.len() == REMEMBERED {
            news.last.pop_front();
        }
        news.last.push_back(identity.clone());
        let told = news.told;
        drop(news);
        self.existences.send_replace(told);
    }

    /// Changes with what is told of identities, and not with what is told of compute resources.
    pub fn subscribe_existences(&self) -> watch::Receiver<u64> {
        self.existences.subscribe()
    }

    fn changed(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_told_once_and_too_many_are_not_told_singly() {
        let board = Board::default();
        let id = |n: usize| -> ArmId { format!("/subscriptions/s/i{n}").parse().unwrap() };
        assert_eq!(board.news_since(0), (0, Some(vec![])));
        board.tell_existence(&id(1), Existence::Missing);
        board.tell_existence(&id(1), Existence::Missing);
        board.tell_leaving(&id(2), true);
        assert_eq!(board.news_since(0), (2, Some(vec![id(1), id(2)])));
        assert_eq!(board.news_since(1), (2, Some(vec![id(2)])));
        for n in 0..REMEMBERED {
            board.tell_existence(&id(n + 10), Existence::Missing);
        }
        let (told, news) = board.news_since(2);
        assert_eq!(news.map(|news| news.len()), Some(REMEMBERED));
        assert_eq!(board.news_since(1), (told, None));
        assert_eq!(board.news_since(told), (told, Some(vec![])));
    }
}
