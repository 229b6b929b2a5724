//! Lanyard: every pod on Kubernetes its own Azure managed identity.
//!
//! Two pipelines, and the source tree follows them:
//!
//! ```text
//! request → receive → locate (which pod) → select (which identity, may it)
//!         → obtain (cache → source) → respond
//! binding → observe → desire → plan → apply → report        (controller)
//! ```
//!
//! Start reading at [`agent`] or [`controller`]. `ARCHITECTURE.md` has the code map and the invariants, each with
//! the test that holds it.
#![forbid(unsafe_code)]

pub mod admission;
pub mod agent;
pub mod api;
pub mod azure;
pub mod cli;
pub mod controller;
pub mod demo;
pub mod explain;
pub mod hold;
pub mod identities;
pub mod kubernetes;
pub mod lab;
pub mod model;
pub mod probe;
pub mod removal;
pub mod serve;
pub mod sim;
pub mod suggest;
