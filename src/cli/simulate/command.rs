//! Commands to a running simulator: `lanyard simulate journal|fault|…`.
//!
//! In: flags. Out: one request over the control socket, its answer printed for people (`--json` for programs).

use std::path::PathBuf;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::sim::control::Client;
use crate::sim::{Entry, Fault};

/// Commands to a running simulator.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every request it got: who asked, what for, and which answer it got.
    Journal {
        #[command(flatten)]
        control: Control,
        /// Only requests with a number above this.
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        since: u64,
        /// One JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
        /// Forget all requests after printing them.
        #[arg(long)]
        clear: bool,
    },
    /// Add a fault: what goes wrong, for which requests, how often.
    Fault(Box<FaultArgs>),
    /// Print the faults that stand, one JSON object a line.
    Faults {
        #[command(flatten)]
        control: Control,
    },
    /// Remove all faults.
    ClearFaults {
        #[command(flatten)]
        control: Control,
    },
    /// Replace the user-assigned identities of a virtual machine.
    Assign {
        #[command(flatten)]
        control: Control,
        /// Name of the machine.
        vm: String,
        /// Names of the identities; none takes all away.
        identities: Vec<String>,
    },
    /// Let a new key sign tokens; the old ones stay published.
    RollKeys {
        #[command(flatten)]
        control: Control,
        /// Publish only the new key: tokens signed by older ones are refused.
        #[arg(long)]
        drop_old: bool,
    },
    /// Print counters as JSON.
    Stats {
        #[command(flatten)]
        control: Control,
    },
}

/// Which simulator.
#[derive(Debug, clap::Args)]
pub(super) struct Control {
    /// The control socket that the simulator was started with.
    #[arg(long, value_name = "PATH", env = "LANYARD_SIMULATE_CONTROL")]
    control: PathBuf,
}

impl Control {
    fn client(&self) -> Client {
        Client::new(&self.control)
    }
}

/// A service that can fail.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Service {
    Imds,
    Entra,
    Vault,
}

/// Flags of `lanyard simulate fault`.
#[derive(Debug, clap::Args)]
pub(super) struct FaultArgs {
    #[command(flatten)]
    control: Control,
    /// Which service fails.
    target: Service,
    /// Answer this status, with Azure's body for it.
    #[arg(long, value_name = "CODE")]
    status: Option<u16>,
    /// Seconds in the Retry-After of that status.
    #[arg(long, value_name = "SECONDS", requires = "status")]
    retry_after: Option<u32>,
    /// Body of that status instead of Azure's.
    #[arg(long, requires = "status")]
    body: Option<String>,
    /// Answer late by this much (`300ms`, `2s`); goes with any other effect.
    #[arg(long, value_name = "TIME")]
    latency: Option<String>,
    /// Accept and never answer.
    #[arg(long)]
    silence: bool,
    /// Reset the connection.
    #[arg(long)]
    reset: bool,
    /// Answer 200 with a body that is not JSON.
    #[arg(long)]
    garbage: bool,
    /// Answer 200 with an HTML page.
    #[arg(long)]
    html: bool,
    /// Break the right answer off in the middle.
    #[arg(long)]
    truncate: bool,
    /// Answer 200 with JSON of this many bytes.
    #[arg(long, value_name = "BYTES")]
    huge: Option<u64>,
    /// Hand out a token that has expired (IMDS only).
    #[arg(long)]
    expired: bool,
    /// Hand out a token with this life, `90s` (IMDS only).
    #[arg(long, value_name = "TIME")]
    lifetime: Option<String>,
    /// Leave this field out of the token answer (IMDS only).
    #[arg(long, value_name = "FIELD")]
    missing: Option<String>,
    /// End after so many requests; without it the fault stands until cleared.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Let so many requests pass first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// Only requests from this machine (IMDS only).
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,
    /// Only requests that concern the identity with this client id.
    #[arg(long, value_name = "GUID")]
    client_id: Option<String>,
    /// Only token requests for this resource (IMDS only).
    #[arg(long)]
    resource: Option<String>,
    /// Only paths that begin so.
    #[arg(long)]
    path: Option<String>,
}

impl FaultArgs {
    /// The fault, by the same reading and checking that the world file gets.
    fn fault(&self) -> anyhow::Result<Fault> {
        let given = |fields: Value| -> Map<String, Value> {
            let fields = fields.as_object().cloned().unwrap_or_default();
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect()
        };
        let matching = given(json!({
            "vm": self.vm,
            "clientID": self.client_id,
            "resource": self.resource,
            "path": self.path,
        }));
        let target = match self.target {
            Service::Imds => "imds",
            Service::Entra => "entra",
            Service::Vault => "vault",
        };
        let fault = given(json!({
            "target": target,
            "match": matching,
            "after": self.after,
            "count": self.count,
            "latency": self.latency,
            "status": self.status,
            "retryAfter": self.retry_after,
            "body": self.body,
            "silence": self.silence,
            "reset": self.reset,
            "garbage": self.garbage,
            "html": self.html,
            "truncate": self.truncate,
            "huge": self.huge,
            "expired": self.expired,
            "lifetime": self.lifetime,
            "missing": self.missing,
        }));
        serde_json::from_value(Value::Object(fault)).context("not a fault")
    }
}

impl Command {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Journal {
                control,
                since,
                json,
                clear,
            } => {
                for entry in control.client().journal(since).await? {
                    println!(
                        "{}",
                        if json {
                            serde_json::to_string(&entry)?
                        } else {
                            line(&entry)
                        }
                    );
                }
                if clear {
                    control.client().clear_journal().await?;
                }
            }
            Self::Fault(args) => args.control.client().add_fault(&args.fault()?).await?,
            Self::Faults { control } => {
                for fault in control.client().faults().await? {
                    println!("{}", serde_json::to_string(&fault)?);
                }
            }
            Self::ClearFaults { control } => control.client().clear_faults().await?,
            Self::Assign {
                control,
                vm,
                identities,
            } => {
                let names: Vec<&str> = identities.iter().map(String::as_str).collect();
                control.client().assign(&vm, &names).await?;
            }
            Self::RollKeys { control, drop_old } => {
                println!("{}", control.client().roll_keys().await?);
                if drop_old {
                    control.client().drop_old_keys().await?;
                }
            }
            Self::Stats { control } => {
                println!(
                    "{}",
                    serde_json::to_string_pretty(&control.client().stats().await?)?
                );
            }
        }
        Ok(())
    }
}

/// One request for a person's eye.
fn line(entry: &Entry) -> String {
    let status = entry
        .status
        .map_or_else(|| "---".to_owned(), |status| status.to_string());
    let listener = format!("{:?}", entry.listener).to_lowercase();
    let path = entry.target.split('?').next().unwrap_or_default();
    let mut line = format!(
        "{:>5} {} {:<21} {listener:<5} {status} {} {path}",
        entry.seq,
        entry.time.strftime("%H:%M:%S%.3f"),
        entry.source,
        entry.method,
    );
    for (name, value) in [
        ("vm", &entry.vm),
        ("identity", &entry.identity),
        ("resource", &entry.resource),
        ("fault", &entry.fault),
    ] {
        if let Some(value) = value {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn fault(flags: &str) -> anyhow::Result<Fault> {
        let words = format!("lanyard simulate fault --control /s {flags}");
        let cli = Cli::try_parse_from(words.split(' '))?;
        let crate::cli::Command::Simulate(args) = cli.command else {
            panic!("not simulate")
        };
        let Some(Command::Fault(args)) = args.command else {
            panic!("not fault")
        };
        args.fault()
    }

    #[test]
    fn flags_make_the_fault_that_the_world_file_would() {
        let by_flags =
            fault("imds --status 429 --retry-after 3 --count 2 --client-id abc --latency 5ms")
                .unwrap();
        let by_file: Fault = serde_saphyr::from_str(
            "{target: imds, status: 429, retryAfter: 3, count: 2, latency: 5ms, match: {clientID: abc}}",
        )
        .unwrap();
        assert_eq!(by_flags, by_file);
    }

    #[test]
    fn a_fault_without_effect_or_with_two_is_refused() {
        assert!(fault("imds").is_err());
        assert!(fault("vault --silence --reset").is_err());
        assert!(fault("nobody --silence").is_err());
    }

    #[test]
    fn the_world_is_required_without_a_command() {
        let error = Cli::try_parse_from(["lanyard", "simulate"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("--world"), "{error}");
    }
}
