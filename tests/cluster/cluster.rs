//! The handle that trials work with: a running cluster and its parts.
//!
//! In: commands as methods. Out: what they said, as text or JSON. Blocks on them, bounded.
//! Invariant: everything goes through what a person would use (kubectl, helm, ctr), as the
//! cluster's administrator, except where a method says otherwise.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lanyard::sim::control::Client;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

use crate::control::{AZURE, AZURE_CA};
use crate::node::Node;
use crate::pki;
use crate::plan::{NODES, Places};
use crate::process::{self, Output};
use crate::programs::Programs;
use crate::supervise::{Order, client};
use crate::traces::Traces;

/// How long a single command may take.
const COMMAND_LIMIT: Duration = Duration::from_mins(5);
const NODES_LIMIT: Duration = Duration::from_mins(3);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) places: Places,
    pub(crate) programs: Programs,
    pub(crate) first: u32,
    pub(crate) cgroup: String,
    azure: Client,
}

impl Cluster {
    /// The one in that folder, which must run.
    pub fn open(places: &Places, programs: &Programs) -> Result<Self> {
        let traces = Traces::read(places)?.filter(Traces::live);
        let traces = traces.context("no cluster runs here: `make cluster` brings one up")?;
        Self::of(places, programs, &traces)
    }

    /// The one with these traces, also while it is coming up.
    pub(crate) fn of(places: &Places, programs: &Programs, traces: &Traces) -> Result<Self> {
        let first = traces
            .processes
            .last()
            .context("a cluster without a process")?
            .pid;
        Ok(Self {
            places: places.clone(),
            programs: programs.clone(),
            first,
            cgroup: traces.cgroup.clone(),
            azure: Client::new(client::path_of(first, AZURE)),
        })
    }

    /// The administrator's kubeconfig; its server is a port of the machine's loopback.
    pub fn kubeconfig(&self) -> PathBuf {
        self.places.kubeconfig()
    }

    /// A kubeconfig for somebody with this bearer token (a service account's, stolen or not).
    pub fn kubeconfig_for(&self, name: &str, token: &str) -> Result<PathBuf> {
        let admin = std::fs::read_to_string(self.kubeconfig())?;
        let users = admin
            .find("\nusers:")
            .context("the kubeconfig has no users")?;
        let path = self.places.root.join(format!("{name}.kubeconfig"));
        let rest = format!(
            "\nusers:\n- name: token\n  user: {{token: {token}}}\ncontexts:\n- name: lanyard\n  \
             context: {{cluster: lanyard, user: token}}\n"
        );
        pki::write(&path, &(admin[..users].to_owned() + &rest))?;
        Ok(path)
    }

    /// A client of the API server, as the administrator: it costs no process for each request.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let options = kube::config::KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.proxy_url = None;
        config.default_retry = false;
        Ok(kube::Client::try_from(config)?)
    }

    /// The folder with every process's log.
    pub fn logs(&self) -> PathBuf {
        self.places.logs()
    }

    /// kubectl with these arguments; its standard output, or its words as an error.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let what = format!("kubectl {}", args.join(" "));
        self.kubectl_with(args, "").await?.success(&what)
    }

    /// kubectl with a standard input; gives also a failure's output.
    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> Result<Output> {
        let mut command = self.tool(&self.programs.kubernetes.join("kubectl"));
        command.args(args);
        bounded(command, input).await
    }

    /// `kubectl get … -o json`.
    pub async fn get(&self, args: &[&str]) -> Result<Value> {
        let args = [&["get", "-o", "json"], args].concat();
        Ok(serde_json::from_str(&self.kubectl(&args).await?)?)
    }

    /// Applies manifests (server-side, so that large ones work, too).
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl_with(&args, yaml)
            .await?
            .success("kubectl apply")
    }

    /// Deletes what the manifests name, without grace for pods, and waits for it.
    pub async fn delete(&self, yaml: &str) -> Result<String> {
        let args = [
            "delete",
            "--ignore-not-found",
            "--grace-period=1",
            "-f",
            "-",
        ];
        self.kubectl_with(&args, yaml)
            .await?
            .success("kubectl delete")
    }

    /// helm with these arguments; its standard output, or its words as an error.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        let what = format!("helm {}", args.join(" "));
        self.helm_with(args).await?.success(&what)
    }

    /// helm; gives also a failure's output.
    pub async fn helm_with(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.tool(&self.programs.helm);
        command.args(args);
        bounded(command, "").await
    }

    /// Runs `command` in a pod's first container and gives what it left, also of a failure.
    pub async fn pod_exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<Output> {
        let args = [&["exec", "-n", namespace, pod, "--"], command].concat();
        self.kubectl_with(&args, "").await
    }

    /// A program that shall run beside the trial (a load, a watch): kubectl, not started yet.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.tool(&self.programs.kubernetes.join("kubectl"));
        command.args(args).kill_on_drop(true);
        command
    }

    /// Waits until `condition` holds; an error of it is a "not yet" that is shown when time is up.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let mut last = String::new();
        let asked = lanyard::lab::until(limit, what, async || match condition().await {
            Ok(holds) => holds,
            Err(error) => {
                last = format!("{error:#}");
                false
            }
        });
        asked.await.with_context(|| format!("last: {last}"))
    }

    /// Waits until a pod is Ready; an error shows its state and events.
    pub async fn pod_ready(&self, namespace: &str, pod: &str) -> Result<()> {
        let wait = [
            "wait",
            "-n",
            namespace,
            "--for=condition=Ready",
            "--timeout=120s",
        ];
        let name = format!("pod/{pod}");
        if let Err(error) = self.kubectl(&[&wait[..], &[&name]].concat()).await {
            let seen = self.kubectl(&["describe", "-n", namespace, &name]).await;
            bail!("{error:#}\n{}", seen.unwrap_or_default());
        }
        Ok(())
    }

    /// Waits until both nodes are Ready.
    pub async fn nodes_ready(&self) -> Result<()> {
        self.wait_for("both nodes to be ready", NODES_LIMIT, async || {
            let args = [
                "get",
                "nodes",
                "-o",
                "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status} {end}",
            ];
            let states = self.kubectl(&args).await?;
            Ok(states
                .split_whitespace()
                .filter(|state| *state == "True")
                .count()
                == NODES.len())
        })
        .await
    }

    /// Loads an image archive into both nodes' containerd.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        for node in self.nodes() {
            node.load_image(archive).await?;
        }
        Ok(())
    }

    /// Node 1 (bridge, nft) or 2 (ptp, legacy).
    pub fn node(&self, number: usize) -> Node<'_> {
        Node::new(self, NODES[(number - 1).min(NODES.len() - 1)])
    }

    /// Both nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        NODES.iter().map(|plan| Node::new(self, *plan))
    }

    /// A service of the control plane: `kube-apiserver`, `kube-controller-manager`,
    /// `kube-scheduler`, `etcd`, `azure` (the simulator).
    pub fn service<'a>(&'a self, name: &'a str) -> Part<'a> {
        Part {
            first: self.first,
            name,
        }
    }

    /// The API server.
    pub fn apiserver(&self) -> Part<'_> {
        self.service("kube-apiserver")
    }

    /// The simulated Azure: journal, faults, assignments.
    pub fn azure(&self) -> &Client {
        &self.azure
    }

    /// The certificate authority of the simulated vaults, PEM.
    pub fn azure_ca(&self) -> Result<String> {
        Ok(std::fs::read_to_string(client::path_of(
            self.first, AZURE_CA,
        ))?)
    }

    fn tool(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let own = self.places.root.join("tools");
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", own.join("kubectl"));
        for (name, dir) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, own.join(dir));
        }
        for proxy in [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(proxy);
        }
        command
    }
}

async fn bounded(command: Command, input: &str) -> Result<Output> {
    let what = format!("{:?}", command.as_std());
    let output = tokio::time::timeout(COMMAND_LIMIT, process::run(command, input.as_bytes())).await;
    output.with_context(|| format!("{what}: not done after {} s", COMMAND_LIMIT.as_secs()))?
}

/// A process that can be stopped and started again.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub(crate) first: u32,
    pub(crate) name: &'a str,
}

impl Part<'_> {
    /// Ends it by SIGTERM and waits; it stays ended.
    pub async fn stop(&self) -> Result<()> {
        self.order(&Order::Stop(self.name.to_owned(), Signal::SIGTERM as i32))
            .await
    }

    /// Ends it by SIGKILL and waits; it stays ended.
    pub async fn kill(&self) -> Result<()> {
        self.order(&Order::Stop(self.name.to_owned(), Signal::SIGKILL as i32))
            .await
    }

    /// Starts it again; does not wait until it serves.
    pub async fn start(&self) -> Result<()> {
        self.order(&Order::Again(self.name.to_owned())).await
    }

    /// Freezes it: connections stay open and nothing answers (a watch that has silently died).
    pub async fn freeze(&self) -> Result<()> {
        self.order(&Order::Signal(self.name.to_owned(), Signal::SIGSTOP as i32))
            .await
    }

    /// Lets it go on.
    pub async fn thaw(&self) -> Result<()> {
        self.order(&Order::Signal(self.name.to_owned(), Signal::SIGCONT as i32))
            .await
    }

    async fn order(&self, order: &Order) -> Result<()> {
        client::order(self.first, order).await.map(drop)
    }
}
