//! Flags of `lanyard demo`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::demo::{self, Config};
use crate::lab::{self, Interrupt};

/// Flags of `lanyard demo`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Shows the whole job on this machine, without a cluster and without a network: a \
simulated Azure, a node with the agent, and pods, each a network namespace of its own; then the \
controller, which assigns an identity to the node's machine and takes it back. Takes some seconds, \
works as an ordinary user where the kernel allows user namespaces, touches nothing outside and leaves \
nothing behind. Exits with an error if anything it claims was not observed."
)]
pub struct Args {
    /// Leave everything up at the end, until Ctrl-C, and say how to enter a pod.
    #[arg(long)]
    keep: bool,
    /// The iptables backend the agent is to use.
    #[arg(long, value_name = "BACKEND", default_value = "auto", value_parser = ["auto", "nft", "legacy"])]
    backend: String,
    /// No colours, also on a terminal.
    #[arg(long, env = "NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    no_color: bool,
}

impl Args {
    /// Runs the subcommand to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        lab::enter(Interrupt::EndsLab)?;
        let config = Config {
            keep: self.keep,
            backend: self.backend,
            colour: !self.no_color && std::io::stdout().is_terminal(),
            program: std::env::current_exe().context("the program's own path")?,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(demo::run(config))?;
        Ok(ExitCode::SUCCESS)
    }
}
