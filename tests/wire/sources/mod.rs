//! Sources whose credential is not the node's: service principals and federated identities, from the
//! pod's request to Entra and back. The real pipeline and the real loading of credentials between the
//! simulator and a stand-in for the API server.

pub mod apiserver;
pub mod certificates;
mod fixtures;
mod issuer;
