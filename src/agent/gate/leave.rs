//! Leaving a node: everything that the agent put there goes.
//!
//! In: what was put where. Out: a node as before. Blocks on iptables, netlink and the disk. The same that
//! `lanyard uninstall` does, done by the agent itself when the removal marker asks for it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use prometheus::IntGauge;

use crate::agent::config::{Config, NodeMode};
use crate::agent::inside::{Door, Folders, Leaving};
use crate::agent::intercept::{self, BackendChoice};
use crate::agent::{bootguard, selftest};

/// What is to be removed.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Which iptables to look at.
    pub backend: BackendChoice,
    /// The agent's address on `lo`.
    pub address: Ipv4Addr,
    /// The agents' state.
    pub state_dir: PathBuf,
    /// The host's root, where a boot guard may be.
    pub boot_guard: Option<PathBuf>,
    /// Where pods are that may be served from inside; `None`: none is.
    pub inside: Option<Folders>,
    /// Who serves them, where that is this process.
    pub leaving: Option<Leaving>,
}

impl Leave {
    /// What an agent with this configuration has put on its node.
    pub fn of(config: &Config, leaving: &Leaving) -> Self {
        Self {
            // An instance before this one may have used the other backend.
            backend: BackendChoice::Auto,
            address: config.agent_address,
            state_dir: config.state_dir.clone(),
            boot_guard: config.boot_guard.clone(),
            inside: (config.inside.mode != NodeMode::Redirect)
                .then(|| config.inside.folders.clone()),
            leaving: (config.inside.mode != NodeMode::Redirect).then(|| leaving.clone()),
        }
    }

    /// Removes it; what was done, one line each.
    pub async fn node(&self) -> anyhow::Result<Vec<String>> {
        let mut done = Vec::new();
        // First: a node that is rebooted in the middle must not come up closed for good.
        if let Some(root) = &self.boot_guard {
            let removed = bootguard::remove(root)?;
            done.extend(
                removed
                    .iter()
                    .map(|file| format!("removed boot guard {}", file.display())),
            );
        }
        if let Some(leaving) = &self.leaving {
            leaving.leave().await;
        }
        // Before pods: an agent that runs learns by it that it is to lay nothing any more.
        done.extend(intercept::uninstall(self.backend, self.address, &self.state_dir).await?);
        if let Some(inside) = &self.inside {
            let uncounted = IntGauge::new("stuck", "threads in pods that do not end")?;
            let cleared = inside.clear(&Door::new(uncounted)).await?;
            if cleared > 0 {
                done.push(format!("removed the metadata address from {cleared} pods"));
            }
        }
        if selftest::remove_left_over().await? {
            done.push("removed the self-test's interface".to_owned());
        }
        for line in &done {
            tracing::info!("{line}");
        }
        Ok(done)
    }
}
