//! Flags about host-network pods.

use std::path::{Path, PathBuf};

use crate::agent::host_network::Apart;
use crate::agent::intercept::own_sockets;

/// Whether they are told apart, and by what.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Host-network pods")]
pub struct HostArgs {
    /// Tell host-network pods apart by the cgroups of their sockets, and give each its own identity or a refusal. Without
    /// it they pass the agent by and reach the node's identities. Needs cgroup v2 and `SETGID`; in a container also the node's
    /// process namespace, `SYS_ADMIN` and `SYS_PTRACE`.
    #[arg(long, env = "LANYARD_HOST_NETWORK_PODS", value_name = "BOOL", default_value_t = false,
          default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    host_network_pods: bool,

    /// Where the node's cgroup v2 hierarchy is mounted, or the folder in it that kubelet keeps `kubepods` in.
    #[arg(
        long,
        env = "LANYARD_CGROUP_ROOT",
        value_name = "DIR",
        default_value = "/sys/fs/cgroup"
    )]
    cgroup_root: PathBuf,
}

impl HostArgs {
    /// What they are told apart by. To be called by the first thread, before it starts others.
    pub fn apart(&self, state_dir: &Path) -> anyhow::Result<Option<Apart>> {
        if !self.host_network_pods {
            return Ok(None);
        }
        let own = own_sockets(state_dir)?;
        Ok(Some(Apart::enter(&self.cgroup_root, own)?))
    }
}
