//! Flags of `lanyard simulate`, and its commands to a running simulator.
//!
//! In: the command line. Out: a simulator that runs until SIGINT or SIGTERM, or one command carried out. Files
//! that others wait for (`--ca-out`, then `--ready-file`) appear by rename, complete or not at all.

mod command;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;

use crate::serve::signals;
use crate::sim::{Addresses, Listen, Simulator, World};

/// Flags of `lanyard simulate`: a simulator to run, or a command to one that runs.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_long_help = EXAMPLES
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<command::Command>,
    #[command(flatten)]
    serve: Box<Serve>,
}

const EXAMPLES: &str = "\
It serves the instance metadata service (IMDS), Entra ID, Azure Resource Manager and Key Vaults with real
RS256 tokens, Azure's own error answers and limits, a journal of every request, and faults by command. Nothing leaves
this machine. Point a program's IMDS address at --imds-listen (most of Azure's SDKs take it from
AZURE_POD_IDENTITY_AUTHORITY_HOST), let it trust --ca-out, and it gets tokens that the simulated vault
checks as Key Vault does.

Examples:
  lanyard simulate --world docs/simulate-world.yaml --control /tmp/azure.sock --ca-out /tmp/azure-ca.pem
  curl -H Metadata:true 'http://127.0.0.1:8169/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net&client_id=aaaaaaaa-0000-4000-8000-000000000001'
  lanyard simulate fault --control /tmp/azure.sock imds --status 429 --retry-after 2 --count 3
  lanyard simulate journal --control /tmp/azure.sock

docs/simulate.md describes every field of the world file.";

/// Flags of the simulator itself.
#[derive(Debug, clap::Args)]
struct Serve {
    /// YAML file that describes tenant, identities, virtual machines, vaults and faults.
    #[arg(
        long,
        value_name = "FILE",
        required = true,
        env = "LANYARD_SIMULATE_WORLD"
    )]
    world: Option<PathBuf>,
    /// Address of IMDS (plain HTTP); port 0 takes a free one, `off` switches it off.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8169")]
    imds_listen: Address,
    /// Address of Entra ID (plain HTTP): discovery, keys, token endpoint.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8170")]
    entra_listen: Address,
    /// Address of Azure Resource Manager (plain HTTP).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8171")]
    arm_listen: Address,
    /// Address of Azure Resource Manager alone over TLS, whatever host is asked for.
    #[arg(long, value_name = "ADDR", default_value = "off")]
    arm_tls_listen: Address,
    /// Address of the Key Vaults (TLS, told apart by host name); the host names of Entra ID and Azure Resource Manager
    /// answer here, too.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    vault_listen: Address,
    /// Address of a wire server (168.63.129.16 in Azure), to see who reaches it; may be repeated.
    #[arg(long, value_name = "ADDR")]
    wire_server_listen: Vec<SocketAddr>,
    /// Makes a Unix socket here (mode 0600) that takes commands.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Writes the certificate of the vaults' authority here, as PEM.
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// RSA private key (PEM) that signs tokens; a new one is made at each start where absent.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Writes the real addresses here as JSON, when every service answers.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// An address to listen on, or `off`.
#[derive(Debug, Clone, Copy)]
struct Address(Option<SocketAddr>);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse();
        let address = address.map_err(|_| format!("`{text}` is not IP:PORT (nor `off`)"))?;
        Ok(Self(Some(address)))
    }
}

impl Args {
    /// Runs the subcommand to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match self.command {
                Some(command) => command.run().await?,
                None => self.serve.run().await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Serve {
    async fn run(self) -> anyhow::Result<()> {
        // Before anything is announced, so that no signal finds us unprepared.
        let signals = signals()?;
        let path = self.world.context("--world is missing")?;
        let world = World::load(&path)?;
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("--key-file {}", path.display()))
        };
        let listen = Listen {
            imds: self.imds_listen.0,
            entra: self.entra_listen.0,
            arm: self.arm_listen.0,
            arm_tls: self.arm_tls_listen.0,
            vault: self.vault_listen.0,
            wire: self.wire_server_listen,
            control: self.control,
            signing_key: self.key_file.as_ref().map(read).transpose()?,
        };
        let simulator = Simulator::start(world, listen).await?;
        if let Some(path) = &self.ca_out {
            publish(path, simulator.ca_pem().as_bytes())?;
        }
        announce(simulator.addresses(), self.ca_out.as_deref());
        if let Some(path) = &self.ready_file {
            publish(path, &serde_json::to_vec(simulator.addresses())?)?;
        }
        signals.first.cancelled().await;
        simulator.shutdown().await;
        Ok(())
    }
}

/// Tells a person where everything is.
fn announce(addresses: &Addresses, ca: Option<&Path>) {
    eprintln!("Azure is simulated here until you press Ctrl-C:");
    let line = |name: &str, place: Option<String>| {
        eprintln!("  {name:<12} {}", place.unwrap_or_else(|| "off".to_owned()));
    };
    line(
        "IMDS",
        addresses.imds.map(|address| format!("http://{address}")),
    );
    line(
        "Entra ID",
        addresses.entra.map(|address| format!("http://{address}")),
    );
    line(
        "ARM",
        addresses.arm.map(|address| format!("http://{address}")),
    );
    if let Some(address) = addresses.arm_tls {
        line("ARM over TLS", Some(format!("https://{address}")));
    }
    line(
        "Key Vaults",
        addresses.vault.map(|address| format!("https://{address}")),
    );
    for address in &addresses.wire {
        line("wire server", Some(format!("http://{address}")));
    }
    line(
        "control",
        addresses
            .control
            .as_ref()
            .map(|path| path.display().to_string()),
    );
    line("vaults' CA", ca.map(|path| path.display().to_string()));
}

/// Writes a file so that it is never seen half.
fn publish(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut draft: OsString = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        std::fs::write(&draft, content)?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
