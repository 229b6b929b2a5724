//! The data plane, one file per step of `request → receive → locate → select → obtain → respond`.
//!
//! [`pipeline`] is the request's way, [`index`] keeps what it looks things up in, `intercept` brings
//! pods' connections here, and [`compose`] starts and ends it all.

pub mod assigned;
pub mod audit;
pub mod bootguard;
pub mod checkpoint;
pub mod compose;
pub mod conditions;
pub mod config;
pub mod credentials;
pub mod directory;
pub mod events;
pub mod evidence;
pub mod forward;
pub mod gate;
pub mod grants;
pub mod host_network;
pub mod host_token;
pub mod index;
pub mod inside;
pub mod instance;
pub mod intercept;
pub mod knowledge;
pub mod locate;
pub mod manifests;
pub mod metrics;
mod netlink;
pub mod observe;
pub mod obtain;
pub mod origin;
pub mod passthrough;
pub mod pipeline;
pub mod rate;
pub mod receive;
pub mod respond;
pub mod select;
pub mod selftest;
pub mod served;
pub mod sightings;
pub mod touched;
pub mod watch;
pub mod world;

#[cfg(test)]
mod testkit;

pub use compose::run;
