//! What apply needs of the outside world: Azure Resource Manager, and to know how long it leads.
//!
//! Two narrow traits with one implementation each, so that tests can let Azure hang, refuse, forget and
//! throttle. Holds invariant 8: every call has its limit.

use std::fmt::Debug;
use std::time::Duration;

use crate::azure::arm::{
    ArmClient, ArmError, ComputeShown, IdentityPatch, Operation, Progress, Submitted,
};
pub use crate::controller::lease::Lead as Lease;
use crate::model::compute::Compute;

/// Compute resources as ARM shows and changes them.
pub trait Arm: Send + Sync + 'static {
    /// A change that goes on after its request was answered.
    type Operation: Debug + Send + Sync;

    /// Sees to it that a write needs no other request before it.
    fn prepare(&self, limit: Duration) -> impl Future<Output = Result<(), ArmError>> + Send;

    /// Reads a compute resource.
    fn compute(
        &self,
        compute: &Compute,
        limit: Duration,
    ) -> impl Future<Output = Result<ComputeShown, ArmError>> + Send;

    /// Sends a change, once.
    fn patch(
        &self,
        compute: &Compute,
        patch: &IdentityPatch,
        limit: Duration,
    ) -> impl Future<Output = Result<Sent<Self::Operation>, ArmError>> + Send;

    /// Asks how far a change is.
    fn progress(
        &self,
        operation: &Self::Operation,
        limit: Duration,
    ) -> impl Future<Output = Result<Progress, ArmError>> + Send;
}

/// A change that Azure took.
#[derive(Debug)]
pub enum Sent<Operation> {
    /// It is done; this is what there is now.
    Done(ComputeShown),
    /// It goes on.
    Running {
        /// What to ask about.
        operation: Operation,
        /// When to look first.
        after: Duration,
    },
}

impl Arm for ArmClient {
    type Operation = Operation;

    async fn prepare(&self, limit: Duration) -> Result<(), ArmError> {
        ArmClient::prepare(self, limit).await
    }

    async fn compute(&self, of: &Compute, limit: Duration) -> Result<ComputeShown, ArmError> {
        ArmClient::compute(self, of, limit).await
    }

    async fn patch(
        &self,
        compute: &Compute,
        patch: &IdentityPatch,
        limit: Duration,
    ) -> Result<Sent<Operation>, ArmError> {
        Ok(match ArmClient::patch(self, compute, patch, limit).await? {
            Submitted::Done(shown) => Sent::Done(shown),
            Submitted::Running(operation) => Sent::Running {
                after: operation.after,
                operation,
            },
        })
    }

    async fn progress(&self, of: &Operation, limit: Duration) -> Result<Progress, ArmError> {
        ArmClient::progress(self, of, limit).await
    }
}
