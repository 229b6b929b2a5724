//! What a listener grants its clients, and what the process asks of the kernel for it.
//!
//! Every bound has a default that suits a node with 250 pods; all are values, so that tests may
//! shorten them.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Bounds on connections. Times are measured from the event that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, all peers together; one more is accepted and closed at once.
    pub connections: usize,
    /// Open connections of one peer address; one more is accepted and closed at once.
    pub connections_per_peer: usize,
    /// From accept (first request) or the first byte (later ones) to the end of the head; then 408.
    pub head: Duration,
    /// From an answer to the first byte of the next request; then the connection is closed silently.
    pub idle: Duration,
    /// From the end of a head to its answer; then 503. A backstop: answers keep their own deadlines.
    pub answer: Duration,
    /// How long a client may leave an answer unread before the connection is cut.
    pub write: Duration,
    /// The longest head (request line and headers) in bytes, at least 8192; longer: 431, or 414
    /// where the request line alone is longer.
    pub head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 8192,
            connections_per_peer: 128,
            head: Duration::from_secs(5),
            idle: Duration::from_mins(1),
            answer: Duration::from_mins(1),
            write: Duration::from_secs(10),
            head_bytes: 16 * 1024,
        }
    }
}

/// Raises the soft limit of open files to the hard one; returns the limit now in force.
///
/// Container runtimes often leave the soft limit at 1024, which is fewer than [`Limits`] allows.
pub fn raise_open_files() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}
