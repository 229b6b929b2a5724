//! What the agent is told at start: values, checked where they were typed (`cli::agent`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::intercept::BackendChoice;
use super::obtain::ObtainConfig;
use crate::serve::Limits;

/// The agent's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of manifests.
    pub manifests: PathBuf,
    /// IMDS, `http://host[:port]`.
    pub imds_endpoint: String,
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
    /// How long a request waits for a pod that is not known yet.
    pub pod_wait: Duration,
    /// How long a drain may take.
    pub drain: Duration,
    /// Connections.
    pub limits: Limits,
    /// Cache and upstream.
    pub obtain: ObtainConfig,
}
