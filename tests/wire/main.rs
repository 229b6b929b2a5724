//! What a client sees, held against the agent's whole request pipeline: real sockets on loopback,
//! the simulated Azure behind it. A pod is a loopback address that its client's socket is bound to.
//! Nothing leaves 127.0.0.0/8 and no network namespace is needed.

mod bad_input;
mod cache;
mod clients;
mod contract;
mod locate;
mod metadata;
mod paths;
mod policy;
mod secrecy;
mod testkit;
mod upstream;
mod world;
