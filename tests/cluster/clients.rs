//! The clients of the test pods: their image, their calls, and load that goes on by itself.
//!
//! In: `clients/build`, pods that run its image. Out: a client's JSON; a load's report. Blocks on the
//! image's build the first time (a minute or two). Invariant: a load needs nobody to hold it: it
//! writes its report into its pod, so it also goes on while the API server is away.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::pods::CA_PATH;
use crate::process::Output;

/// The clients that read a vault's secret; all of the image are in `matrix`'s table.
pub const CLIENTS: [&str; 6] = ["curl", "go", "python", "msal", "node", "java"];
/// A load's answer to its last request may take as long as its own deadline.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// What `clients/build` prints.
#[derive(Debug, Deserialize)]
struct Built {
    image: String,
    archive: String,
}

/// Makes the image if it is missing, loads it into the nodes that lack it, and gives its name.
pub async fn image(cluster: &Cluster) -> Result<String> {
    image_of(cluster, "clients").await
}

/// The same of one of `clients/build`'s images.
pub async fn image_of(cluster: &Cluster, kind: &str) -> Result<String> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/clients/build");
    let output = Command::new(&build)
        .arg(kind)
        .env("LANYARD_CACHE", crate::cached::folder())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = output
        .await
        .with_context(|| format!("starting {}", build.display()))?;
    ensure!(
        output.status.success(),
        "the clients' image: {}",
        output.status
    );
    let built: Built = serde_json::from_slice(&output.stdout)?;
    for node in cluster.nodes() {
        let there = node.shell("ctr -n k8s.io images ls -q").await?;
        if !there.lines().any(|line| line == built.image) {
            node.load_image(Path::new(&built.archive)).await?;
        }
    }
    Ok(built.image)
}

/// A pod with the clients' image in it.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    pod: &'a str,
}

impl<'a> Asker<'a> {
    /// That pod, which must run.
    pub fn new(cluster: &'a Cluster, namespace: &'a str, pod: &'a str) -> Self {
        Self {
            cluster,
            namespace,
            pod,
        }
    }

    /// Runs a client; an error is the client's own message.
    pub async fn client(&self, client: &str, args: &[&str]) -> Result<Value> {
        let trust = format!("VAULT_CA={CA_PATH}");
        self.client_with(&[&trust], client, args).await
    }

    /// The same with these variables (`NAME=VALUE`) and no others beside the pod's.
    pub async fn client_with(
        &self,
        variables: &[&str],
        client: &str,
        args: &[&str],
    ) -> Result<Value> {
        let what = format!("{}: client {client} {}", self.pod, args.join(" "));
        let said = self.ended(variables, client, args).await?.success(&what)?;
        serde_json::from_str(&said).with_context(|| format!("{what}: {said}"))
    }

    /// The same, for those who look at a failure, too: what the client left.
    pub async fn ended(&self, variables: &[&str], client: &str, args: &[&str]) -> Result<Output> {
        let command = [&["env"], variables, &["client", client], args].concat();
        self.cluster
            .pod_exec(self.namespace, self.pod, &command)
            .await
    }

    /// Starts a load in the pod; `name` tells it from others there.
    pub async fn load(&self, name: &'a str, duration: Duration, flags: &str) -> Result<Load<'a>> {
        let seconds = duration.as_secs();
        let script = format!(
            "rm -f /tmp/{name}.*; (load --duration {seconds}s {flags} >/tmp/{name}.part 2>/tmp/{name}.err \
             </dev/null; mv /tmp/{name}.part /tmp/{name}.json) >/dev/null 2>&1 &"
        );
        let shell = ["sh", "-c", &script];
        let output = self.cluster.pod_exec(self.namespace, self.pod, &shell);
        output.await?.success("starting a load")?;
        Ok(Load {
            asker: *self,
            name,
            duration,
        })
    }
}

/// A load that goes on in a pod.
#[derive(Debug)]
pub struct Load<'a> {
    asker: Asker<'a>,
    name: &'a str,
    duration: Duration,
}

impl Load<'_> {
    /// Waits for its end and gives its report.
    pub async fn report(&self) -> Result<Report> {
        let Asker {
            cluster,
            namespace,
            pod,
        } = self.asker;
        let file = format!("/tmp/{}.json", self.name);
        let mut text = String::new();
        let what = format!("the report of the load {} in {pod}", self.name);
        let limit = self.duration + LAST_ANSWERS;
        let there = async || {
            let output = cluster.pod_exec(namespace, pod, &["cat", &file]).await?;
            text = output.success("its report")?;
            Ok(true)
        };
        cluster.wait_for(&what, limit, there).await?;
        let mut report: Report =
            serde_json::from_str(&text).with_context(|| format!("{what}: {text}"))?;
        report.name = format!("{pod}, {}", self.name);
        Ok(report)
    }
}

/// What a load saw.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Pod and load.
    #[serde(default)]
    pub name: String,
    /// When it began.
    pub started: Timestamp,
    /// Requests.
    pub sent: u64,
    /// Answers as expected.
    pub ok: u64,
    /// All others.
    pub failed: u64,
    /// Those by what became of them.
    pub failed_by_kind: Option<BTreeMap<String, u64>>,
    /// Refusals, where they were expected.
    pub refused_by_kind: Option<BTreeMap<String, u64>>,
    /// The slowest answer.
    pub max_seconds: f64,
    /// The 99th percentile.
    pub p99_seconds: f64,
    /// The first failures.
    pub failures: Option<Vec<Failure>>,
}

/// A request that failed.
#[derive(Clone, Debug, Deserialize)]
pub struct Failure {
    /// When it was sent.
    pub at: Timestamp,
    /// What became of it.
    pub kind: String,
    /// The client's words.
    #[serde(default)]
    pub detail: String,
    /// After which time.
    pub seconds: f64,
}

impl Report {
    /// An error that shows the failures, if there are any or if hardly anything was sent.
    pub fn flawless(&self, least: u64) -> Result<()> {
        println!(
            "{}: {} of {} as expected, p99 {:.0} ms, max {:.0} ms{}",
            self.name,
            self.ok,
            self.sent,
            self.p99_seconds * 1000.0,
            self.max_seconds * 1000.0,
            self.refused_by_kind
                .as_ref()
                .map_or(String::new(), |kinds| format!(", refused by {kinds:?}")),
        );
        ensure!(
            self.sent >= least,
            "{}: only {} were sent",
            self.name,
            self.sent
        );
        let failures = self.failures.as_deref().unwrap_or_default();
        let first = &failures[..failures.len().min(10)];
        ensure!(
            self.failed == 0,
            "{}: {} of {} failed ({:?}), the first: {first:#?}",
            self.name,
            self.failed,
            self.sent,
            self.failed_by_kind
        );
        Ok(())
    }
}
