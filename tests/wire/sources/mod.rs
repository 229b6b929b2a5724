//! Sources whose credential is not the node's: service principals and federated identities, from the
//! pod's request to Entra and back. The real pipeline and the real loading of credentials between the
//! simulator and a stand-in for the API server.

mod apiserver;
mod attacks;
mod bad_secret;
mod cast;
mod certificates;
mod composed;
mod fallback;
mod fixtures;
mod freshness;
mod front;
mod issuer;
mod refused;
mod resources;
mod rolling;
mod secrecy;
mod stage;
mod trouble;
mod ways;
