//! What reached the cloud, and from whom.
//!
//! In: the simulator's journal. Out: the requests of pods that no agent made. Invariant: a pod's
//! connection is known by its own address, or, masqueraded, by a source port that only pods'
//! connections have; the smoke trial has seen both witnesses notice.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lanyard::sim::Entry;
use lanyard::sim::journal::Listener;

use crate::cluster::Cluster;
use crate::plan::MASQUERADED;

impl Cluster {
    /// The journal's present end: what comes later has higher numbers.
    pub async fn mark(&self) -> Result<u64> {
        let entries = self.azure().journal(0).await?;
        Ok(entries.last().map_or(0, |entry| entry.seq))
    }

    /// Requests since `mark`, oldest first.
    pub async fn journal(&self, mark: u64) -> Result<Vec<Entry>> {
        Ok(self.azure().journal(mark).await?)
    }

    /// Requests since `mark` that pods made to IMDS or the wire server past every agent.
    pub async fn leaks(&self, mark: u64) -> Result<Vec<Entry>> {
        let entries = self.journal(mark).await?;
        let closed = |entry: &Entry| matches!(entry.listener, Listener::Imds | Listener::Wire);
        let leaked = entries
            .into_iter()
            .filter(|entry| closed(entry) && by_pod(entry));
        Ok(leaked.collect())
    }

    /// An error that shows them if there are any.
    pub async fn no_leaks(&self, mark: u64) -> Result<()> {
        let leaks = self.leaks(mark).await?;
        ensure!(
            leaks.is_empty(),
            "{} requests of pods reached the cloud: {leaks:#?}",
            leaks.len()
        );
        Ok(())
    }
}

/// Whether a pod sent it: the agents' own requests come from their node's usual ports.
pub fn by_pod(entry: &Entry) -> bool {
    let Ok(source) = entry.source.parse::<SocketAddr>() else {
        return true;
    };
    let pods = matches!(source.ip(), IpAddr::V4(ip) if ip.octets()[..2] == [10, 244]);
    pods || MASQUERADED.contains(&source.port())
}
