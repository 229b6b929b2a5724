//! What the agent is told at start: values, checked where they were typed (`cli::agent`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::host_network::Apart;
use super::host_token::HostTokenConfig;
use super::inside::InsideConfig;
use super::intercept::BackendChoice;
use super::obtain::ObtainConfig;
use crate::azure::marked::OwnSockets;
use crate::model::compute::Compute;
use crate::model::facts::Mode;
use crate::model::ids::Guid;
use crate::serve::Limits;

/// The agent's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where pods, bindings and identities come from.
    pub source: Source,
    /// Whether what is not granted is refused.
    pub enforcement: Enforcement,
    /// The host's root file system, where the boot guard is to be installed; `None`: it is not.
    pub boot_guard: Option<PathBuf>,
    /// Whether to prove, by a packet like a pod's, that interception works before the agent is ready.
    pub self_test: bool,
    /// Unix socket for `lanyard health`; `None`: there is none.
    pub health_socket: Option<PathBuf>,
    /// IMDS, `http://host[:port]`.
    pub imds_endpoint: String,
    /// Entra ID.
    pub entra: EntraConfig,
    /// Whether annotations of Azure Workload Identity on service accounts are looked at.
    pub workload_identity: bool,
    /// Link-local address of the agent on `lo`, the target of the redirection.
    pub agent_address: Ipv4Addr,
    /// Port at that address; 0 = any free one.
    pub port: u16,
    /// Address of metrics and health.
    pub admin: SocketAddr,
    /// Root-only folder on the node: locks.
    pub state_dir: PathBuf,
    /// Which iptables.
    pub backend: BackendChoice,
    /// Whether pods are kept from the wire server.
    pub guard_wire_server: bool,
    /// How pods' requests come.
    pub inside: InsideConfig,
    /// Where tokens are given on behalf of pods.
    pub host_token: HostTokenConfig,
    /// What host-network pods are told apart by; `None`: they pass the agent by.
    pub hosts: Option<Apart>,
    /// How long a request waits for a pod that is not known yet.
    pub pod_wait: Duration,
    /// How long a drain may take.
    pub drain: Duration,
    /// Connections.
    pub limits: Limits,
    /// Cache and upstream.
    pub obtain: ObtainConfig,
}

impl Config {
    /// What the agent's own sockets to IMDS are known by, where they would come back to it otherwise.
    #[must_use]
    pub fn own_sockets(&self) -> Option<OwnSockets> {
        self.hosts.as_ref().map(|apart| apart.own)
    }
}

/// Where Entra ID is and whom to trust there.
#[derive(Clone, Debug)]
pub struct EntraConfig {
    /// Where an identity states no `authorityHost`: `https://HOST[:PORT]`.
    pub authority_host: String,
    /// The tenant of identities that state none.
    pub tenant: Option<Guid>,
    /// Certificates in PEM that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where pods, bindings and identities come from: one seam, two implementations.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder of manifests.
    Folder(FolderSource),
    /// The Kubernetes API.
    Kubernetes(KubernetesSource),
}

/// A folder of manifests.
#[derive(Clone, Debug)]
pub struct FolderSource {
    /// The folder.
    pub path: PathBuf,
    /// This node's virtual machine or scale set, where tokens wait for an identity to be assigned to it.
    pub compute: Option<Compute>,
}

/// What the agent needs to know about its cluster.
#[derive(Clone, Debug)]
pub struct KubernetesSource {
    /// Kubeconfig; `None`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// This node's name.
    pub node: String,
    /// The agent's own namespace.
    pub namespace: String,
    /// How old the last known state may get while the API server is away.
    pub max_staleness: Duration,
    /// Whether tokens wait for an identity to be assigned to this node.
    pub assignments: Assignments,
    /// Whether to remove the startup taint from this node once the rules are verified.
    pub startup_taint: bool,
    /// `ConfigMap` in `namespace` that asks all agents to remove their rules.
    pub removal_marker: Option<String>,
}

/// Whether `AzureAssignment`s count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Assignments {
    /// IMDS is asked at once: there is no controller.
    #[default]
    Ignored,
    /// Only identities that the controller reports as assigned to this node are asked for.
    Required,
}

/// How pods' requests come to the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum NodeMode {
    /// The node's netfilter redirects them, whatever a pod's annotation says.
    #[default]
    Redirect,
    /// The same, but for pods with the annotation `lanyard.dev/mode: in-pod`.
    Mixed,
    /// By a listener inside each pod's network namespace, but for pods with `lanyard.dev/mode: redirect`.
    InPod,
}

impl NodeMode {
    /// The mode of a pod that says so of itself.
    #[must_use]
    pub fn of(self, own: Option<Mode>) -> Mode {
        match self {
            Self::Redirect => Mode::Redirect,
            Self::Mixed => own.unwrap_or(Mode::Redirect),
            Self::InPod => own.unwrap_or(Mode::InPod),
        }
    }
}

/// Whether what is not granted is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Enforcement {
    /// Refused.
    #[default]
    Enforce,
    /// Passed on to the node's IMDS as before, counted and told: nothing is protected.
    Observe,
}
