//! Flags about the container runtime, for whoever enters pods' networks.

use std::path::PathBuf;

use crate::agent::inside::Folders;

/// Where the runtime keeps what.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Container runtime (modes mixed and in-pod)")]
pub struct RuntimeArgs {
    /// Where it keeps its bundles.
    #[arg(
        long,
        env = "LANYARD_RUNTIME_STATE",
        value_name = "DIR",
        default_value = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
    )]
    runtime_state: PathBuf,

    /// Where named network namespaces are.
    #[arg(
        long,
        env = "LANYARD_NETNS_DIR",
        value_name = "DIR",
        default_value = "/run/netns"
    )]
    netns_dir: PathBuf,
}

impl RuntimeArgs {
    /// As the agent needs it.
    pub fn folders(self) -> Folders {
        Folders {
            bundles: self.runtime_state,
            namespaces: self.netns_dir,
        }
    }
}
