//! Flags of `lanyard uninstall`: of this node, or of every node of a cluster.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::duration;
use super::output::print;
use super::runtime::RuntimeArgs;
use crate::agent::bootguard;
use crate::agent::gate::Leave;
use crate::agent::intercept::{BackendChoice, DEFAULT_AGENT_ADDRESS, DEFAULT_STATE_DIR};
use crate::removal::{self, Fate, Removal, RemovalError};

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
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Flags of `lanyard uninstall --cluster`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Of every node of a cluster")]
struct ClusterArgs {
    /// Instead of this node: ask every agent of a cluster to clean its own, and wait for their word.
    /// `helm uninstall` does this by itself.
    #[arg(long)]
    cluster: bool,
    /// Kubeconfig; absent: the pod's service account, or your own kubeconfig.
    #[arg(long, env = "LANYARD_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the agents.
    #[arg(long, env = "LANYARD_NAMESPACE", default_value = "lanyard-system")]
    namespace: String,
    /// `DaemonSet` of the agents.
    #[arg(long, default_value = "lanyard-agent", value_name = "NAME")]
    daemonset: String,
    /// `ConfigMap` that the agents watch for.
    #[arg(
        long,
        env = "LANYARD_REMOVAL_MARKER",
        default_value = "lanyard-removal",
        value_name = "NAME"
    )]
    removal_marker: String,
    /// How long to wait for the nodes.
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = duration::parse)]
    timeout: Duration,
    /// What is to become of the identities that the controller created (`spec.managed`): `retain` keeps
    /// them in Azure, `delete` has the controller remove them first.
    #[arg(long, value_name = "FATE", default_value = "retain")]
    managed_identities: Fate,
    /// How long to wait for the controller to let go of them. Then their finalizers are taken away, so
    /// that no namespace hangs on one.
    #[arg(long, value_name = "DURATION", default_value = "4m", value_parser = duration::parse)]
    identities_timeout: Duration,
    /// Succeed although nodes did not confirm, or no agents were found; they are named all the same.
    #[arg(long)]
    best_effort: bool,
    /// Image for the commands that are printed for nodes that did not confirm.
    #[arg(long, value_name = "IMAGE", default_value = concat!("lanyard:", env!("CARGO_PKG_VERSION")))]
    image: String,
}

impl Args {
    /// Runs the subcommand to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        if self.cluster.cluster {
            return runtime.block_on(self.cluster.run());
        }
        let forgotten = self.boot_guard.is_none() && Path::new(bootguard::UNIT).exists();
        let leave = Leave {
            backend: self.iptables_backend,
            address: self.agent_address,
            state_dir: self.state_dir,
            boot_guard: self.boot_guard,
            // Whatever the agents' mode was.
            inside: Some(self.runtime.folders()),
            leaving: None,
        };
        let done = runtime.block_on(leave.node())?;
        if done.is_empty() {
            println!("nothing of lanyard's is on this node");
        }
        for line in done {
            println!("{line}");
        }
        if forgotten {
            println!(
                "the boot guard stays ({}): add --boot-guard=/ to remove it",
                bootguard::UNIT
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl ClusterArgs {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let cluster = crate::kubernetes::connect(self.kubeconfig.as_deref()).await?;
        let removal = Removal {
            namespace: self.namespace,
            daemonset: self.daemonset,
            marker: self.removal_marker,
            timeout: self.timeout,
            identities: self.managed_identities,
        };
        println!(
            "asking the agents of {}/{} to remove their rules (at most {} s)",
            removal.namespace,
            removal.daemonset,
            removal.timeout.as_secs()
        );
        // What became of the agents does not decide over the identities, nor the other way round.
        let agents = removal::remove(&cluster, &removal).await;
        let told = |line: &str| println!("{line}");
        let timeout = self.identities_timeout;
        let identities = removal::identities::let_go(&cluster, &removal, timeout, told).await;
        let mut complete = match agents {
            Err(absent @ RemovalError::NoAgents { .. }) if self.best_effort => {
                println!("{absent}");
                true
            }
            asked => {
                let outcome = asked?;
                print(&outcome.report(&self.image));
                outcome.complete()
            }
        };
        match identities {
            Ok(released) => {
                print(&released.report(removal.identities));
                complete &= released.complete(removal.identities);
            }
            // Without a controller the job may not look for identities, and there are none.
            Err(error) if self.best_effort => println!("managed identities: {error}"),
            Err(error) => return Err(error.into()),
        }
        Ok(if complete || self.best_effort {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
