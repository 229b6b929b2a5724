//! Identities whose life is an object's (`AzureIdentity.spec.managed`): created in Azure, given federated
//! credentials, removed again with the object or with the workload that owns it.
//!
//! In: what was observed in Kubernetes, what Azure shows. Out: calls of ARM, finalizers, owner references,
//! a [`ManagedOutcome`] each. A pure step ([`step::next`]) decides; one worker for each object does one call
//! at a time, so that a stuck one delays no other. Every call may be cut off and is repeated safely: names
//! are deterministic, what is there is looked at first, and only what has our tag is ours.

pub mod accounts;
mod arrival;
pub mod claim;
pub mod claims;
pub mod cluster;
mod departure;
pub mod federated;
pub mod known;
pub mod marker;
pub mod naming;
mod objects;
pub mod outcome;
pub mod outside;
mod runner;
pub mod step;
mod words;
mod worker;

pub use crate::api::removal::FINALIZER;
pub use claim::{Claim, Mode};
pub use outcome::ManagedOutcome;
pub use outside::Paced;
pub use runner::Managed;
pub use step::Settings;
