//! Wiring only: parse the command line, start logging, run the subcommand.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use lanyard::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Simulate(args) => args.run(),
        Command::Demo(args) => args.run(),
        Command::Dev(args) => args.run(),
        Command::Agent(args) => args.run(),
        Command::Hold(args) => args.run(),
        Command::Controller(args) => args.run(),
        Command::Admission(args) => args.run(),
        Command::Explain(args) => args.run(),
        Command::Identities(args) => args.run(),
        Command::Suggest(args) => args.run(),
        Command::Uninstall(args) => args.run(),
        Command::Crds(args) => args.run(),
        Command::Probe(args) => args.run(),
        Command::Health(args) => args.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lanyard: {error:#}");
            ExitCode::FAILURE
        }
    }
}
