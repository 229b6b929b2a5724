//! Outbound protocols: how Azure's own services are asked and how their answers are read.
//!
//! In: ids and deadlines. Out: tokens, or an error typed by what the service said. Everything here
//! may block on the network, never longer than the deadline that was passed. Nothing here knows of
//! pods, bindings or caches, and no proxy is ever used: what is asked lives on the node's link.

pub mod cloud;
pub mod http;
pub mod imds;
pub mod relay;
