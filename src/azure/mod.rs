//! Outbound protocols: how Azure's own services are asked and how their answers are read.
//!
//! In: ids and deadlines. Out: tokens, or an error typed by what the service said. Everything here
//! may block on the network, never longer than the deadline that was passed. Nothing here knows of
//! pods, bindings or caches. No proxy is ever used for what lives on the node's link (`http`, `imds`,
//! `relay`); the configured one is for Entra and for Resource Manager (`https`).

pub mod access;
mod answer;
pub mod arm;
pub mod cloud;
pub mod credential;
pub mod entra;
pub mod http;
pub mod https;
pub mod imds;
pub mod marked;
pub mod relay;
