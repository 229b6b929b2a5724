//! Asynchronous operations: a write that is accepted now and done later.
//!
//! In: a change, when it is to end, whether it is to fail. Out: its status for those who ask, and the change made when it
//! ends well. One that is held has no end until it is released.

use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Change, Holdings, State};
use crate::sim::keys::random_guid;

/// Finished operations that are remembered.
const REMEMBERED: usize = 10_000;

/// Why an operation fails, in Azure's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// `error.code`.
    pub code: String,
    /// `error.message`.
    pub message: String,
}

/// One operation.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Operation {
    /// A GUID.
    pub id: String,
    /// Folded id of the compute resource.
    pub compute: String,
    pub started: Timestamp,
    /// When it ends; never where it is held.
    pub ends: Option<Instant>,
    pub failure: Option<Failure>,
    pub ended: Option<Timestamp>,
    /// The resource was deleted under it.
    pub canceled: bool,
    change: Change,
}

impl Operation {
    /// `status` as Azure words it.
    pub fn status(&self) -> &'static str {
        match (self.ended.is_some(), self.canceled, &self.failure) {
            (false, ..) => "InProgress",
            (true, true, _) => "Canceled",
            (true, false, Some(_)) => "Failed",
            (true, false, None) => "Succeeded",
        }
    }
}

impl Holdings {
    /// Starts an operation on a compute resource; returns its id.
    pub fn start(
        &mut self,
        compute: &str,
        change: Change,
        ends: Option<Instant>,
        failure: Option<Failure>,
    ) -> String {
        while self.operations.len() >= REMEMBERED {
            let ended = self.operations.values().filter(|one| one.ended.is_some());
            let oldest = ended.min_by_key(|one| one.started);
            match oldest.map(|one| one.id.clone()) {
                Some(id) => drop(self.operations.remove(&id)),
                None => break,
            }
        }
        let id = random_guid();
        let operation = Operation {
            id: id.clone(),
            compute: compute.to_owned(),
            started: Timestamp::now(),
            ends,
            failure,
            ended: None,
            canceled: false,
            change,
        };
        self.operations.insert(id.clone(), operation);
        self.running.push(id.clone());
        if let Some(compute) = self.computes.get_mut(compute) {
            compute.running = Some(id.clone());
        }
        id
    }

    /// Ends an operation: makes its change, or fails.
    pub fn finish(&mut self, id: &str, now: Instant) {
        self.running.retain(|other| other != id);
        let Some(operation) = self.operations.get_mut(id) else {
            return;
        };
        operation.ended = Some(Timestamp::now());
        let Some(compute) = self.computes.get_mut(&operation.compute) else {
            operation.canceled = true;
            return;
        };
        compute.running = None;
        if operation.failure.is_some() {
            compute.state = State::Failed;
            return;
        }
        compute.state = State::Succeeded;
        let change = std::mem::take(&mut operation.change);
        compute.apply(&change, now, self.imds_delay);
    }

    /// Makes a change at once.
    pub fn make(&mut self, compute: &str, change: &Change, now: Instant) {
        let delay = self.imds_delay;
        if let Some(compute) = self.computes.get_mut(compute) {
            compute.state = State::Succeeded;
            compute.apply(change, now, delay);
        }
    }
}
