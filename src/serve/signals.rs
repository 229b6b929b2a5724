//! SIGTERM and SIGINT as two events: the first asks for a drain, the second for an end at once.
//!
//! The only place of the agent and the simulator that takes signals. Needs a running tokio runtime; blocks on nothing.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that ask this process to end, as they come.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Cancelled by the first SIGTERM or SIGINT.
    pub first: CancellationToken,
    /// Cancelled by the second.
    pub second: CancellationToken,
}

/// Takes SIGTERM and SIGINT from now on; their default (death at once) is gone after this.
pub fn signals() -> io::Result<Signals> {
    let signals = Signals::default();
    let (first, second) = (signals.first.clone(), signals.second.clone());
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        for (token, what) in [(first, "draining"), (second, "ending at once")] {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "{what}");
            token.cancel();
        }
    });
    Ok(signals)
}
