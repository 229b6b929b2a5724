//! Commands to a running simulator: `lanyard simulate journal|fault|…`.
//!
//! In: flags. Out: one request over the control socket, its answer printed for people (`--json` for programs).

mod arm;
mod credential;
mod fault;

use std::fmt::Write;
use std::path::PathBuf;

use clap::Subcommand;

use crate::sim::Entry;
use crate::sim::control::Client;

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
    Fault(Box<fault::Args>),
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
    /// Replace the user-assigned identities of a virtual machine or scale set, behind everybody's back.
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
    #[command(flatten)]
    Credential(credential::Command),
    #[command(flatten)]
    Arm(arm::Command),
    /// Let simulated Azure's clock go ahead or behind.
    Clock {
        #[command(flatten)]
        control: Control,
        /// How far it is ahead of this machine's (`4m`); behind: `--skew=-4m`; `0s` puts it right.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        skew: jiff::SignedDuration,
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
            Self::Credential(command) => command.run().await?,
            Self::Arm(command) => command.run().await?,
            Self::Clock { control, skew } => control.client().set_clock_skew(skew).await?,
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
    let exchange = entry.exchange.clone().unwrap_or_default();
    // A request that was refused says at least who asked.
    let client = exchange.client_id.filter(|_| entry.identity.is_none());
    let claims = exchange.claims.then(|| "yes".to_owned());
    let arm = entry.arm.clone().unwrap_or_default();
    let names = |ids: &[String]| {
        let last = ids
            .iter()
            .map(|id| id.rsplit('/').next().unwrap_or_default());
        (!ids.is_empty()).then(|| last.collect::<Vec<_>>().join(","))
    };
    for (name, value) in [
        ("vm", &entry.vm),
        ("identity", &entry.identity),
        ("client", &client),
        ("resource", &entry.resource),
        ("credential", &exchange.credential),
        ("claims", &claims),
        ("added", &names(&arm.added)),
        ("removed", &names(&arm.removed)),
        ("code", &arm.code),
        ("aadsts", &entry.aadsts.map(|code| code.to_string())),
        ("fault", &entry.fault),
    ] {
        if let Some(value) = value {
            // A string takes all that is written.
            let _ = write!(line, " {name}={value}");
        }
    }
    line
}
