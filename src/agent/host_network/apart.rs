//! What a node with host-network pods tells sockets apart by.
//!
//! In: flags. Out: where pods' sockets are, and which are the agent's own.

use std::path::Path;

use super::hierarchy::{Hierarchy, HierarchyError};
use crate::azure::marked::OwnSockets;

/// Whose sockets are whose.
#[derive(Clone, Debug)]
pub struct Apart {
    /// Where pods' are.
    pub hierarchy: Hierarchy,
    /// What this node's agents' are known by.
    pub own: OwnSockets,
}

impl Apart {
    /// Opens the hierarchy at `root`. To be called before other threads are: only the calling one, and those that it starts
    /// later, see the node's cgroups.
    pub fn enter(root: &Path, own: OwnSockets) -> Result<Self, HierarchyError> {
        let hierarchy = Hierarchy::enter(root)?;
        if !own.can_be_made() {
            return Err(HierarchyError::NoGroup);
        }
        Ok(Self { hierarchy, own })
    }
}
