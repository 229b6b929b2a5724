//! Obtaining against the simulator over loopback, from each source: the agent's encoding of Azure's
//! protocols meets another one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says so by panicking"
)]

mod anew;
mod fallback;
mod imds;
mod rig;
mod service_principal;
