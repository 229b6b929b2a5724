//! The serving harness against raw sockets: what a hostile, slow or old client sees.
//!
//! Everything listens on loopback at port 0. Waits are bounded and end with a condition.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod admin;
mod bad_input;
mod drain;
mod harness;
mod http;
mod limits;
