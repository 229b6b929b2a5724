//! Following kinds of objects for ever: the one way in which agent and controller watch. What an
//! object means is its [`Reader`]'s; listing, watching, resuming and noticing what has died is here.
//!
//! In: the API server. Out: batches of changes, health, a latch, series. Holds invariant 7: each call
//! has a deadline, a watch that has died is noticed and begun again, and who looks at the latch and
//! the metrics can tell a stalled watch from an API server that is away.

mod extent;
#[cfg(test)]
#[allow(
    clippy::unwrap_in_result,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "a test says so by panicking"
)]
pub mod fake;
mod follow;
mod health;
mod metrics;
mod mirror;
mod pause;
mod read;
mod timing;
mod verdict;
mod watchdog;

pub use extent::check_size;
pub use follow::{Asked, Follower};
pub use health::{Health, Pulse};
pub use metrics::{Names, Restart, WatchMetrics};
pub use mirror::Mirror;
pub use pause::Pause;
pub use read::{Digest, Named, Read, Reader, Version};
pub use timing::Timing;
pub use verdict::Verdict;
pub use watchdog::{Look, Watchdog};
