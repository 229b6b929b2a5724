//! Network namespaces on one machine: a cloud, nodes and pods, as values that clean up themselves.
//!
//! In: nothing of Lanyard's own (it starts the `lanyard` binary as any user would). Out: processes
//! inside namespaces, and in-process clients that run inside them. Needs [`enter`] first in `main`.
//!
//! ```text
//!   cloud namespace                node namespace                  pod namespaces
//!   169.254.169.254  IMDS   veth   routes to the cloud,     veth   ptp:    /32 route in the node
//!   168.63.129.16    wire ───────  ip_forward, iptables, ────────  bridge: one bridge for all
//!   10.200.0.2       vault         the agent
//! ```
//!
//! Invariants: there is no route out of a lab; nothing is masqueraded, so what leaks is seen in the
//! cloud with the pod's own address; killing the first process ends all of it.

mod bundles;
mod cgroups;
mod enter;
mod http;
mod knock;
mod namespace;
mod parts;
mod pod;
mod process;
mod topology;
mod wait;

pub use bundles::Bundles;
pub use cgroups::Cgroups;
pub use enter::{
    Interrupt, LAB_DIR, Unavailable, available, enter, inside, outer_pid, unprivileged,
};
pub use http::{Get, Reply};
pub use knock::{Knocking, Tally};
pub use namespace::Namespace;
pub use parts::{Agent, AgentSetup, Simulator};
pub use pod::{Pod, Style};
pub use process::Process;
pub use topology::{IMDS, Lab, Node, VAULT, VAULT_HOST, WIRE_SERVER};
pub use wait::until;

/// What can go wrong in a lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A tool said no.
    #[error("`{command}` failed: {said}")]
    Tool {
        /// The command line.
        command: String,
        /// Its last words.
        said: String,
    },
    /// The system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A process that should have stayed ended.
    #[error("{name} ended ({status}); its log ends with:\n{tail}")]
    Ended {
        /// The process's name in the lab.
        name: String,
        /// Its exit status.
        status: String,
        /// The last lines of its log.
        tail: String,
    },
    /// A condition did not come true in time.
    #[error("waited {seconds:.1} s in vain for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long, seconds.
        seconds: f64,
    },
}

impl LabError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
