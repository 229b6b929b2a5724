//! What a node with host-network pods tells sockets apart by.
//!
//! In: flags. Out: where pods' sockets are, and which are the agent's own. Changes what the calling thread makes sockets as.

use std::path::Path;

use nix::unistd::{Gid, setfsgid};

use super::hierarchy::{Hierarchy, HierarchyError};

/// Whose sockets are whose.
#[derive(Clone, Debug)]
pub struct Apart {
    /// Where pods' are.
    pub hierarchy: Hierarchy,
    /// The group that this node's agents make theirs with.
    pub group: u32,
}

impl Apart {
    /// Opens the hierarchy at `root`, and joins the agents' group. To be called before other threads are: only the calling one,
    /// and those that it starts later, are in it. Programs that they start are not, and no file's rights hang on it: the
    /// agent is root.
    pub fn enter(root: &Path, group: u32) -> Result<Self, HierarchyError> {
        let hierarchy = Hierarchy::enter(root)?;
        setfsgid(Gid::from_raw(group));
        // It answers with the one before, whatever came of it.
        if setfsgid(Gid::from_raw(group)).as_raw() != group {
            return Err(HierarchyError::NoGroup);
        }
        Ok(Self { hierarchy, group })
    }
}
