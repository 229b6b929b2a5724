//! Flags of `lanyard hold`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio_seqpacket::UnixSeqpacketListener;

use super::duration;
use crate::hold;
use crate::serve::telemetry::{self, LogFormat};
use crate::serve::{limits, local, signals};

/// Flags of `lanyard hold`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Runs beside an agent with --mode in-pod or mixed, as the same user, in a container of its own: when the agent's \
ends, pods' connections wait for the next one instead of being refused. It needs no right on the node. SIGTERM ends it, and \
lets go of everything. The chart runs it."
)]
pub struct Args {
    /// Unix socket to listen at; only its owner may connect. The agent's --hold-socket.
    #[arg(long, env = "LANYARD_HOLD_SOCKET", value_name = "PATH")]
    socket: PathBuf,

    /// How long listeners are held without an agent. Kubelet starts a container that has ended again at once, and after 10 s where
    /// it ends again within ten minutes.
    #[arg(long = "for", env = "LANYARD_HOLD_FOR", value_name = "DURATION", default_value = "15s", value_parser = duration::parse)]
    patience: Duration,

    /// A level, or a filter such as `info,lanyard::hold=debug`.
    #[arg(long, env = "LANYARD_LOG_LEVEL", default_value = "info")]
    log_level: String,

    /// text or json.
    #[arg(long, env = "LANYARD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl Args {
    /// Runs until a signal.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let _levels = telemetry::init(self.log_format, &self.log_level)?;
        limits::raise_open_files().context("cannot raise the limit of open files")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let signals = signals().context("cannot take signals")?;
            let listener = local::place(&self.socket, |path| UnixSeqpacketListener::bind(path))
                .with_context(|| format!("--socket {}", self.socket.display()))?;
            tracing::info!(socket = %self.socket.display(), "holding listeners for an agent");
            hold::run(listener, self.patience, signals.first.cancelled()).await;
            Ok(ExitCode::SUCCESS)
        })
    }
}
