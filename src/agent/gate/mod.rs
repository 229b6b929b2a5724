//! The gate in front of a node: what must hold before pods may come, and what must go when Lanyard does.
//!
//! In: configuration, readiness, who owns the rules. Out: tasks. Blocks on nothing but a short look for
//! the removal marker. Invariant 2 (fail closed): it opens the node only after the self-test has
//! passed and everything else is ready; it takes rules away only when the marker says so.

mod guard;
mod leave;
mod removal;
mod taint;

use std::future::Future;

use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::guard::GuardMetrics;
use self::removal::Marker;
use self::taint::TaintMetrics;
use super::config::{Config, Source};
use super::inside::Leaving;
use super::intercept::Ownership;
use super::selftest::{self, SelfTestMetrics};
use crate::kubernetes::Cluster;
use crate::serve::ready::{Latch, Readiness};

pub use self::leave::Leave;

/// The gate, before it is started.
pub struct Gate {
    self_test: Option<(Latch, SelfTestMetrics)>,
    taint: Option<(Cluster, String, TaintMetrics)>,
    marker: Option<(Marker, Latch)>,
    guard: Option<GuardMetrics>,
    readiness: Readiness,
    to_leave: bool,
}

impl Gate {
    /// Makes latches and metrics (to be called before anybody can ask for readiness), and looks for
    /// the removal marker.
    pub async fn prepare(
        config: &Config,
        cluster: Option<&Cluster>,
        registry: &Registry,
        readiness: &Readiness,
    ) -> prometheus::Result<Self> {
        let mut gate = Self {
            self_test: None,
            taint: None,
            marker: None,
            guard: None,
            readiness: readiness.clone(),
            to_leave: false,
        };
        if config.self_test {
            gate.self_test = Some((
                readiness.latch("self-test"),
                SelfTestMetrics::register(registry)?,
            ));
        }
        if config.boot_guard.is_some() {
            gate.guard = Some(GuardMetrics::register(registry)?);
        }
        if let (Source::Kubernetes(source), Some(cluster)) = (&config.source, cluster) {
            if source.startup_taint {
                let metrics = TaintMetrics::register(registry)?;
                gate.taint = Some((cluster.clone(), source.node.clone(), metrics));
            }
            if let Some(marker) = Marker::of(cluster, source) {
                let latch = readiness.latch("removal");
                gate.to_leave = marker.is_set().await;
                if !gate.to_leave {
                    latch.ready();
                }
                gate.marker = Some((marker, latch));
            }
        }
        Ok(gate)
    }

    /// Whether the marker is there already: no rules are to be laid.
    pub fn is_to_leave(&self) -> bool {
        self.to_leave
    }

    /// Starts what there is to do.
    pub fn start(
        self,
        config: &Config,
        owned: &watch::Receiver<Ownership>,
        leaving: &Leaving,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) {
        if let Some((latch, metrics)) = self.self_test {
            let test = selftest::run(config.agent_address, owned.clone(), latch, metrics);
            endless(tasks, "the self-test", test);
        }
        if let (Some(root), Some(metrics)) = (&config.boot_guard, self.guard) {
            let keep = guard::run(
                root.clone(),
                config.backend,
                config.guard_wire_server,
                owned.clone(),
                metrics,
            );
            endless(tasks, "the boot guard's keeper", keep);
        }
        if let Some((cluster, node, metrics)) = self.taint {
            endless(
                tasks,
                "the startup gate",
                taint::run(cluster, node, self.readiness, metrics),
            );
        }
        if let Some((marker, latch)) = self.marker {
            endless(
                tasks,
                "the removal marker's watch",
                marker.obey(Leave::of(config, leaving), latch),
            );
        }
    }
}

fn endless(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    what: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        work.await;
        anyhow::bail!("{what} ended")
    });
}
