//! The data plane, one file per step of `request → receive → locate → select → obtain → respond`.

pub mod grants;
pub mod intercept;
pub mod receive;
pub mod select;
pub mod world;

#[cfg(test)]
mod testkit;
