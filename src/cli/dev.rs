//! Flags of `lanyard dev`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::demo::dev::{self, Config};
use crate::lab::{self, Interrupt};

/// Flags of `lanyard dev`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Runs a program as if in a pod that has a managed identity: it finds (simulated) \
tokens at http://169.254.169.254 and a Key Vault at https://demo.vault.azure.net, through the real \
agent and the real rules, in network namespaces of its own. Input, output and exit status are the \
program's.\n\n  lanyard dev -- python app.py\n  lanyard dev --identity reports -- bash"
)]
pub struct Args {
    /// Which of the world's identities the pod gets; the first one if not given.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// A world file for `lanyard simulate`; a small built-in one if not given.
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    /// Say nothing about what was set up.
    #[arg(short, long)]
    quiet: bool,
    /// The program and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

impl Args {
    /// Runs the subcommand to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        lab::enter(Interrupt::IsForTheProgram)?;
        let config = Config {
            identity: self.identity,
            world: self.world,
            quiet: self.quiet,
            command: self.command,
            program: std::env::current_exe().context("the program's own path")?,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(dev::run(config))
    }
}
