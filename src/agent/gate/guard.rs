//! Keeps the boot guard installed, where the operator asked for it.
//!
//! In: the host's root, who owns the rules. Out: files of the host, a metric. Blocks on the disk, on a
//! thread for that. A guard that cannot be installed is told and counted, and does not keep the agent
//! from its work: the door that it would close is open only until the agent starts.

use std::path::PathBuf;
use std::time::Duration;

use prometheus::{IntGauge, Registry};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::agent::bootguard;
use crate::agent::intercept::{self, BackendChoice, Ownership};
use crate::serve::series;

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_mins(5);

/// The series of the boot guard.
#[derive(Clone, Debug)]
pub struct GuardMetrics {
    installed: IntGauge,
}

impl GuardMetrics {
    /// Registers all series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let installed = series::gauge(
            registry,
            "lanyard_boot_guard_installed",
            "1 while the boot guard is on the host as it should be.",
        )?;
        Ok(Self { installed })
    }
}

/// Installs it when there are rules, and looks after it until they are removed.
pub async fn run(
    root: PathBuf,
    backend: BackendChoice,
    guard_wire_server: bool,
    mut owned: watch::Receiver<Ownership>,
    metrics: GuardMetrics,
) {
    let mut failed = false;
    loop {
        let rules = matches!(
            *owned.borrow_and_update(),
            Ownership::Owner { .. } | Ownership::StoodDown { .. }
        );
        if rules {
            match install(root.clone(), backend, guard_wire_server).await {
                Ok(changed) => {
                    failed = false;
                    metrics.installed.set(1);
                    if !changed.is_empty() {
                        tracing::info!(files = ?changed, "boot guard installed; it acts at the next boot");
                    }
                }
                Err(error) => {
                    metrics.installed.set(0);
                    if !std::mem::replace(&mut failed, true) {
                        tracing::error!(error = format!("{error:#}"), "no boot guard");
                    }
                }
            }
        } else {
            metrics.installed.set(0);
        }
        if let Ok(Err(_)) = timeout(PERIOD, owned.changed()).await {
            return;
        }
    }
}

async fn install(
    root: PathBuf,
    backend: BackendChoice,
    guard_wire_server: bool,
) -> anyhow::Result<Vec<PathBuf>> {
    let backend = intercept::node_backend(backend).await?;
    let script = intercept::closed_door(guard_wire_server);
    let installed =
        tokio::task::spawn_blocking(move || bootguard::install(&root, &script, backend));
    Ok(installed.await??)
}
