//! Records in memory, for tests: what was written, in order, and failures on demand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Kept, RecordError, Records};
use crate::controller::board::Told;
use crate::kubernetes::CallError;
use crate::model::compute::Compute;
use crate::model::ids::ArmId;

/// Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecords(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    kept: BTreeMap<ArmId, Told>,
    writes: Vec<Told>,
    failures: usize,
}

impl MemoryRecords {
    /// All that was ever written.
    pub fn writes(&self) -> Vec<Told> {
        self.0.lock().writes.clone()
    }

    /// What is kept of a compute resource.
    pub fn of(&self, compute: &ArmId) -> Option<Told> {
        self.0.lock().kept.get(compute).cloned()
    }

    /// The next writes fail.
    pub fn fail(&self, times: usize) {
        self.0.lock().failures = times;
    }
}

impl Records for MemoryRecords {
    async fn all(&self) -> Result<Vec<Kept>, RecordError> {
        let kept = self.0.lock();
        let all = kept.kept.values().map(|told| Kept {
            compute: told.compute.clone(),
            record: (*told.record).clone(),
        });
        Ok(all.collect())
    }

    async fn write(&self, told: &Told, _: Duration) -> Result<(), RecordError> {
        let mut inner = self.0.lock();
        if inner.failures > 0 {
            inner.failures -= 1;
            return Err(RecordError::Call {
                name: told.compute.assignment_name(),
                source: CallError::Late,
            });
        }
        inner.kept.insert(told.compute.id.clone(), told.clone());
        inner.writes.push(told.clone());
        Ok(())
    }

    fn holds(&self, compute: &Compute) -> bool {
        self.0.lock().kept.contains_key(&compute.id)
    }

    fn lost(&self, name: &str) -> bool {
        let mut inner = self.0.lock();
        let before = inner.kept.len();
        inner
            .kept
            .retain(|_, told| told.compute.assignment_name() != name);
        inner.kept.len() < before
    }

    async fn forget(&self, compute: &Compute) -> Result<(), RecordError> {
        self.0.lock().kept.remove(&compute.id);
        Ok(())
    }
}
