//! Identities whose life is an object's (`AzureIdentity.spec.managed`): created in Azure, given federated
//! credentials, removed again with the object or with the workload that owns it.
//!
//! In: what was observed in Kubernetes, what Azure shows. Out: calls of ARM, finalizers, owner references,
//! a [`ManagedOutcome`] each. A pure step ([`step::next`]) decides; one worker for each object does one call
//! at a time, so that a stuck one delays no other. Every call may be cut off and is repeated safely: names
//! are deterministic, what is there is looked at first, and only what has our tag is ours.

mod arrival;
pub mod claim;
mod departure;
pub mod federated;
pub mod known;
pub mod naming;
pub mod outcome;
pub mod step;
mod words;

pub use claim::{Claim, Mode};
pub use naming::FINALIZER;
pub use outcome::ManagedOutcome;
