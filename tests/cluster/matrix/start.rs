//! Clients that ask all at once: their interpreters run already, and wait for a file.
//!
//! In: calls with `--after` [`BEGIN`]. Out: the moment. Blocks until all of them wait.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;

/// The file.
pub const BEGIN: &str = "/tmp/begin";
const LIMIT: Duration = Duration::from_mins(2);

/// Waits until so many clients of the pod wait for it.
pub async fn started(
    cluster: &Cluster,
    (namespace, pod): (&str, &str),
    count: usize,
) -> Result<()> {
    let waiting = format!("n=$(ls -d {BEGIN}.* | wc -l); echo $n; [ $n -ge {count} ]");
    let all = async || {
        let shell = ["sh", "-c", &waiting];
        let output = cluster.pod_exec(namespace, pod, &shell).await?;
        output.success("counting those that wait")?;
        Ok(true)
    };
    cluster
        .wait_for("all clients to be started", LIMIT, all)
        .await
}

/// Lets them ask.
pub async fn begin(cluster: &Cluster, (namespace, pod): (&str, &str)) -> Result<()> {
    let output = cluster.pod_exec(namespace, pod, &["touch", BEGIN]).await?;
    output.success("touch").map(drop)
}
