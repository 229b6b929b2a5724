//! Which process this is: a random word, the same for as long as the process lives.
//!
//! In: nothing. Out: [`id`]. Blocks on nothing. A probe's answer carries it, so that who asks can tell
//! one agent of a node from the next. It is no secret and guards nothing.

use std::sync::LazyLock;

/// The version that probes and pages tell.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

static ID: LazyLock<String> = LazyLock::new(|| format!("{:016x}", fastrand::u64(..)));

/// This process's word: 16 hex digits.
pub fn id() -> &'static str {
    &ID
}
