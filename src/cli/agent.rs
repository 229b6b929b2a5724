//! Flags of `lanyard agent`.

use std::process::ExitCode;

/// Flags of `lanyard agent`.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Runs the subcommand to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        Ok(ExitCode::SUCCESS)
    }
}
