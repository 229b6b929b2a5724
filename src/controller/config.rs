//! What the controller is told at start: values, checked where they were typed (`cli::controller`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::azure::access::How;
use crate::model::ids::Guid;

/// The controller's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Standalone: a folder of manifests in the API server's place.
    pub manifests: Option<PathBuf>,
    /// Kubeconfig; `None`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The controller's own namespace: its Lease and the removal marker are there.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Who this replica is in the Lease: the pod's name.
    pub name: String,
    /// Azure: where it is and who the controller is to it.
    pub azure: AzureConfig,
    /// How it goes about its work.
    pub pace: Pace,
    /// Issuer of the cluster's service account tokens; `None`: the API server is asked.
    pub issuer: Option<String>,
    /// `ConfigMap` in `namespace` that says that Lanyard is being removed.
    pub removal_marker: Option<String>,
    /// Whether agents tell host-network pods apart, so that their identities are to be on their nodes, too.
    pub host_network_pods: bool,
    /// Address of metrics and health.
    pub admin: SocketAddr,
    /// How long open connections may take to end.
    pub drain: Duration,
}

/// Where Azure is and who the controller is to it.
#[derive(Clone, Debug)]
pub struct AzureConfig {
    /// Azure Resource Manager, `https://HOST[:PORT]` (http for loopback addresses).
    pub arm_endpoint: String,
    /// The audience of its tokens, as in `https://management.azure.com`.
    pub arm_audience: String,
    /// Entra ID.
    pub authority_host: String,
    /// Certificates in PEM that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How the controller proves who it is.
    pub how: How,
    /// Client id of the application or identity that it is; not for the node's identity.
    pub client_id: Option<Guid>,
    /// Its tenant; not for the node's identity.
    pub tenant: Option<Guid>,
}

/// How the controller goes about its work.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long changes of a compute resource are collected before it is asked for.
    pub debounce: Duration,
    /// How long an identity stays on a compute resource after the last pod that may use it.
    pub removal_grace: Duration,
    /// How often what Azure has is compared with what it should have.
    pub drift_interval: Duration,
    /// How long Azure may take for one change.
    pub operation_timeout: Duration,
}
