//! agent
pub mod obtain;
