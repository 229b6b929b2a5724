//! Flags of `lanyard health`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::duration;
use super::output::print;
use crate::probe;

/// Flags of `lanyard health`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For exec probes: the container needs neither a shell nor an open port. Exit codes: 0 yes, 1 no (what is \
missing is printed) or no answer."
)]
pub struct Args {
    /// Which question.
    #[arg(value_enum)]
    question: Question,

    /// The agent's --health-socket.
    #[arg(long, env = "LANYARD_HEALTH_SOCKET", value_name = "PATH")]
    socket: PathBuf,

    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    timeout: Duration,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Question {
    /// Does the process answer?
    Live,
    /// Are new connections answered as they should be?
    Ready,
}

impl Args {
    /// Asks once.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let page = match self.question {
            Question::Live => "/livez",
            Question::Ready => "/readyz",
        };
        let (status, text) = probe::page(&self.socket, page, self.timeout).with_context(|| {
            format!(
                "no answer at {}: is the agent running, with this --health-socket?",
                self.socket.display()
            )
        })?;
        print(&text);
        Ok(if status == 200 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
