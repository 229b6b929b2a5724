//! Azure as a node and a controller see it: IMDS, Entra ID, Resource Manager, a Key Vault, the wire server.
//!
//! In: a [`World`] (usually a YAML file) and where to listen. Out: real sockets that answer as Azure
//! does, with real RS256 tokens, and a journal of every request with its source address.
//! It imports nothing of Lanyard: it encodes Azure's protocol by itself, so that a mistake shared with
//! the agent cannot pass its own test (invariant 10). Nothing here blocks but key generation, once.
//!
//! ```text
//! http (accept) → imds | entra | arm | vault | wire → faults → journal → answer
//! ```

pub mod arm;
mod azure;
mod broken;
mod certificate;
pub mod control;
mod entra;
pub mod faults;
mod http;
mod imds;
pub mod journal;
mod keys;
mod simulator;
mod stats;
mod throttle;
mod tls;
mod token;
mod vault;
mod wire;
pub mod world;

pub use azure::AssignError;
pub use certificate::CertificateError;
pub use entra::{CredentialError, secret_id};
pub use faults::Fault;
pub use journal::{ArmCall, Entry, Exchange};
pub use keys::KeyError;
pub use simulator::{Addresses, Listen, Simulator, StartError};
pub use stats::Stats;
pub use tls::TlsError;
pub use world::World;
