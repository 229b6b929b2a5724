//! Composition of what listens inside pods.

use std::sync::Arc;

use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{ended_in_drain, spawn};
use crate::agent::config::{Config, NodeMode};
use crate::agent::inside::{Door, Holder, InsideMetrics, Leaving, Listeners};
use crate::agent::intercept::Ownership;
use crate::agent::obtain::Sources;
use crate::agent::pipeline::Pipeline;
use crate::serve::{ConnMetrics, Drain, Pool};

/// Connections that all pods with listeners inside share, beyond the few that each of them always has.
const SHARED: usize = 4096;

/// Listeners inside pods, where that is a mode of this node's; how they are ended before the agent.
pub fn serve(
    config: &Config,
    pipeline: &Arc<Pipeline<Sources>>,
    registry: &Registry,
    drain: &Drain,
    owned: &watch::Receiver<Ownership>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Leaving> {
    let leaving = Leaving::default();
    if config.inside.mode == NodeMode::Redirect {
        return Ok(leaving);
    }
    let metrics = InsideMetrics::register(registry)?;
    let listeners = Listeners {
        config: config.inside.clone(),
        pipeline: pipeline.clone(),
        limits: config.limits,
        drain: drain.clone(),
        leaving: leaving.clone(),
        owned: owned.clone(),
        door: Door::new(metrics.stuck.clone()),
        holder: Holder::at(config.inside.hold_socket.clone(), metrics.held.clone()),
        metrics,
        connections: ConnMetrics::new(registry, "inside")?,
        pool: Pool::new(SHARED),
    };
    let drained = drain.clone();
    spawn(tasks, async move {
        listeners.run().await?;
        ended_in_drain(&drained, "the listeners inside pods")
    });
    Ok(leaving)
}
