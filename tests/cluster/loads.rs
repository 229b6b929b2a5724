//! Load from granted pods of both nodes, and from pods that nothing is granted to.
//!
//! In: a namespace with the usual cast. Out: everybody's reports. Blocks on the pods; the loads go on
//! by themselves. Invariant: a stranger's request that had any effect in Azure is an error.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cast::{self, AUDIT, GRANTED, PAYMENTS};
use crate::clients::{self, Asker, Load, Report};
use crate::cluster::Cluster;
use crate::plan::NODES;
use crate::pods::Pod;

/// Requests per second of each load: one with kept, one with new connections in each pod.
pub const RATE: u64 = 50;
const STRANGERS_RATE: u64 = 10;
const GRANTED_PODS: [&str; 2] = ["busy-1", "busy-2"];
const STRANGERS: [&str; 2] = ["stranger-1", "stranger-2"];

/// Pods on both nodes, ready to ask.
#[derive(Debug)]
pub struct Crowd<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

/// Loads that go on.
#[derive(Debug)]
pub struct Loads<'a> {
    crowd: &'a Crowd<'a>,
    duration: Duration,
    mark: u64,
    granted: Vec<Load<'a>>,
    strangers: Vec<Load<'a>>,
}

impl<'a> Crowd<'a> {
    /// Lanyard, the usual cast, and the pods.
    pub async fn gather(cluster: &'a Cluster, namespace: &'a str) -> Result<Self> {
        cluster.lanyard().await?;
        let image = clients::image(cluster).await?;
        cast::raise(cluster, namespace).await?;
        for (plan, (busy, stranger)) in NODES.iter().zip(GRANTED_PODS.iter().zip(STRANGERS)) {
            let node = plan.number.into();
            let busy = Pod::new(namespace, busy, node)
                .identity(PAYMENTS.name)
                .labels(GRANTED);
            cluster.run_pod(&busy.image(&image)).await?;
            let stranger = Pod::new(namespace, stranger, node).identity(AUDIT.name);
            cluster.run_pod(&stranger.image(&image)).await?;
        }
        Ok(Self { cluster, namespace })
    }

    /// That pod.
    pub fn asker(&self, pod: &'a str) -> Asker<'a> {
        Asker::new(self.cluster, self.namespace, pod)
    }

    /// Starts all loads, each after the first token of its pod.
    pub async fn load(&'a self, duration: Duration) -> Result<Loads<'a>> {
        let mark = self.cluster.mark().await?;
        let (mut granted, mut strangers) = (Vec::new(), Vec::new());
        for pod in STRANGERS {
            let flags = format!("--connections new --rate {STRANGERS_RATE} --expect refusal");
            strangers.push(self.asker(pod).load("refused", duration, &flags).await?);
        }
        let flags = format!("--rate {RATE} --want-client-id {}", PAYMENTS.client_id);
        for pod in GRANTED_PODS {
            let asker = self.asker(pod);
            asker.client("curl", &["token"]).await?;
            for connections in ["keepalive", "new"] {
                let flags = format!("{flags} --connections {connections}");
                granted.push(asker.load(connections, duration, &flags).await?);
            }
        }
        Ok(Loads {
            crowd: self,
            duration,
            mark,
            granted,
            strangers,
        })
    }

    /// Removes them.
    pub async fn disperse(self) -> Result<()> {
        cast::leave(self.cluster, self.namespace).await
    }
}

impl Loads<'_> {
    /// Waits for the granted pods' reports, and sees that strangers got and caused nothing.
    pub async fn reports(&self) -> Result<Vec<Report>> {
        let mut reports = Vec::new();
        for load in &self.granted {
            reports.push(load.report().await?);
        }
        for load in &self.strangers {
            let least = self.duration.as_secs() * STRANGERS_RATE;
            load.report().await?.flawless(least)?;
        }
        let cluster = self.crowd.cluster;
        cluster.no_leaks(self.mark).await?;
        let journal = cluster.journal(self.mark).await?;
        let strange = journal
            .iter()
            .find(|entry| entry.identity.as_deref() == Some(AUDIT.name));
        ensure!(
            strange.is_none(),
            "a stranger's request went on: {strange:?}"
        );
        Ok(reports)
    }

    /// How many requests each granted load sends.
    pub fn each(&self) -> u64 {
        self.duration.as_secs() * RATE
    }
}
