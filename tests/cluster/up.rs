//! Brings a cluster up, step by step, each said and timed.
//!
//! In: its places, how it may end, whether nodes carry the startup taint. Out: a cluster with two
//! ready nodes. Blocks until then, bounded. Invariant: traces are recorded before they are made.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lanyard::lab::until;
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::control::{AZURE_READY, Control};
use crate::plan::{API_PORT, CONTROL, NODES, Places};
use crate::programs::Programs;
use crate::supervise::{FIRST_OF_CLUSTER, Order, client};
use crate::traces::{self, Traced, Traces};
use crate::{cached, images, node_files, pki, process, programs, wires};

/// What a cluster is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// It ends with the process that brings it up.
    pub ends_with_us: bool,
    /// Nodes register with the taint `lanyard.dev/agent-not-ready`.
    pub taint: bool,
}

const LIMIT: Duration = Duration::from_mins(2);
/// Entra ID fetches the issuer's keys, as it does from a cloud's public address, with no credential.
const DISCOVERY: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: issuer-discovery-for-entra}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: \"system:service-account-issuer-discovery\"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: \"system:anonymous\"}]
";

/// Says what is done; the time is that since the start.
struct Progress(Instant);

impl Progress {
    fn say(&self, what: &str) {
        eprintln!("cluster: {:5.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}

/// Brings it up. On an error everything but the logs is removed.
pub async fn up(places: &Places, wish: Wish) -> Result<Cluster> {
    let cache = cached::folder();
    std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let programs = programs::ensure().await?;
    let prepared = images::ensure(&cache).await?;
    traces::remove(places).await?;
    let progress = Progress(Instant::now());
    match raise(places, &programs, &prepared, wish, &progress).await {
        Ok(cluster) => Ok(cluster),
        Err(error) => {
            let logs = traces::keep_logs(places);
            traces::remove(places).await?;
            Err(error)
                .with_context(|| format!("the cluster did not come up; logs in {}", logs.display()))
        }
    }
}

async fn raise(
    places: &Places,
    programs: &Programs,
    prepared: &Path,
    wish: Wish,
    progress: &Progress,
) -> Result<Cluster> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let cgroup = format!(
        "/lanyard-{}-{}",
        std::process::id(),
        listener.local_addr()?.port()
    );
    progress.say("certificates and nodes' files");
    files(places, prepared, &listener, &cgroup, wish).await?;
    let mut traces = Traces {
        processes: Vec::new(),
        cgroup,
        complete: false,
    };
    traces.write(places)?;
    traces::make_cgroups(&traces.cgroup)?;

    let first = start(places, listener, wish, &mut traces).await?;
    wires::core(first).await?;
    let control = Control { places, programs };
    progress.say("etcd, API server, simulated Azure");
    for service in [control.etcd(), control.apiserver(), control.azure()] {
        client::order(first, &Order::Start(service)).await?;
    }
    for plan in &NODES {
        wires::node(first, plan).await?;
    }
    let cluster = Cluster::of(places, programs, &traces)?;
    let ready = async || cluster.kubectl(&["get", "--raw", "/readyz"]).await.is_ok();
    until(LIMIT, "the API server to be ready", ready).await?;
    cluster.apply(DISCOVERY).await?;
    progress.say("controllers, scheduler, nodes");
    for service in [control.controller_manager(), control.scheduler()] {
        client::order(first, &Order::Start(service)).await?;
    }
    for plan in &NODES {
        client::order(first, &Order::Start(control.node(plan))).await?;
    }
    cluster.nodes_ready().await?;
    let account = async || {
        cluster
            .kubectl(&["get", "serviceaccount", "default"])
            .await
            .is_ok()
    };
    until(LIMIT, "the default service account", account).await?;
    let azure = client::path_of(first, AZURE_READY);
    until(LIMIT, "simulated Azure to listen", async || azure.exists()).await?;
    traces.complete = true;
    traces.write(places)?;
    progress.say("ready");
    Ok(cluster)
}

async fn files(
    places: &Places,
    prepared: &Path,
    listener: &TcpListener,
    cgroup: &str,
    wish: Wish,
) -> Result<()> {
    std::fs::create_dir_all(places.logs())?;
    link(&std::env::current_exe()?, &places.first_process())?;
    link(Path::new(env!("CARGO_BIN_EXE_lanyard")), &places.lanyard())?;
    std::fs::write(places.world(), include_str!("world.yaml"))?;
    let ca = pki::make(&places.pki())?;
    let outside = format!("https://{}", listener.local_addr()?);
    pki::write(&places.kubeconfig(), &ca.kubeconfig("admin", &outside)?)?;
    let inside = format!("https://{CONTROL}:{API_PORT}");
    for part in ["kube-controller-manager", "kube-scheduler"] {
        let text = ca.kubeconfig(&format!("system:{part}"), &inside)?;
        pki::write(&places.pki().join(format!("{part}.kubeconfig")), &text)?;
    }
    for plan in &NODES {
        let root = places.node(plan);
        node_files::write(plan, &root, &ca, cgroup, wish.taint).await?;
        images::copy(prepared, &root.join("var/lib/containerd")).await?;
    }
    Ok(())
}

/// A name of its own for a program: a new build replaces the file, not what runs.
fn link(program: &Path, name: &Path) -> Result<()> {
    std::fs::hard_link(program, name)
        .or_else(|_| std::fs::copy(program, name).map(drop))
        .with_context(|| name.display().to_string())
}

/// Starts the first process and gives its pid.
async fn start(
    places: &Places,
    listener: TcpListener,
    wish: Wish,
    traces: &mut Traces,
) -> Result<u32> {
    let log = std::fs::File::create(places.logs().join("cluster.log"))?;
    // A session of its own: Ctrl-C is for the tests, which then end the cluster.
    let mut command = Command::new("setsid");
    if wish.ends_with_us {
        command.args(["setpriv", "--pdeathsig", "KILL"]);
    }
    command.args("unshare --net --mount --pid --fork --kill-child -- sh -c".split(' '));
    command
        .args([include_str!("control.sh"), "control"])
        .arg(places.first_process());
    command
        .arg(FIRST_OF_CLUSTER)
        .arg(format!("{CONTROL}:{API_PORT}"));
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    let mut child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting setsid")?;
    let outer = child
        .id()
        .and_then(Traced::of)
        .context("the cluster's first process ended at once")?;
    traces.processes = vec![outer];
    traces.write(places)?;
    let mut first = None;
    let answers = async || {
        first = process::children(outer.pid).first().copied();
        let ended = child.try_wait().is_ok_and(|status| status.is_some());
        ended || matches!(first, Some(pid) if client::answers(pid).await)
    };
    until(LIMIT, "the cluster's first process", answers).await?;
    let Some(first) = first.and_then(Traced::of) else {
        let said = std::fs::read_to_string(places.logs().join("cluster.log"))?;
        bail!("the cluster's first process ended: {said}");
    };
    traces.processes.push(first);
    traces.write(places)?;
    Ok(first.pid)
}
