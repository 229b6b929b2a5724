//! Flags of `lanyard agent`. Every flag is also a variable `LANYARD_…`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use super::duration;
use super::host_token::HostTokenArgs;
use super::hosts::HostArgs;
use super::runtime::RuntimeArgs;
use crate::agent::config::{
    Assignments, Config, Enforcement, EntraConfig, FolderSource, KubernetesSource, NodeMode, Source,
};
use crate::agent::host_network::Apart;
use crate::agent::inside::InsideConfig;
use crate::agent::intercept::{BackendChoice, DEFAULT_AGENT_ADDRESS, DEFAULT_STATE_DIR};
use crate::agent::obtain::ObtainConfig;
use crate::azure::cloud::Cloud;
use crate::model::compute::Compute;
use crate::model::ids::Guid;
use crate::serve::Limits;
use crate::serve::telemetry::{self, LogFormat};

/// Flags of `lanyard agent`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs NET_ADMIN. The rules stay when the agent ends, so that pods never reach \
the node's own identity; `lanyard uninstall` removes them.\n\nFrom Kubernetes it needs to list and watch pods, \
namespaces, azureidentities, azureidentitybindings, azureidentitypolicies and azuremetadataexceptions; \
--startup-taint: get and patch nodes; --host-token-socket and --host-token-listen: create tokenreviews and \
subjectaccessreviews; --removal-marker: get and watch that ConfigMap, patch the one named \
NAME-acks. The chart's ClusterRole gives just that."
)]
pub struct Args {
    /// Standalone: a folder of YAML manifests (pods, namespaces and the kinds of
    /// `lanyard.dev/v1alpha1`), followed for changes. Without it all of them come from Kubernetes.
    #[arg(long, env = "LANYARD_MANIFESTS", value_name = "DIR")]
    manifests: Option<PathBuf>,

    #[command(flatten)]
    kubernetes: KubernetesArgs,

    /// `observe` passes on to the node's IMDS what `enforce` refuses, and tells what it would have
    /// refused. Nothing is protected then; it is for moving a live cluster.
    #[arg(long, env = "LANYARD_ENFORCEMENT", value_enum, default_value_t = Enforcement::default())]
    enforcement: Enforcement,

    /// The host's root file system as this container sees it: installs a unit there that closes
    /// the metadata address to pods from boot on, before kubelet starts.
    #[arg(long, env = "LANYARD_BOOT_GUARD", value_name = "DIR")]
    boot_guard: Option<PathBuf>,

    /// Prove by a packet that comes in like a pod's that interception works, before the agent calls
    /// itself ready and every few minutes. Needs `NET_RAW`. On unless `--manifests` is given.
    #[arg(long, env = "LANYARD_SELF_TEST", value_name = "BOOL", default_missing_value = "true",
          num_args = 0..=1, require_equals = true)]
    self_test: Option<bool>,

    /// Unix socket that `lanyard health` asks.
    #[arg(long, env = "LANYARD_HEALTH_SOCKET", value_name = "PATH")]
    health_socket: Option<PathBuf>,

    /// The node's IMDS.
    #[arg(
        long,
        env = "LANYARD_IMDS_ENDPOINT",
        value_name = "URL",
        default_value = "http://169.254.169.254"
    )]
    imds_endpoint: String,

    #[command(flatten)]
    entra: EntraArgs,

    /// Understand the annotations `azure.workload.identity/client-id` and `tenant-id` of service
    /// accounts, where an `AzureIdentityPolicy` says `workloadIdentity: true`.
    #[arg(long, env = "LANYARD_WORKLOAD_IDENTITY", value_name = "BOOL", default_value_t = false,
          default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    workload_identity: bool,

    /// Link-local address that the agent owns on `lo`: pods' requests are redirected to it.
    #[arg(
        long,
        env = "LANYARD_AGENT_ADDRESS",
        value_name = "IPV4",
        default_value_t = DEFAULT_AGENT_ADDRESS
    )]
    agent_address: Ipv4Addr,

    /// Port at that address; 0 takes any free one, so that two instances can run during an upgrade.
    #[arg(long, env = "LANYARD_PORT", default_value_t = 0)]
    port: u16,

    /// Address of /metrics, /livez, /readyz and the log level.
    #[arg(
        long,
        env = "LANYARD_ADMIN_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:9464"
    )]
    admin_listen: SocketAddr,

    /// Folder for locks, the same for all instances on the node; root-only.
    #[arg(
        long,
        env = "LANYARD_STATE_DIR",
        value_name = "DIR",
        default_value = DEFAULT_STATE_DIR
    )]
    state_dir: PathBuf,

    /// Which iptables the node uses; `auto` finds out and says why.
    #[arg(long, env = "LANYARD_IPTABLES_BACKEND", value_name = "auto|nft|legacy", default_value_t = BackendChoice::Auto)]
    iptables_backend: BackendChoice,

    /// Keep pods from the platform's wire server, too (168.63.129.16, tcp 80 and 32526; its DNS stays open).
    #[arg(long, env = "LANYARD_GUARD_WIRE_SERVER", value_name = "BOOL", default_value_t = true,
          default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    guard_wire_server: bool,

    /// How pods' requests come to the agent: `redirect` by the node's netfilter, `in-pod` by a listener inside
    /// each pod's network namespace (there no source address is believed; needs `SYS_ADMIN` and the runtime's
    /// folder), `mixed` by redirection but for pods with the annotation lanyard.dev/mode: in-pod.
    #[arg(long, env = "LANYARD_MODE", value_enum, default_value_t = NodeMode::Redirect)]
    mode: NodeMode,

    /// Give pods that are served inside the endpoint of the virtual machine extension, too
    /// (`http://localhost:50342/oauth2/token`), unless their annotation lanyard.dev/vm-extension-endpoint says "false".
    /// Without this flag pods get it that say "true".
    #[arg(long, env = "LANYARD_VM_EXTENSION_ENDPOINT", value_name = "BOOL", default_value_t = false,
          default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    vm_extension_endpoint: bool,

    /// Where a `lanyard hold` listens that keeps listeners inside pods open while this agent starts again: pods'
    /// requests then wait instead of being refused. Without a holder there the agent serves all the same.
    #[arg(long, env = "LANYARD_HOLD_SOCKET", value_name = "PATH")]
    hold_socket: Option<PathBuf>,

    #[command(flatten)]
    runtime: RuntimeArgs,

    #[command(flatten)]
    host_token: HostTokenArgs,

    #[command(flatten)]
    hosts: HostArgs,

    /// How long a request waits for a pod that is not known yet.
    #[arg(long, env = "LANYARD_POD_WAIT", value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    pod_wait: Duration,

    /// For how long after its first sight IMDS may still say "not found" for an identity before
    /// that is final.
    #[arg(long, env = "LANYARD_NOT_YET_WINDOW", value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    not_yet_window: Duration,

    /// How long open connections may take to end when the agent is stopped.
    #[arg(long, env = "LANYARD_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    drain_timeout: Duration,

    /// Open connections of one pod; more are closed at once.
    #[arg(long, env = "LANYARD_MAX_CONNECTIONS_PER_POD", value_name = "N", default_value_t = Limits::default().connections_per_peer)]
    max_connections_per_pod: usize,

    /// Worker threads; 0 = one per core, at most two (a cached token costs microseconds).
    #[arg(
        long,
        env = "LANYARD_WORKER_THREADS",
        value_name = "N",
        default_value_t = 0
    )]
    worker_threads: usize,

    /// Log format.
    #[arg(long, env = "LANYARD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Log level or filter, as in `info` or `info,lanyard::agent=debug`; can be changed while running.
    #[arg(
        long,
        env = "LANYARD_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info"
    )]
    log_level: String,
}

impl Args {
    /// Runs the agent until a signal.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let levels = telemetry::init(self.log_format, &self.log_level)?;
        let hosts = self.hosts.apart(&self.state_dir)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.worker_threads == 0 {
            cores.min(2)
        } else {
            self.worker_threads
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            // Few: each keeps memory of its own. They read manifests and rules.
            .max_blocking_threads(3)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(crate::agent::run(self.config(hosts)?, levels))?;
        Ok(ExitCode::SUCCESS)
    }

    fn config(self, hosts: Option<Apart>) -> anyhow::Result<Config> {
        if self.mode != NodeMode::Redirect && self.enforcement == Enforcement::Observe {
            bail!(
                "--enforcement observe goes with --mode redirect only: an agent that observes gives the address back when it ends, and in pods it cannot"
            );
        }
        let self_test = self.self_test.unwrap_or(self.manifests.is_none());
        let source = match self.manifests {
            Some(path) => Source::Folder(FolderSource {
                path,
                compute: self.kubernetes.compute()?,
            }),
            None => Source::Kubernetes(self.kubernetes.source()?),
        };
        Ok(Config {
            source,
            enforcement: self.enforcement,
            boot_guard: self.boot_guard,
            self_test,
            health_socket: self.health_socket,
            imds_endpoint: self.imds_endpoint,
            entra: self.entra.config(),
            workload_identity: self.workload_identity,
            agent_address: self.agent_address,
            port: self.port,
            admin: self.admin_listen,
            state_dir: self.state_dir,
            backend: self.iptables_backend,
            guard_wire_server: self.guard_wire_server,
            inside: InsideConfig {
                mode: self.mode,
                vm_extension: self.vm_extension_endpoint,
                folders: self.runtime.folders(),
                hold_socket: self.hold_socket,
            },
            host_token: self.host_token.config(),
            hosts,
            pod_wait: self.pod_wait,
            drain: self.drain_timeout,
            limits: Limits {
                connections_per_peer: self.max_connections_per_pod,
                ..Limits::default()
            },
            obtain: ObtainConfig {
                not_yet_window: self.not_yet_window,
                ..ObtainConfig::default()
            },
        })
    }
}

/// Flags about Entra ID, for the sources `federated` and `servicePrincipal`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Entra ID")]
struct EntraArgs {
    /// Which of Azure's clouds.
    #[arg(long, env = "LANYARD_CLOUD", value_enum, default_value_t = Cloud::default())]
    cloud: Cloud,

    /// Entra ID, where it is not that of `--cloud`, as in `https://login.microsoftonline.com`. An
    /// `AzureIdentity` may name another one where a policy allows it.
    #[arg(long, env = "LANYARD_AUTHORITY_HOST", value_name = "URL")]
    authority_host: Option<String>,

    /// The tenant of identities that state none.
    #[arg(long, env = "LANYARD_TENANT_ID", value_name = "GUID")]
    tenant_id: Option<Guid>,

    /// Certificates in PEM that are trusted beside the system's, for Entra ID behind a proxy that
    /// breaks TLS open and for simulations.
    #[arg(long, env = "LANYARD_AZURE_CA_FILE", value_name = "FILE")]
    azure_ca_file: Option<PathBuf>,
}

impl EntraArgs {
    fn config(self) -> EntraConfig {
        let host = self.authority_host.filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| self.cloud.authority_host().to_owned());
        EntraConfig {
            authority_host: host.trim_end_matches('/').to_owned(),
            tenant: self.tenant_id,
            ca_file: self.azure_ca_file,
        }
    }
}

/// Flags about the cluster; without effect where `--manifests` is given, but for those about assignments.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
struct KubernetesArgs {
    /// Kubeconfig; absent: the service account of the pod.
    #[arg(long, env = "LANYARD_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// This node's name: only its pods are watched. Needed unless `--manifests` is given.
    #[arg(long, env = "LANYARD_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,

    /// The namespace that the agent runs in.
    #[arg(long, env = "LANYARD_NAMESPACE", default_value = "lanyard-system")]
    namespace: String,

    /// How long pods that are known keep getting tokens while the API server is away.
    #[arg(long, env = "LANYARD_MAX_STALENESS", value_name = "DURATION", default_value = "24h", value_parser = duration::parse)]
    max_staleness: Duration,

    /// `required`: an identity is asked for only when the controller reports it as assigned to this
    /// node (`AzureAssignment`). `ignored`: at once; for clusters without the controller.
    #[arg(long, env = "LANYARD_ASSIGNMENTS", value_enum, default_value_t = Assignments::default())]
    assignments: Assignments,

    /// With --manifests and --assignments=required: the virtual machine or scale set that this node is, as
    /// an ARM id or as its spec.providerID says it. From Kubernetes the Node object says it.
    #[arg(
        long,
        env = "LANYARD_COMPUTE_ID",
        value_name = "ARM_ID",
        requires = "manifests"
    )]
    compute_id: Option<Compute>,

    /// Remove the taint `lanyard.dev/agent-not-ready` from this node once the rules are verified.
    #[arg(long, env = "LANYARD_STARTUP_TAINT", value_name = "BOOL", default_value_t = false,
          default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    startup_taint: bool,

    /// `ConfigMap` of the own namespace that, when it appears, asks every agent to remove its rules.
    #[arg(long, env = "LANYARD_REMOVAL_MARKER", value_name = "NAME")]
    removal_marker: Option<String>,
}

impl KubernetesArgs {
    /// What this node is, where assignments count and no Node object says it.
    fn compute(self) -> anyhow::Result<Option<Compute>> {
        match (self.assignments, self.compute_id) {
            (Assignments::Ignored, _) => Ok(None),
            (Assignments::Required, Some(compute)) => Ok(Some(compute)),
            (Assignments::Required, None) => anyhow::bail!(
                "--compute-id is missing: with --manifests it says whose assignments --assignments=required is about"
            ),
        }
    }

    fn source(self) -> anyhow::Result<KubernetesSource> {
        let node = self.node_name.filter(|name| !name.is_empty()).context(
            "--node-name is missing: it says whose pods to watch (or give --manifests to run standalone)",
        )?;
        Ok(KubernetesSource {
            kubeconfig: self.kubeconfig,
            node,
            namespace: self.namespace,
            max_staleness: self.max_staleness,
            assignments: self.assignments,
            startup_taint: self.startup_taint,
            removal_marker: self.removal_marker,
        })
    }
}
