//! Flags of `lanyard suggest`, and how the agents of a cluster are asked: each in its own container, over
//! the socket that only it has.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, ListParams};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use super::output::print;
use crate::kubernetes::{self, Cluster};
use crate::probe;
use crate::suggest::{self, Gathered, Report};

/// The agents' pods, whatever the release is called.
const AGENTS: &str = "app.kubernetes.io/name=lanyard,app.kubernetes.io/component=agent";
/// One agent's answer, from asking to its last byte.
const LIMIT: Duration = Duration::from_secs(20);
/// Largest report that is read.
const MAX_REPORT: u64 = 8 * 1024 * 1024;
/// Agents asked at once.
const AT_ONCE: usize = 16;

/// Flags of `lanyard suggest`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "From a person's shell it runs `lanyard suggest --local` in each agent's container, which needs the right to \
exec into their pods. Agents forget what they observed when they restart."
)]
pub struct Args {
    /// This agent only: for inside of its container.
    #[arg(long)]
    local: bool,

    /// The agent's --health-socket, with --local.
    #[arg(
        long,
        env = "LANYARD_HEALTH_SOCKET",
        value_name = "PATH",
        default_value = "/run/lanyard-pod/health.sock"
    )]
    socket: PathBuf,

    /// Kubeconfig; absent: as kubectl finds it.
    #[arg(long, env = "LANYARD_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// How to print it: manifests, or what was observed.
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Manifests with comments.
    Yaml,
    /// What was observed.
    Json,
}

impl Args {
    /// Asks and prints.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut gathered = Gathered::default();
        if self.local {
            gathered.take("this node", self.local()?);
        } else {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let asked = self.everywhere(&mut gathered);
            runtime
                .context("cannot start the runtime")?
                .block_on(asked)?;
        }
        let text = match self.output {
            Output::Yaml => suggest::yaml(&gathered),
            Output::Json => serde_json::to_string_pretty(&gathered.report())? + "\n",
        };
        print(&text);
        for (node, why) in &gathered.silent {
            eprintln!("lanyard: not asked: {node}: {why}");
        }
        Ok(if gathered.silent.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn local(&self) -> anyhow::Result<Report> {
        let socket = self.socket.display();
        let (status, text) = probe::page(&self.socket, "/observed", LIMIT).with_context(|| {
            format!("no answer at {socket}: does the agent run here, with this --health-socket?")
        })?;
        ensure!(status == 200, "the agent answered {status}: {text}");
        serde_json::from_str(&text).context("the agent's answer cannot be read")
    }

    async fn everywhere(&self, gathered: &mut Gathered) -> anyhow::Result<()> {
        let cluster = kubernetes::connect(self.kubeconfig.as_deref()).await?;
        let pods: Api<Pod> = Api::all(cluster.client.clone());
        let params = ListParams::default().labels(AGENTS);
        let agents = cluster
            .call(pods.list(&params))
            .await
            .context("cannot list the agents' pods")?;
        ensure!(
            !agents.items.is_empty(),
            "there is no pod with the labels {AGENTS}: is Lanyard installed here?"
        );
        // One that ends has a successor on its node, which observes from now on.
        let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
        let (mut waiting, mut asking) = (agents.items.into_iter().filter(stays), JoinSet::new());
        loop {
            while asking.len() < AT_ONCE
                && let Some(pod) = waiting.next()
            {
                asking.spawn(ask_pod(cluster.clone(), pod));
            }
            let Some(answer) = asking.join_next().await else {
                return Ok(());
            };
            match answer? {
                (node, Ok(report)) => gathered.take(&node, report),
                (node, Err(error)) => gathered.silent.push((node, format!("{error:#}"))),
            }
        }
    }
}

async fn ask_pod(cluster: Cluster, pod: Pod) -> (String, anyhow::Result<Report>) {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let name = pod.metadata.name.clone().unwrap_or_default();
    let node = node.unwrap_or_else(|| format!("pod {name}"));
    let asked = tokio::time::timeout(LIMIT, exec(cluster, &pod, &name)).await;
    (
        node,
        asked.unwrap_or_else(|_| bail!("no answer within {} s", LIMIT.as_secs())),
    )
}

async fn exec(cluster: Cluster, pod: &Pod, name: &str) -> anyhow::Result<Report> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let mut params = AttachParams::default()
        .stdin(false)
        .stdout(true)
        .stderr(true);
    if let Some(container) = container {
        params = params.container(container.name.clone());
    }
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let command = [
        "/usr/local/bin/lanyard",
        "suggest",
        "--local",
        "--output",
        "json",
    ];
    let mut process = pods.exec(name, command, &params).await?;
    let (mut out, mut errors) = (Vec::new(), String::new());
    let stdout = process.stdout().context("no output")?;
    stdout.take(MAX_REPORT).read_to_end(&mut out).await?;
    if let Some(stderr) = process.stderr() {
        let _ = stderr.take(4096).read_to_string(&mut errors).await;
    }
    if out.is_empty() {
        let said = errors.trim();
        bail!(
            "{}",
            if said.is_empty() {
                "it ended without an answer"
            } else {
                said
            }
        );
    }
    serde_json::from_slice(&out).context("its answer cannot be read")
}
