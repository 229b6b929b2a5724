//! The controller: makes true in Azure what bindings say. A user-assigned identity sits on exactly
//! those virtual machines and scale sets whose pods may use it, and the objects say how far that is.
//!
//! ```text
//! binding → observe → desire → plan → apply → report
//! ```
//!
//! In: the Kubernetes API, Azure Resource Manager. Out: changes of compute resources,
//! `AzureAssignment`s, statuses, Events. Holds invariant 8: ARM is asked as little as possible, what
//! Lanyard did not add is never removed, and nothing is written by one whose lease may have ended.

pub mod apply;
pub mod board;
mod compose;
pub mod config;
pub mod desire;
pub mod desired;
pub mod identities;
pub mod known;
pub mod lease;
pub mod managed;
pub mod observe;
pub mod plan;
pub mod record;
pub mod records;
pub mod report;
pub mod world;

pub use compose::{Plans, dry_run, run};
