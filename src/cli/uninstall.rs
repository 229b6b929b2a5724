//! Flags of `lanyard uninstall`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::agent::gate::Leave;
use crate::agent::intercept::{BackendChoice, DEFAULT_AGENT_ADDRESS, DEFAULT_STATE_DIR};

/// Flags of `lanyard uninstall`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look at this iptables backend only: nft or legacy; auto looks at both.
    #[arg(long, env = "LANYARD_IPTABLES_BACKEND", default_value_t = BackendChoice::Auto)]
    iptables_backend: BackendChoice,
    /// The agent's address on lo.
    #[arg(long, env = "LANYARD_AGENT_ADDRESS", default_value_t = DEFAULT_AGENT_ADDRESS)]
    agent_address: Ipv4Addr,
    /// Where the agents of this node keep their lock and epoch files.
    #[arg(long, env = "LANYARD_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// The host's root file system (`/` on the host itself): removes a boot guard from it, too.
    #[arg(long, env = "LANYARD_BOOT_GUARD", value_name = "DIR")]
    boot_guard: Option<PathBuf>,
}

impl Args {
    /// Runs the subcommand to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let leave = Leave {
            backend: self.iptables_backend,
            address: self.agent_address,
            state_dir: self.state_dir,
            boot_guard: self.boot_guard,
        };
        let done = runtime.block_on(leave.node())?;
        if done.is_empty() {
            println!("nothing of lanyard's is on this node");
        }
        for line in done {
            println!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
