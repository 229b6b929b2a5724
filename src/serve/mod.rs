//! The harness of everything that listens: no product rules in here.

pub mod ready;
