//! Takes Lanyard's rules off every node of a cluster, before the agents themselves go.
//!
//! In: where the agents run, the marker's name, how long to wait. Out: an [`Outcome`]: which nodes are
//! clean, and which did not say so. Blocks on the API server; every call has a deadline. The marker is a
//! `ConfigMap` that agents watch: each removes its node's rules and writes that into a second one, the
//! acknowledgements. Invariant 2 (fail closed): nothing here opens a node that was not asked to open,
//! and an acknowledgement of an earlier removal never counts.

mod ask;
pub mod identities;
mod outcome;

pub use ask::{Removal, RemovalError, remove};
pub use identities::Fate;
pub use outcome::Outcome;
