//! What a client sees, held against the agent's whole request pipeline: real sockets on loopback,
//! the simulated Azure behind it. A pod is a loopback address that its client's socket is bound to.
//! Nothing leaves 127.0.0.0/8 and no network namespace is needed.
// Outside of `#[test]` functions these lints would hold; in tests a panic is the report.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod app_service;
mod assignment;
mod bad_input;
mod cache;
mod clients;
mod contract;
mod host_token;
mod locate;
mod metadata;
mod observe;
mod paths;
mod policy;
mod secrecy;
mod selectors;
mod sources;
mod testkit;
mod upstream;
mod workload;
mod world;
