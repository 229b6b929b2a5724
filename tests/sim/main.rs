//! The simulator over loopback, by what is on the wire: each answer of Azure that others rely on.

mod client;
mod faults;
mod imds;
mod world;
