//! All that was observed, and what is wanted because of it: the world and its ledger, kept together.
//! In: batches. Out: what differs for apply. Pure but for the clock of its histogram.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use prometheus::Histogram;

use crate::controller::apply::Wanted;
use crate::controller::desire::{Ledger, Touched};
use crate::controller::world::{Batch, Change, World};
use crate::model::compute::Compute;
use crate::model::ids::{ArmId, ObjectName};

/// World and ledger.
pub struct Core {
    /// What was observed.
    pub world: World,
    /// What is wanted because of it.
    pub ledger: Ledger,
    /// Whether everything was observed once: nothing is planned before.
    pub complete: bool,
    seconds: Histogram,
}

/// What a batch changed.
#[derive(Debug)]
pub struct Taken {
    /// The changes themselves.
    pub changes: Vec<Change>,
    /// The compute resources of which something else is wanted now.
    pub computes: BTreeSet<ArmId>,
}

impl Core {
    /// Nothing was observed yet. `seconds`: how long taking a batch in takes.
    pub fn new(seconds: Histogram) -> Self {
        Self {
            world: World::default(),
            ledger: Ledger::default(),
            complete: false,
            seconds,
        }
    }

    /// Takes a batch in.
    pub fn take(&mut self, batch: Batch) -> Taken {
        let begun = Instant::now();
        let mut touched = Touched::default();
        let mut edited = Vec::new();
        for change in &batch.changes {
            touched.note(change);
            edited.extend(self.edited(change));
            self.world.apply(change.clone());
        }
        let mut computes = BTreeSet::new();
        if batch.complete && !self.complete {
            self.complete = true;
            self.ledger = Ledger::default();
            computes = self.ledger.update(&self.world, &Touched::all(&self.world));
        } else if self.complete && !touched.is_empty() {
            computes = self.ledger.update(&self.world, &touched);
        }
        // Who corrects an identity that Azure minded wants it tried again, though the same is wanted.
        for name in edited {
            computes.extend(self.ledger.identity(&name).computes.into_keys());
        }
        self.seconds.observe(begun.elapsed().as_secs_f64());
        Taken {
            changes: batch.changes,
            computes,
        }
    }

    /// The identity whose spec a change edits.
    fn edited(&self, change: &Change) -> Option<ObjectName> {
        let Change::Identity(name, Some(now)) = change else {
            return None;
        };
        let before = self.world.identities.get(name)?;
        (before.meta.generation != now.meta.generation).then(|| name.clone())
    }

    /// What is wanted of a compute resource; `None` where its id is none.
    pub fn wanted(&self, id: &ArmId) -> Option<Wanted> {
        let compute: Compute = id.as_written().parse().ok()?;
        Some(self.wanted_of(&Arc::new(compute)))
    }

    /// What is wanted of all that have nodes.
    pub fn all_wanted(&self) -> Vec<Wanted> {
        let computes = self.ledger.computes();
        computes.map(|compute| self.wanted_of(compute)).collect()
    }

    fn wanted_of(&self, compute: &Arc<Compute>) -> Wanted {
        let desire = self.ledger.desire(compute);
        let revisions: BTreeMap<ArmId, i64> = desire
            .wanted
            .iter()
            .map(|(id, want)| {
                let named = want.identities.iter();
                let seen = named.filter_map(|name| self.world.identities.get(name));
                (id.clone(), seen.map(|seen| seen.meta.generation).sum())
            })
            .collect();
        Wanted {
            desire,
            immutable: self.ledger.immutable().clone(),
            mutable: self.ledger.mutable().clone(),
            revisions,
        }
    }
}
