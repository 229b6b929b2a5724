//! The simulator over loopback, by what is on the wire: each answer of Azure that others rely on.

// Outside of `#[test]` functions these lints would hold; in tests a panic is the report.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_in_result,
    clippy::unwrap_used
)]

mod arm;
mod assertion;
mod cli;
mod client;
mod control;
mod entra;
mod faults;
mod federated;
mod imds;
mod issuer;
mod rolling;
mod signer;
mod vault;
mod wire;
mod world;
