//! A node of the cluster: commands on it, its services, its reboot.
//!
//! In: commands as methods. Out: what they said. Blocks on them, bounded. Invariant: a reboot ends
//! every process and every network setting of the node and keeps /etc, /var and /opt.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::lab::until;
use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Part};
use crate::control::Control;
use crate::node_files::STARTUP_TAINT;
use crate::plan::NodePlan;
use crate::process::{self, Output};
use crate::supervise::{FIRST_OF_NODE, Order, client};
use crate::{traces, wires};

const REBOOT_LIMIT: Duration = Duration::from_secs(30);

/// One of the nodes.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    /// What makes it itself.
    pub plan: NodePlan,
}

impl<'a> Node<'a> {
    pub(crate) fn new(cluster: &'a Cluster, plan: NodePlan) -> Self {
        Self { cluster, plan }
    }

    /// `node-1` or `node-2`.
    pub fn name(&self) -> String {
        self.plan.name()
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.plan.address()
    }

    /// Its root as the machine sees it, kept over reboots (`etc`, `var`, `opt`).
    pub fn root(&self) -> PathBuf {
        self.cluster.places.node(&self.plan)
    }

    /// Its first process's pid as the machine numbers it, while the node runs.
    pub fn pid(&self) -> Result<u32> {
        let children = process::children(self.cluster.first).into_iter();
        let mut parents = children.filter(|&pid| process::has_argument(pid, &self.name()));
        let first = parents.next().map(process::children).unwrap_or_default();
        // Before that it is a shell that still sees the cluster's files, not the node's.
        let mut first = first
            .into_iter()
            .filter(|&pid| process::has_argument(pid, FIRST_OF_NODE));
        first
            .next()
            .with_context(|| format!("{} does not run", self.name()))
    }

    /// Runs a shell command as the node's root, in all of its namespaces.
    pub async fn exec(&self, script: &str) -> Result<Output> {
        self.exec_with(script, &[]).await
    }

    /// The same with a standard input.
    pub async fn exec_with(&self, script: &str, input: &[u8]) -> Result<Output> {
        let mut command = process::inside(
            self.pid()?,
            &[
                "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
            ],
            "/bin/sh",
        );
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/programs";
        command
            .args(["-c", script])
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/root");
        process::run(command, input).await
    }

    /// The same, where a failure is an error; gives standard output.
    pub async fn shell(&self, script: &str) -> Result<String> {
        let what = format!("{}: {script}", self.name());
        self.exec(script).await?.success(&what)
    }

    /// What its agent's `/metrics` says.
    pub async fn metrics(&self) -> Result<String> {
        let url = format!("http://{}:9464/metrics", self.address());
        let said = self.shell(&format!("curl -sS -m 10 {url}")).await?;
        ensure!(said.contains("lanyard_"), "{url}: {said}");
        Ok(said)
    }

    /// A sample of it: a name, with labels where it has some.
    pub async fn sample(&self, series: &str) -> Result<f64> {
        let said = self.metrics().await?;
        let mut lines = said.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.with_context(|| format!("no {series} in {said}"))
    }

    /// `containerd`, `kubelet` or `kube-proxy` of this node.
    pub fn service<'b>(&self, name: &'b str) -> Result<Part<'b>> {
        let first = self.pid()?;
        Ok(Part { first, name })
    }

    /// Its kubelet. Without it pods go on running.
    pub fn kubelet(&self) -> Result<Part<'static>> {
        self.service("kubelet")
    }

    /// Loads an image archive ("docker save" or OCI) into its containerd.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        let bytes = std::fs::read(archive).with_context(|| archive.display().to_string())?;
        let import = "ctr -a /run/containerd/containerd.sock -n k8s.io images import -";
        let output = self.exec_with(import, &bytes).await?;
        output
            .success(&format!("{}: {import}", self.name()))
            .map(drop)
    }

    /// Makes its Node object anew, as a new machine of the pool would: with the startup taint or
    /// without. Its pods are evicted.
    pub async fn register_anew(&self, taint: bool) -> Result<()> {
        let name = self.name();
        self.kubelet()?.stop().await?;
        self.cluster.kubectl(&["delete", "node", &name]).await?;
        let path = self.root().join("etc/kubernetes/kubelet.yaml");
        let config = std::fs::read_to_string(&path)?;
        let lines = config
            .lines()
            .filter(|line| !line.starts_with("registerWithTaints"));
        let mut config = lines.collect::<Vec<_>>().join("\n") + "\n";
        if taint {
            config += STARTUP_TAINT;
        }
        std::fs::write(&path, config)?;
        self.kubelet()?.start().await?;
        self.cluster.nodes_ready().await
    }

    /// Pulls the plug: every process of the node ends at once, its network with it.
    pub async fn power_off(&self) -> Result<()> {
        let first = self.cluster.first;
        let pid = self.pid()?;
        let traced = traces::Traced::of(pid).context("the node ended")?;
        traced.kill();
        // Its parent ends with it; this waits until it has.
        let ended = Order::Stop(self.name(), Signal::SIGKILL as i32);
        client::order(first, &ended).await?;
        let gone = async || !traced.lives();
        until(REBOOT_LIMIT, "the node's end", gone).await?;
        wires::unplug(first, &self.plan).await?;
        traces::empty_cgroups(&self.cluster.cgroup, &self.name()).await
    }

    /// Starts it after [`Self::power_off`]: network, the enabled boot guard, containerd, kubelet,
    /// kube-proxy. Returns when its first process answers, which is after the boot guard.
    pub async fn power_on(&self) -> Result<()> {
        let first = self.cluster.first;
        wires::node(first, &self.plan).await?;
        let control = Control {
            places: &self.cluster.places,
            programs: &self.cluster.programs,
        };
        client::order(first, &Order::Start(control.node(&self.plan))).await?;
        let up = async || matches!(self.pid(), Ok(pid) if client::answers(pid).await);
        Ok(until(REBOOT_LIMIT, "the node's first process", up).await?)
    }

    /// A reboot. Its pods come back when kubelet has started them again.
    pub async fn reboot(&self) -> Result<()> {
        self.power_off().await?;
        self.power_on().await
    }
}
