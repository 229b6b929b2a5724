//! Flags of `lanyard controller`. Every flag is also a variable `LANYARD_…`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::duration;
use super::output::{self, Output};
use crate::azure::access::How;
use crate::azure::cloud::Cloud;
use crate::controller::config::{AzureConfig, Config, Pace};
use crate::model::ids::Guid;
use crate::serve::telemetry::{self, LogFormat};

/// Flags of `lanyard controller`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "In Azure it needs `Virtual Machine Contributor` on the resource groups of the nodes, and `Managed Identity \
Operator` on those of the identities (for spec.managed `Managed Identity Contributor`, too). Several may run: one \
works, by a Lease.\n\nThe chart runs it with controller.enabled=true."
)]
pub struct Args {
    /// Print what would be asked of Azure and written down, and end. Reads only.
    #[arg(long, env = "LANYARD_DRY_RUN")]
    dry_run: bool,

    /// How --dry-run prints its plans.
    #[arg(long, env = "LANYARD_OUTPUT", value_enum, default_value_t = Output::Text)]
    output: Output,

    #[command(flatten)]
    kubernetes: KubernetesArgs,

    #[command(flatten)]
    azure: AzureArgs,

    #[command(flatten)]
    pace: PaceArgs,

    /// Address of /metrics, /livez, /readyz and the log level.
    #[arg(
        long,
        env = "LANYARD_METRICS_ADDRESS",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:9465"
    )]
    metrics_address: SocketAddr,

    /// How long open connections of scrapes and probes may take to end.
    #[arg(long, env = "LANYARD_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    drain_timeout: Duration,

    /// Log format.
    #[arg(long, env = "LANYARD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Log level or filter, as in `info` or `info,lanyard::controller=debug`; can be changed while running.
    #[arg(
        long,
        env = "LANYARD_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info"
    )]
    log_level: String,
}

/// Flags about the cluster.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
struct KubernetesArgs {
    /// Standalone: a folder of YAML manifests (pods, nodes, namespaces and the kinds of
    /// `lanyard.dev/v1alpha1`) in the API server's place, followed for changes. `AzureAssignment`s are written
    /// into it; statuses, Events and the Lease need a cluster, as does spec.managed.
    #[arg(long, env = "LANYARD_MANIFESTS", value_name = "DIR")]
    manifests: Option<PathBuf>,

    /// Kubeconfig; absent: the service account of the pod, else the one that kubectl uses.
    #[arg(long, env = "LANYARD_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The namespace that the controller runs in: its Lease is there.
    #[arg(long, env = "LANYARD_NAMESPACE", default_value = "lanyard-system")]
    namespace: String,

    /// Name of the Lease by which one of several works.
    #[arg(
        long,
        env = "LANYARD_LEASE_NAME",
        value_name = "NAME",
        default_value = "lanyard-controller"
    )]
    lease_name: String,

    /// Who this one is in the Lease; in a pod its name. Something random is added.
    #[arg(
        long,
        env = "LANYARD_POD_NAME",
        value_name = "NAME",
        default_value = "lanyard-controller"
    )]
    pod_name: String,

    /// Issuer of the cluster's service account tokens, for federated credentials; absent: the API
    /// server is asked.
    #[arg(long, env = "LANYARD_SERVICE_ACCOUNT_ISSUER", value_name = "URL")]
    service_account_issuer: Option<String>,

    /// `ConfigMap` of the own namespace that, when it appears, says that Lanyard is being removed.
    #[arg(long, env = "LANYARD_REMOVAL_MARKER", value_name = "NAME")]
    removal_marker: Option<String>,

    /// Put identities on nodes for host-network pods, too: agents have the flag of the same name.
    #[arg(long, env = "LANYARD_HOST_NETWORK_PODS", value_name = "BOOL", default_value_t = false,
          default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    host_network_pods: bool,
}

/// How the controller proves to Azure who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "camelCase")]
enum Auth {
    /// A certificate in --credential-dir: tls.crt and tls.key, or certificate.pfx and password.
    Certificate,
    /// A secret in --credential-dir: clientSecret.
    Secret,
    /// The controller's own service account token (--federated-token-file), exchanged at Entra ID.
    Federated,
    /// The node's identity, from its IMDS; the pod must be on the host's network.
    NodeIdentity,
}

/// Flags about Azure.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Azure")]
struct AzureArgs {
    /// How the controller proves who it is.
    #[arg(long, env = "LANYARD_AUTH", value_enum)]
    auth: Auth,

    /// Client id of the application or identity that the controller is. With nodeIdentity: of one of
    /// the node's identities; absent: its system-assigned one.
    #[arg(long, env = "LANYARD_CLIENT_ID", value_name = "GUID")]
    client_id: Option<Guid>,

    /// Its tenant.
    #[arg(long, env = "LANYARD_TENANT_ID", value_name = "GUID")]
    tenant_id: Option<Guid>,

    /// A mounted Secret with the certificate or secret. Read again when it changes.
    #[arg(
        long,
        env = "LANYARD_CREDENTIAL_DIR",
        value_name = "DIR",
        default_value = "/etc/lanyard/credential"
    )]
    credential_dir: PathBuf,

    /// A mounted service account token of the audience `api://AzureADTokenExchange`. Read again when it
    /// changes.
    #[arg(
        long,
        env = "LANYARD_FEDERATED_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/etc/lanyard/federated/token"
    )]
    federated_token_file: PathBuf,

    /// Send the certificate's chain with each assertion, for applications that trust a name and issuer
    /// (x5c).
    #[arg(long, env = "LANYARD_SEND_CHAIN", value_name = "BOOL", default_value_t = false,
          default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    send_chain: bool,

    /// Which of Azure's clouds.
    #[arg(long, env = "LANYARD_CLOUD", value_enum, default_value_t = Cloud::default())]
    cloud: Cloud,

    /// Azure Resource Manager, where it is not that of --cloud.
    #[arg(long, env = "LANYARD_ARM_ENDPOINT", value_name = "URL")]
    arm_endpoint: Option<String>,

    /// Audience of its tokens, where it is not that of --cloud.
    #[arg(long, env = "LANYARD_ARM_AUDIENCE", value_name = "URL")]
    arm_audience: Option<String>,

    /// Entra ID, where it is not that of --cloud.
    #[arg(long, env = "LANYARD_AUTHORITY_HOST", value_name = "URL")]
    authority_host: Option<String>,

    /// Certificates in PEM that are trusted beside the system's, for Azure behind a proxy that breaks
    /// TLS open and for simulations.
    #[arg(long, env = "LANYARD_AZURE_CA_FILE", value_name = "FILE")]
    azure_ca_file: Option<PathBuf>,

    /// The node's IMDS, for nodeIdentity.
    #[arg(
        long,
        env = "LANYARD_IMDS_ENDPOINT",
        value_name = "URL",
        default_value = "http://169.254.169.254"
    )]
    imds_endpoint: String,
}

/// Flags about how the work is done.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pace")]
struct PaceArgs {
    /// How long changes of a virtual machine or scale set are collected: they go in one PATCH.
    #[arg(long, env = "LANYARD_DEBOUNCE", value_name = "DURATION", default_value = "500ms", value_parser = duration::parse)]
    debounce: Duration,

    /// How long an identity stays on a virtual machine or scale set after the last pod that may use it:
    /// putting it back takes Azure minutes.
    #[arg(long, env = "LANYARD_REMOVAL_GRACE", value_name = "DURATION", default_value = "15m", value_parser = duration::parse)]
    removal_grace: Duration,

    /// How often what Azure has is compared with what it should have.
    #[arg(long, env = "LANYARD_DRIFT_INTERVAL", value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    drift_interval: Duration,

    /// How long Azure may take for one change before that is told as failed.
    #[arg(long, env = "LANYARD_OPERATION_TIMEOUT", value_name = "DURATION", default_value = "20m", value_parser = duration::parse)]
    operation_timeout: Duration,
}

impl Args {
    /// Runs the controller until a signal; with --dry-run until the plans are printed.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let levels = telemetry::init(self.log_format, &self.log_level)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // It reads and writes; deciding is the main thread's. Two would wake each other for every
            // record of a list of pods.
            .worker_threads(1)
            .max_blocking_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let (dry_run, output) = (self.dry_run, self.output);
        let config = self.config()?;
        if dry_run {
            let plans = runtime.block_on(crate::controller::dry_run(config))?;
            output::print(&plans.printed(output == Output::Json)?);
            return Ok(ExitCode::SUCCESS);
        }
        runtime.block_on(crate::controller::run(config, levels))?;
        Ok(ExitCode::SUCCESS)
    }

    fn config(self) -> anyhow::Result<Config> {
        let Self {
            kubernetes, pace, ..
        } = self;
        Ok(Config {
            manifests: kubernetes.manifests,
            kubeconfig: kubernetes.kubeconfig,
            namespace: kubernetes.namespace,
            lease: kubernetes.lease_name,
            name: kubernetes.pod_name,
            azure: self.azure.config()?,
            pace: Pace {
                debounce: pace.debounce,
                removal_grace: pace.removal_grace,
                drift_interval: pace.drift_interval,
                operation_timeout: pace.operation_timeout,
            },
            issuer: given(kubernetes.service_account_issuer),
            removal_marker: given(kubernetes.removal_marker),
            host_network_pods: kubernetes.host_network_pods,
            admin: self.metrics_address,
            drain: self.drain_timeout,
        })
    }
}

impl AzureArgs {
    fn config(self) -> anyhow::Result<AzureConfig> {
        let how = match self.auth {
            Auth::NodeIdentity => How::NodeIdentity {
                imds_endpoint: self.imds_endpoint,
                client_id: self.client_id,
            },
            Auth::Certificate => How::Certificate {
                dir: self.credential_dir,
                send_chain: self.send_chain,
            },
            Auth::Secret => How::Secret {
                dir: self.credential_dir,
            },
            Auth::Federated => How::Federated {
                token_file: self.federated_token_file,
            },
        };
        if !matches!(how, How::NodeIdentity { .. }) {
            anyhow::ensure!(
                self.client_id.is_some(),
                "--client-id is missing: it says which application or identity the controller is (only --auth=nodeIdentity can do without)"
            );
            anyhow::ensure!(
                self.tenant_id.is_some(),
                "--tenant-id is missing: the tenant of --client-id, as `az account show --query tenantId` tells it"
            );
        }
        let url = |stated: Option<String>, of_cloud: &str| {
            let url = given(stated).unwrap_or_else(|| of_cloud.to_owned());
            url.trim_end_matches('/').to_owned()
        };
        Ok(AzureConfig {
            arm_endpoint: url(self.arm_endpoint, self.cloud.arm_endpoint()),
            arm_audience: url(self.arm_audience, self.cloud.arm_audience()),
            authority_host: url(self.authority_host, self.cloud.authority_host()),
            ca_file: self.azure_ca_file,
            how,
            client_id: self.client_id,
            tenant: self.tenant_id,
        })
    }
}

/// What was given; an empty variable is none.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
