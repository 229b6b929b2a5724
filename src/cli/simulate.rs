//! Flags of `lanyard simulate`.

use std::process::ExitCode;

/// Flags of `lanyard simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Runs the subcommand to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        Ok(ExitCode::SUCCESS)
    }
}
