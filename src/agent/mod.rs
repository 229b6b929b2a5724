//! The data plane, one file per step of `request → receive → locate → select → obtain → respond`.

pub mod audit;
pub mod directory;
pub mod grants;
pub mod locate;
pub mod manifests;
pub mod metrics;
pub mod passthrough;
pub mod receive;
pub mod respond;
pub mod select;
pub mod world;

#[cfg(test)]
mod testkit;
