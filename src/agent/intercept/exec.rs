//! Runs iptables: reads tables through the `iptables` crate, writes them by `iptables-restore`.
//!
//! In: a backend and a table or a script. Out: a [`Ruleset`], or that the transaction happened.
//! Blocks on processes, each with a deadline. Reading uses the backend's `-save` program: unlike
//! `iptables -S` it takes no lock, so that a poll never makes kube-proxy wait, nor waits for it.
//! Invariant: a process that hangs cannot use up the runtime's threads.

use std::io::ErrorKind;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iptables::IPTables;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::InterceptError;
use super::backend::{self, Backend, BackendChoice, Decision};
use super::rules::BOLT;
use super::save::Ruleset;

const READ_DEADLINE: Duration = Duration::from_secs(5);
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// How long `iptables-restore` waits for the xtables lock, in seconds.
const LOCK_WAIT: &str = "5";
/// Two looks at once.
const READERS: usize = 6;

/// Access to one backend's programs.
#[derive(Clone, Debug)]
pub struct Iptables {
    /// Which programs.
    pub backend: Backend,
    readers: Arc<Semaphore>,
    /// Whether it was said that the kernel lacks a table.
    told: Arc<AtomicBool>,
}

impl Iptables {
    /// Runs nothing yet.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            readers: Arc::new(Semaphore::new(READERS)),
            told: Arc::default(),
        }
    }

    /// The tables that we have rules in. Makes the kernel create them where they are missing
    /// (legacy): only for the backend that the node uses.
    pub async fn read(&self) -> Result<Ruleset, InterceptError> {
        let bolt = async { Ok(self.bolt().await) };
        let (nat, filter, bolt) = tokio::try_join!(self.table("nat"), self.table("filter"), bolt)?;
        Ok(nat.with(filter).with(bolt))
    }

    /// The table that is of use, but not every kernel's.
    async fn bolt(&self) -> Ruleset {
        self.table(BOLT).await.unwrap_or_else(|error| {
            if !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    %error,
                    "no table `{BOLT}` on this node: who flushes `nat` and `filter` at once opens the metadata address until the repair"
                );
            }
            Ruleset::without(BOLT)
        })
    }

    async fn table(&self, table: &'static str) -> Result<Ruleset, InterceptError> {
        let program = self.backend.save_program();
        let command = || format!("{program} -t {table}");
        let unusable = |why: String| InterceptError::NoTool {
            command: command(),
            why,
        };
        let permit = self.readers.clone().try_acquire_owned();
        let permit = permit.map_err(|_| unusable("earlier ones have not ended".to_owned()))?;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            // The crate's own constructor would ask `iptables`, whichever backend that is.
            let save = IPTables {
                cmd: program,
                has_check: true,
                has_wait: false,
                is_numeric: false,
            };
            save.execute(table, "").map_err(|error| error.to_string())
        });
        let output = timeout(READ_DEADLINE, read)
            .await
            .map_err(|_| unusable(format!("no answer within {READ_DEADLINE:?}")))?
            .map_err(|error| unusable(error.to_string()))?
            .map_err(unusable)?;
        let ruleset = parse(&command(), &output)?;
        if ruleset.incompatible.iter().any(|name| name == table) {
            let why = format!("table {table} holds native nft rules that iptables cannot show");
            return Err(unusable(why));
        }
        Ok(ruleset)
    }

    /// Everything that the backend has, without making the kernel create a table.
    pub async fn read_all(&self) -> Result<Ruleset, InterceptError> {
        let program = self.backend.save_program();
        let run = Command::new(program)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        parse(program, &finished(program, READ_DEADLINE, run).await?)
    }

    /// Runs a script: each table of it in one transaction, in the script's order.
    pub async fn restore(&self, script: &str) -> Result<(), InterceptError> {
        let program = self.backend.restore_program();
        let command = format!("{program} --noflush -w {LOCK_WAIT}");
        let run = async {
            let mut child = Command::new(program)
                .args(["--noflush", "-w", LOCK_WAIT])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // One that ends without reading says why by its status.
                let _ = stdin.write_all(script.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = finished(&command, WRITE_DEADLINE, run).await?;
        succeeded(&command, &output)
    }
}

/// The backend to use: the forced one, or what both backends' programs show decides. Makes the
/// kernel create no table.
pub async fn choose(choice: BackendChoice) -> Result<Decision, InterceptError> {
    if let BackendChoice::Forced(backend) = choice {
        return Ok(Decision {
            backend,
            why: "forced by --iptables-backend".to_owned(),
        });
    }
    let listing = async |backend| {
        Iptables::new(backend)
            .read_all()
            .await
            .map_err(|error| error.to_string())
    };
    let (nft, legacy) = tokio::join!(listing(Backend::Nft), listing(Backend::Legacy));
    backend::decide(&nft, &legacy)
}

async fn finished(
    command: &str,
    deadline: Duration,
    run: impl Future<Output = std::io::Result<Output>>,
) -> Result<Output, InterceptError> {
    let unusable = |why| InterceptError::NoTool {
        command: command.to_owned(),
        why,
    };
    let output = timeout(deadline, run).await;
    let output = output.map_err(|_| unusable(format!("no answer within {deadline:?}")))?;
    output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => InterceptError::NotInstalled {
            command: command.to_owned(),
        },
        _ => unusable(error.to_string()),
    })
}

fn parse(command: &str, output: &Output) -> Result<Ruleset, InterceptError> {
    succeeded(command, output)?;
    Ok(Ruleset::parse(&String::from_utf8_lossy(&output.stdout)))
}

fn succeeded(command: &str, output: &Output) -> Result<(), InterceptError> {
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(InterceptError::Tool {
        command: command.to_owned(),
        status: output.status.to_string(),
        stderr: stderr
            .trim()
            .replace('\n', "; ")
            .chars()
            .take(400)
            .collect(),
    })
}
