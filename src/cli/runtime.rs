//! Flags about the container runtime, for modes in which pods' networks are entered.

use std::path::PathBuf;

use crate::agent::config::NodeMode;
use crate::agent::inside::InsideConfig;

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

    /// Give pods that are served inside the endpoint of the virtual machine extension, too
    /// (`http://localhost:50342/oauth2/token`), unless their annotation lanyard.dev/vm-extension-endpoint says "false".
    /// Without this flag pods get it that say "true".
    #[arg(long, env = "LANYARD_VM_EXTENSION_ENDPOINT")]
    vm_extension_endpoint: bool,
}

impl RuntimeArgs {
    /// As the agent needs it.
    pub fn inside(self, mode: NodeMode) -> InsideConfig {
        InsideConfig {
            mode,
            vm_extension: self.vm_extension_endpoint,
            bundles: self.runtime_state,
            namespaces: self.netns_dir,
        }
    }
}
