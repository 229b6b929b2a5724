//! Flags of `lanyard admission`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::duration;
use crate::admission::{self, Config, Files, Source};
use crate::serve::telemetry::{self, LogFormat};

/// Flags of `lanyard admission`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Answers AdmissionReviews by HTTPS: of serviceaccounts/token at /token-requests, where --agents says whose; for that it \
needs to get pods. Of new pods at /app-service, with --app-service; for that it needs nothing of Kubernetes. The chart runs it where \
either is wanted.",
    group = clap::ArgGroup::new("work").args(["agents", "app_service"]).multiple(true).required(true),
    group = clap::ArgGroup::new("certificate").args(["tls_certificate", "issuer_certificate"]).required(true)
)]
pub struct Args {
    /// Address to listen at.
    #[arg(long, env = "LANYARD_ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    address: IpAddr,

    /// Port at that address; 0 takes any free one.
    #[arg(long, env = "LANYARD_PORT", default_value_t = 8443)]
    port: u16,

    /// Address of /metrics, /livez, /readyz and the log level.
    #[arg(
        long,
        env = "LANYARD_METRICS_ADDRESS",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:9466"
    )]
    metrics_address: SocketAddr,

    /// PEM: certificate chain, leaf first. Read again when it changes.
    #[arg(
        long,
        env = "LANYARD_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_certificate: Option<PathBuf>,

    /// PEM: the private key.
    #[arg(
        long,
        env = "LANYARD_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    tls_key: Option<PathBuf>,

    /// PEM: certificate of the authority that signs the webhook's own ones, instead of --tls-certificate. Read again when it changes.
    #[arg(long, env = "LANYARD_ISSUER_CERTIFICATE", value_name = "FILE", requires_all = ["issuer_key", "tls_host"])]
    issuer_certificate: Option<PathBuf>,

    /// PEM: the authority's private key.
    #[arg(
        long,
        env = "LANYARD_ISSUER_KEY",
        value_name = "FILE",
        requires = "issuer_certificate"
    )]
    issuer_key: Option<PathBuf>,

    /// The name that API servers call the webhook by, as in lanyard-admission.lanyard-system.svc.
    #[arg(
        long,
        env = "LANYARD_TLS_HOST",
        value_name = "NAME",
        requires = "issuer_certificate"
    )]
    tls_host: Option<String>,

    /// How long each certificate of the webhook's own lasts; the next one is signed after two thirds of it.
    #[arg(long, env = "LANYARD_TLS_LIFETIME", value_name = "DURATION", default_value = "2160h", value_parser = duration::parse)]
    tls_lifetime: Duration,

    /// User name of the agents, as in system:serviceaccount:lanyard-system:lanyard-agent, whose requests for service
    /// account tokens are judged. Those of others are allowed: they are not this webhook's to judge.
    #[arg(long, env = "LANYARD_AGENTS", value_name = "USER")]
    agents: Option<String>,

    /// Add App Service's variables to new pods with the label lanyard.dev/app-service: "true".
    #[arg(long, env = "LANYARD_APP_SERVICE")]
    app_service: bool,

    /// Kubeconfig; absent: the service account of the pod.
    #[arg(long, env = "LANYARD_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// How long open connections may take to end.
    #[arg(long, env = "LANYARD_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    drain_timeout: Duration,

    /// A level, or a filter such as `info,lanyard::admission=debug`.
    #[arg(long, env = "LANYARD_LOG_LEVEL", default_value = "info")]
    log_level: String,

    /// text or json.
    #[arg(long, env = "LANYARD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl Args {
    /// Where the certificate comes from; `None`: nothing whole was said.
    fn source(&self) -> Option<Source> {
        let files = |certificate: &Option<PathBuf>, key: &Option<PathBuf>| {
            let (certificate, key) = (certificate.clone()?, key.clone()?);
            Some(Files { certificate, key })
        };
        if let Some(authority) = files(&self.issuer_certificate, &self.issuer_key) {
            return Some(Source::Issued {
                authority,
                host: self.tls_host.clone()?,
                life: self.tls_lifetime,
            });
        }
        files(&self.tls_certificate, &self.tls_key).map(Source::Files)
    }

    /// Runs until a signal.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let levels = telemetry::init(self.log_format, &self.log_level)?;
        let source = self.source();
        let Some(certificate) = source else {
            anyhow::bail!(
                "give --tls-certificate and --tls-key, or --issuer-certificate, --issuer-key and --tls-host"
            );
        };
        let config = Config {
            address: self.address,
            port: self.port,
            admin: self.metrics_address,
            certificate,
            agents: self.agents,
            app_service: self.app_service,
            kubeconfig: self.kubeconfig,
            drain: self.drain_timeout,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(admission::run(config, levels))?;
        Ok(ExitCode::SUCCESS)
    }
}
