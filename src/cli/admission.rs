//! Flags of `lanyard admission`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::duration;
use crate::admission::{self, Config};
use crate::serve::telemetry::{self, LogFormat};

/// Flags of `lanyard admission`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Answers AdmissionReviews of serviceaccounts/token at /token-requests, by HTTPS. From Kubernetes it needs to get \
pods. The chart runs it where agents may ask for service account tokens."
)]
pub struct Args {
    /// Address to listen at.
    #[arg(long, env = "LANYARD_ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    address: IpAddr,

    /// Port at that address; 0 takes any free one.
    #[arg(long, env = "LANYARD_PORT", default_value_t = 8443)]
    port: u16,

    /// PEM: certificate chain, leaf first. Read again when it changes.
    #[arg(long, env = "LANYARD_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: PathBuf,

    /// PEM: the private key.
    #[arg(long, env = "LANYARD_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf,

    /// User name of the agents, as in system:serviceaccount:lanyard-system:lanyard-agent. Requests of
    /// others are allowed: they are not this webhook's to judge.
    #[arg(long, env = "LANYARD_AGENTS", value_name = "USER")]
    agents: String,

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
    /// Runs until a signal.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        telemetry::init(self.log_format, &self.log_level)?;
        let config = Config {
            address: self.address,
            port: self.port,
            certificate: self.tls_certificate,
            key: self.tls_key,
            agents: self.agents,
            kubeconfig: self.kubeconfig,
            drain: self.drain_timeout,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(admission::run(config))?;
        Ok(ExitCode::SUCCESS)
    }
}
