//! Interception: pods' connections to the metadata address come to this agent, and nowhere else.
//!
//! In: where the agent listens. Out: iptables rules and one address on `lo`, kept as they should
//! be for as long as the process lives, and left standing when it ends. May block on iptables'
//! lock and processes, never on the network. Invariants 2 (fail closed) and 6 (upgrades lose
//! nothing): the rules are laid only after the listener listens, replaced in one transaction, and
//! removed by nothing but `lanyard uninstall` (where the agent only observes, by its own end, too).
//!
//! `rules`, `save`, `drift`, `script`, `backend`, `budget` and `conntrack::entry` are pure; `keeper` is the loop.

mod address;
mod backend;
mod budget;
mod conntrack;
mod drift;
mod epoch;
mod exec;
mod keeper;
mod metrics;
mod rules;
mod save;
mod script;
mod uninstall;
mod watch;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::host_network::Apart;
use crate::azure::marked::OwnSockets;
pub use address::{Addresses, claim_address};
pub use backend::{Backend, BackendChoice};
pub use conntrack::entry;
pub use keeper::run_keeper;
pub use metrics::InterceptMetrics;
pub use rules::{AGENT_MARK, METADATA_ADDRESS, METADATA_PORT, PodsCgroup};
pub use uninstall::{forget_removed, uninstall};

/// The backend that this node uses.
pub async fn node_backend(choice: BackendChoice) -> Result<Backend, InterceptError> {
    Ok(exec::choose(choice).await?.backend)
}

/// What the sockets of this node's agents are known by; the group is secret, and the same for one agent after another.
pub fn own_sockets(state_dir: &Path) -> Result<OwnSockets, InterceptError> {
    let group = epoch::StateDir::new(state_dir).group()?;
    let mark = rules::AGENT_MARK;
    Ok(OwnSockets { mark, group })
}

/// A script for `iptables-restore --noflush` that closes the door on a node without any rules of ours:
/// what an agent's rules are without the way in, and without the table that a kernel may lack.
pub fn closed_door(guard_wire_server: bool) -> String {
    let nothing = save::Ruleset::without(rules::BOLT);
    let desired = rules::desired(None, guard_wire_server, None);
    script::repair_script(&desired, &nothing, &drift::drift(&desired, &nothing))
}

/// The agent's own address: link-local, so that no route leads to it from outside the node.
pub const DEFAULT_AGENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 252);
/// Where instances agree on who owns the rules; as short-lived as the rules are, so below `/run`.
pub const DEFAULT_STATE_DIR: &str = "/run/lanyard";

/// What the agent's command line says about interception.
#[derive(Clone, Debug)]
pub struct InterceptConfig {
    /// Which iptables backend to use.
    pub backend: BackendChoice,
    /// The /32 on `lo` that connections are redirected to.
    pub agent_address: Ipv4Addr,
    /// Whether pods are kept away from the wire server (tcp 80 and 32526; never its DNS).
    pub guard_wire_server: bool,
    /// Lock and epoch files, shared by the instances on this node.
    pub state_dir: PathBuf,
    /// How host-network pods are told apart, and the port of their listener; `None`: they are not.
    pub hosts: Option<(Apart, u16)>,
    /// Whether there is a way around the agent and past its end: pods' requests come here, but the
    /// door stays open, no connection is cut, and the way in goes when the agent ends.
    pub open: bool,
    /// Whether this agent may enter pods: whoever it takes over from leaves to it what is laid there, or takes it away.
    pub enters_pods: bool,
}

/// Who owns this node's rules, as this instance sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// No rules laid yet.
    Pending,
    /// This instance: new connections come here.
    Owner {
        /// Its epoch.
        epoch: u64,
        /// Whether none of those before it is alive any more; noticed within seconds.
        alone: bool,
    },
    /// A newer instance that is alive.
    StoodDown {
        /// That one's epoch.
        by: u64,
        /// Whether that one serves pods from inside, too: then what was laid there is its to keep.
        enters_pods: bool,
    },
    /// `lanyard uninstall` removed the rules, and they stay removed until the agent starts anew.
    Removed,
}

/// Why interception is not what it should be. None of these ends the agent.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// A process of iptables failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Tool {
        /// As it would be typed.
        command: String,
        /// Exit status or signal.
        status: String,
        /// Its own words, shortened.
        stderr: String,
    },
    /// A program of iptables is not there.
    #[error("`{command}` is not installed; it comes with the package iptables")]
    NotInstalled {
        /// Its name.
        command: String,
    },
    /// A process of iptables could not be run, or did not end.
    #[error("`{command}` cannot be used: {why}")]
    NoTool {
        /// As it would be typed.
        command: String,
        /// The system's words.
        why: String,
    },
    /// Neither backend can be used.
    #[error("no iptables backend can be used: nft: {nft}; legacy: {legacy}")]
    NoBackend {
        /// What is wrong with nft.
        nft: String,
        /// What is wrong with legacy.
        legacy: String,
    },
    /// The rules were written, and are not there.
    #[error("the rules were written with {backend} and yet differ afterwards: {drift}")]
    NotInForce {
        /// The backend.
        backend: Backend,
        /// What differs.
        drift: String,
    },
    /// There is nothing to tell host-network pods by.
    #[error(
        "there is no cgroup of pods (kubepods or kubepods.slice) below {root}: host-network pods cannot be told from the node"
    )]
    NoPodsCgroup {
        /// Where they were looked for.
        root: PathBuf,
    },
    /// Somebody keeps changing the rules.
    #[error(
        "the rules were changed {repairs} times within a minute ({drift}); repairing slowly now. Find what rewrites iptables on this node"
    )]
    Contested {
        /// Repairs within the last minute.
        repairs: usize,
        /// What differed last.
        drift: String,
    },
    /// The agent's address cannot be had.
    #[error("address {address} on lo: {why}")]
    Address {
        /// The address.
        address: Ipv4Addr,
        /// What is in the way.
        why: String,
    },
    /// The state directory cannot be used.
    #[error(
        "state directory {path}: {source}; it must be writable, and shared by the agents of this node"
    )]
    State {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another instance held the rules' lock for too long.
    #[error("another instance holds {path} for more than {seconds} s")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// Netlink failed.
    #[error("netlink ({what}): {why}")]
    Netlink {
        /// Which conversation.
        what: &'static str,
        /// The system's words.
        why: String,
    },
}
