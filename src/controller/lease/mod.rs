//! One controller at a time: a `Lease` (`coordination.k8s.io/v1`) that one of them holds.
//!
//! In: the Kubernetes API. Out: a [`Guard`] that says until when this process holds the lease for
//! certain. Every call has a deadline; nothing else blocks. Holds the last part of invariant 8: who may
//! have lost the lease sends nothing. That needs no two clocks to agree: the holder counts from the
//! moment at which it *began* its last good renewal, everybody else from the moment at which he *had
//! read* it, and only by clocks that never jump.

mod election;
mod guard;
mod keep;

use std::time::Duration;

pub use guard::{Guard, Lead, WRITE_LEASE, WRITE_LIMIT};
pub use keep::{Keeper, lease};

/// Which lease, whose, and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of the lease: the controller's own.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who this is. No other process, before or after, has the same: see [`Settings::new`].
    pub identity: String,
    /// How long a renewal lasts.
    pub duration: Duration,
    /// From one renewal to the next; not the same for all, so that they do not meet each time.
    pub renew: Duration,
    /// How often somebody who waits looks.
    pub look: Duration,
    /// Until what has failed is tried again.
    pub retry: Duration,
    /// Deadline of a call.
    pub call: Duration,
}

impl Settings {
    /// The usual times, for a controller in this pod (or on this host): the identity is its name and
    /// something random, since a container that starts again has the same name.
    #[must_use]
    pub fn new(namespace: &str, name: &str, pod: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: format!("{pod}_{:016x}", fastrand::u64(..)),
            duration: Duration::from_secs(15),
            renew: Duration::from_millis(fastrand::u64(2700..=3000)),
            look: Duration::from_secs(2),
            retry: Duration::from_secs(1),
            call: Duration::from_secs(2),
        }
    }
}
