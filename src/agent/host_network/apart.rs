//! What a node with host-network pods tells sockets apart by.
//!
//! In: flags. Out: where pods' sockets are, and which are the agent's own; or why that cannot be told here.

use std::path::{Path, PathBuf};

use super::hierarchy::Hierarchy;
use crate::azure::marked::OwnSockets;

/// Whose sockets are whose.
#[derive(Clone, Debug)]
pub struct Apart {
    /// Where pods' are.
    pub hierarchy: Hierarchy,
    /// What this node's agents' are known by.
    pub own: OwnSockets,
}

/// Why host-network pods cannot be told apart here.
#[derive(Debug, thiserror::Error)]
pub enum ApartError {
    /// Version 1, or nothing.
    #[error(
        "--host-network-pods needs cgroup v2, and {0} is none: this node has cgroup v1, or its hierarchy is mounted elsewhere (--cgroup-root). Move the node to cgroup v2, or leave --host-network-pods off"
    )]
    NotVersion2(PathBuf),
    /// Kubelet keeps no pods there.
    #[error(
        "--host-network-pods: there is no cgroup of pods (kubepods or kubepods.slice) below {0}. Give --cgroup-root where kubelet keeps them, or leave --host-network-pods off"
    )]
    NoPods(PathBuf),
    /// Its paths are not what the kernel would understand by them.
    #[error(
        "--host-network-pods: {root} is seen from another cgroup namespace, and the node's cannot be entered ({why}). It takes the node's process namespace (hostPID), SYS_ADMIN and SYS_PTRACE"
    )]
    OtherNamespace {
        /// Where it is mounted.
        root: PathBuf,
        /// What was in the way.
        why: String,
    },
    /// The agent's own sockets cannot be told from pods'.
    #[error(
        "--host-network-pods: the agent cannot make sockets in a group of its own. It takes SETGID"
    )]
    NoGroup,
    /// A folder cannot be looked at, or has a name that no rule can hold.
    #[error("--cgroup-root {root}: {why}")]
    Unusable {
        /// The folder.
        root: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Apart {
    /// Opens the hierarchy at `root`. To be called before other threads are: only the calling one, and those that it starts
    /// later, see the node's cgroups.
    pub fn enter(root: &Path, own: OwnSockets) -> Result<Self, ApartError> {
        let hierarchy = Hierarchy::enter(root)?;
        if !own.can_be_made() {
            return Err(ApartError::NoGroup);
        }
        Ok(Self { hierarchy, own })
    }
}
