//! Lanyard on the cluster: from this tree's image and chart, as a user installs it.
//!
//! In: the archive that `make image` makes, the chart. Out: a release whose agents are ready. Blocks
//! until then. Invariant: trials of one run share one release, and whoever changes its values puts
//! them back.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;

/// The release and the prefix of its objects' names.
pub const RELEASE: &str = "lanyard";
/// Its namespace.
pub const NAMESPACE: &str = "lanyard-system";
/// The agents.
pub const DAEMON_SET: &str = "daemonset/lanyard-agent";
/// The chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/lanyard");
const ARCHIVE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/image/lanyard-amd64.tar"
);
const READY_LIMIT: Duration = Duration::from_mins(3);

impl Cluster {
    /// Installs Lanyard with the chart's own values, unless it is there and ready.
    pub async fn lanyard(&self) -> Result<()> {
        let wanted = ["get", DAEMON_SET, "-n", NAMESPACE];
        if self.kubectl(&wanted).await.is_err() {
            let archive = Path::new(ARCHIVE);
            ensure!(
                archive.exists(),
                "{ARCHIVE} is missing: `make image` makes it"
            );
            self.load_image(archive).await?;
            self.install(&[]).await?;
        }
        self.agents_ready().await
    }

    /// `helm upgrade --install` with further arguments (`--set=…`); waits until it is rolled out.
    pub async fn install(&self, more: &[&str]) -> Result<()> {
        let install = [
            "upgrade",
            "--install",
            RELEASE,
            CHART,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout=3m",
        ];
        self.helm(&[&install[..], more].concat()).await.map(drop)
    }

    /// Waits until the agents of both nodes are ready, and no older ones are left.
    pub async fn agents_ready(&self) -> Result<()> {
        let what = "the agents of both nodes to be ready";
        self.wait_for(what, READY_LIMIT, async || {
            let agents = self.get(&[DAEMON_SET, "-n", NAMESPACE]).await?;
            let count = |name: &str| agents["status"][name].as_u64().unwrap_or_default();
            let current =
                agents["status"]["observedGeneration"] == agents["metadata"]["generation"];
            let ready = count("numberReady") == 2 && count("updatedNumberScheduled") == 2;
            Ok(current && ready && self.agents().await?.len() == 2)
        })
        .await
    }

    /// The agents' pods that exist, ending ones included.
    pub async fn agents(&self) -> Result<Vec<Value>> {
        let labels = "app.kubernetes.io/component=agent";
        let pods = self.get(&["pods", "-n", NAMESPACE, "-l", labels]).await?;
        Ok(pods["items"].as_array().cloned().unwrap_or_default())
    }
}
