//! Composition of the listener for host-network pods.

use std::net::SocketAddrV4;
use std::sync::Arc;

use anyhow::Context as _;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{ended_in_drain, spawn};
use crate::agent::config::Config;
use crate::agent::host_network::{Apart, Namer, OnHost};
use crate::agent::obtain::Sources;
use crate::agent::pipeline::Pipeline;
use crate::serve::{self, ConnMetrics, Drain, Limits};

/// Connections of all host-network pods together.
const MOST: usize = 1024;

/// The listener for host-network pods, where they are told apart; where it is.
pub async fn serve(
    config: &Config,
    pipeline: &Arc<Pipeline<Sources>>,
    registry: &Registry,
    drain: &Drain,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Option<(Apart, u16)>> {
    let Some(apart) = &config.hosts else {
        return Ok(None);
    };
    let address = config.agent_address;
    let listener = TcpListener::bind((address, 0)).await;
    let listener = listener.context("cannot listen for host-network pods")?;
    let port = listener.local_addr()?.port();
    let namer = Namer::open(
        SocketAddrV4::new(address, port),
        &apart.hierarchy,
        pipeline.directory.clone(),
    );
    let namer = namer.context("cannot ask for sockets")?;
    let following = namer.following();
    spawn(tasks, async move { match following.await {} });
    let answer = OnHost {
        pipeline: pipeline.clone(),
        namer,
    };
    let limits = Limits {
        // Few: each connection has buffers, and any pod may open some.
        connections: MOST,
        ..config.limits
    };
    tracing::info!(%address, port, "listening for host-network pods");
    let conn = ConnMetrics::new(registry, "hosts")?;
    let server = serve::serve(listener, limits, answer, drain.clone(), conn);
    let drained = drain.clone();
    spawn(tasks, async move {
        server.await;
        ended_in_drain(&drained, "the listener for host-network pods")
    });
    Ok(Some((apart.clone(), port)))
}
