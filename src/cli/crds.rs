//! Flags of `lanyard crds`: the API's kinds as YAML, to standard output or into a folder.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::output::print;
use crate::api::crd;

/// Flags of `lanyard crds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without the chart: lanyard crds | kubectl apply --server-side -f -")]
pub struct Args {
    /// Write a file for each kind into this folder (<plural>.yaml), instead of printing them.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    /// Runs the subcommand to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let definitions = crd::definitions()?;
        if let Some(dir) = &self.dir {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            for definition in &definitions {
                let file = dir.join(format!("{}.yaml", definition.plural));
                std::fs::write(&file, definition.to_yaml()?)
                    .with_context(|| file.display().to_string())?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        for definition in &definitions {
            print(&format!("---\n{}", definition.to_yaml()?));
        }
        Ok(ExitCode::SUCCESS)
    }
}
