//! Flags of `lanyard probe`.

use std::process::ExitCode;
use std::time::Duration;

use super::duration;
use super::output::{Output, print};
use crate::probe::{self, Expectation, Targets, Wanted};

/// Flags of `lanyard probe`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Run it in a pod. Exit codes: 0 intercepted, 1 the pod reaches what is the node's, 2 it cannot be told, \
3 intercepted but a token request came to something else than --expect. A token that is got is never shown."
)]
pub struct Args {
    /// Also ask for a token for this audience, as in <https://vault.azure.net>, and show whose it is.
    #[arg(long, value_name = "URL")]
    resource: Option<String>,

    /// Ask for that identity by its client id instead of the pod's default.
    #[arg(long, value_name = "GUID", requires = "resource")]
    client_id: Option<String>,

    /// What the token request should come to.
    #[arg(long, value_enum, requires = "resource")]
    expect: Option<Expectation>,

    /// How long to repeat the token request while the answer is "try again".
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,

    /// The agents run with --guard-wire-server=false: an open wire server is no leak then.
    #[arg(long)]
    wire_server_open: bool,

    /// How to print what was found.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Args {
    /// Asks and reports.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let wanted = Wanted {
            resource: self.resource,
            client_id: self.client_id,
            expect: self.expect,
            patience: self.timeout,
            wire_server_open: self.wire_server_open,
        };
        let report = probe::run(&Targets::default(), &wanted);
        match self.output {
            Output::Text => print(&report.text()),
            Output::Json => print(&(serde_json::to_string(&report)? + "\n")),
        }
        Ok(ExitCode::from(report.exit_code()))
    }
}
