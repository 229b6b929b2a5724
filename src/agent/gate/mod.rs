//! The gate in front of a node: what must hold before pods may come, and what must go when Lanyard does.
//!
//! In: configuration, readiness, who owns the rules. Out: tasks (`start`). Blocks on nothing itself.
//! Invariant 2 (fail closed): it opens the node only after the self-test has passed and everything
//! else is ready; it takes rules away only when the marker says so.

use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::Config;
use super::intercept::Ownership;
use super::selftest::{self, SelfTestMetrics};
use crate::serve::ready::{Latch, Readiness};

/// The gate, before it is started.
pub struct Gate {
    self_test: Option<(Latch, SelfTestMetrics)>,
}

impl Gate {
    /// Makes latches and metrics: to be called before anybody can ask for readiness.
    pub fn prepare(
        config: &Config,
        registry: &Registry,
        readiness: &Readiness,
    ) -> prometheus::Result<Self> {
        let self_test = if config.self_test {
            Some((
                readiness.latch("self-test"),
                SelfTestMetrics::register(registry)?,
            ))
        } else {
            None
        };
        Ok(Self { self_test })
    }

    /// Starts what there is to do.
    pub fn start(
        self,
        config: &Config,
        owned: &watch::Receiver<Ownership>,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) {
        if let Some((latch, metrics)) = self.self_test {
            let (agent, owned) = (config.agent_address, owned.clone());
            tasks.spawn(async move {
                selftest::run(agent, owned, latch, metrics).await;
                anyhow::bail!("nobody keeps the rules any more")
            });
        }
    }
}
