//! The simulator over loopback, by what is on the wire: each answer of Azure that others rely on.

mod cli;
mod client;
mod control;
mod entra;
mod faults;
mod imds;
mod vault;
mod wire;
mod world;
