//! The first process of the cluster and of each node: a very small systemd.
//!
//! In: commands, a JSON line each, on a unix socket; on a node also the services to start at boot
//! and the boot guard's unit. Out: processes with logs, restarted when they end unasked. Blocks in
//! `wait`: as pid 1 it reaps everything. Invariant: only pids that it has started and not yet reaped
//! are ever signalled. `client` is the other end of the socket, `boot` the start of a node.

mod boot;
pub mod client;
mod forward;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

/// Where the socket is, in the process's own mount namespace.
pub const SOCKET: &str = "/run/supervise.sock";
/// First argument of a cluster's first process; the API server's address follows.
pub const FIRST_OF_CLUSTER: &str = "--first-process-of-cluster";
/// First argument of a node's first process (node.sh says it, too).
pub const FIRST_OF_NODE: &str = "--first-process-of-node";
/// Rest before a service that ended unasked is started again (systemd's `RestartSec`).
const REST: Duration = Duration::from_millis(500);
const END_LIMIT: Duration = Duration::from_secs(20);

/// A process to be kept running.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Its name in commands and in its log file's name.
    pub name: String,
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// File that both outputs are added to.
    pub log: PathBuf,
    /// Whether it is started again when it ends unasked.
    pub restart: bool,
    /// At boot, the next service waits until this unix socket takes connections.
    #[serde(default)]
    pub ready: Option<PathBuf>,
}

/// A command to the first process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Start this one.
    Start(Service),
    /// Start one again that was stopped, by its name.
    Again(String),
    /// Send the signal, wait for the end, and leave it so.
    Stop(String, i32),
    /// Only send the signal.
    Signal(String, i32),
    /// Nothing but the answer.
    Status,
}

/// What a service is doing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its pid inside; none while it does not run.
    pub pid: Option<i32>,
    /// How often it has ended.
    pub ends: u32,
    /// How it ended last.
    pub last: String,
}

/// Answer to an order: everything that is known, or what went wrong.
pub type Answer = std::result::Result<BTreeMap<String, Status>, String>;

#[derive(Debug)]
struct Kept {
    service: Service,
    wanted: bool,
    status: Status,
}

#[derive(Debug, Default)]
struct Table {
    services: Mutex<BTreeMap<String, Kept>>,
    changed: Condvar,
}

/// Runs as the first process until it is killed. `forward_to`: standard input is a listening TCP
/// socket of the machine's own, whose connections go there. `boot`: it is a node.
pub fn run(forward_to: Option<&str>, node: bool) -> Result<()> {
    // Before the socket and the threads: what boot runs is waited for by itself.
    let services = if node { boot::prepare()? } else { Vec::new() };
    let table = Arc::<Table>::default();
    let listener = UnixListener::bind(SOCKET).context(SOCKET)?;
    let serving = table.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let table = serving.clone();
            std::thread::spawn(move || {
                if let Err(error) = converse(&table, &stream) {
                    eprintln!("supervise: a command broke off: {error:#}");
                }
            });
        }
    });
    if let Some(target) = forward_to {
        forward::start(target)?;
    }
    let booting = table.clone();
    std::thread::spawn(move || booting.boot(services));
    table.reap()
}

fn converse(table: &Arc<Table>, stream: &UnixStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)?;
    let answer: Answer = table.obey(order).map_err(|error| format!("{error:#}"));
    let mut stream = stream;
    Ok(writeln!(stream, "{}", serde_json::to_string(&answer)?)?)
}

impl Table {
    fn obey(self: &Arc<Self>, order: Order) -> Result<BTreeMap<String, Status>> {
        match order {
            Order::Start(service) => self.start(service)?,
            Order::Again(name) => {
                let service = self.services.lock().get(&name).map(|k| k.service.clone());
                self.start(service.with_context(|| format!("no service `{name}`"))?)?;
            }
            Order::Stop(name, signal) => self.stop(&name, signal)?,
            Order::Signal(name, signal) => {
                self.signal(&mut self.services.lock(), &name, signal)?;
            }
            Order::Status => {}
        }
        let services = self.services.lock();
        let pairs = services.iter();
        Ok(pairs
            .map(|(name, kept)| (name.clone(), kept.status.clone()))
            .collect())
    }

    fn start(&self, service: Service) -> Result<()> {
        let mut services = self.services.lock();
        let name = service.name.clone();
        let kept = services.entry(name).or_insert_with(|| Kept {
            service: service.clone(),
            wanted: true,
            status: Status {
                pid: None,
                ends: 0,
                last: String::new(),
            },
        });
        (kept.service, kept.wanted) = (service, true);
        if kept.status.pid.is_none() {
            // Under the lock: the reaper cannot miss a child that ends at once.
            kept.status.pid = Some(spawn(&kept.service)?);
        }
        Ok(())
    }

    fn stop(&self, name: &str, signal: i32) -> Result<()> {
        let mut services = self.services.lock();
        let Some(kept) = services.get_mut(name) else {
            bail!("no service `{name}`");
        };
        kept.wanted = false;
        if kept.status.pid.is_none() {
            return Ok(());
        }
        self.signal(&mut services, name, signal)?;
        let until = Instant::now() + END_LIMIT;
        while services.get(name).is_some_and(|k| k.status.pid.is_some()) {
            if self.changed.wait_until(&mut services, until).timed_out() {
                bail!("{name} did not end within {} s", END_LIMIT.as_secs());
            }
        }
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "read as: the table sends the signal")]
    fn signal(&self, services: &mut BTreeMap<String, Kept>, name: &str, signal: i32) -> Result<()> {
        let pid = services.get(name).and_then(|kept| kept.status.pid);
        let pid = pid.with_context(|| format!("`{name}` does not run"))?;
        Ok(kill(Pid::from_raw(pid), Signal::try_from(signal)?)?)
    }

    fn boot(&self, services: Vec<Service>) {
        for service in services {
            let (name, ready) = (service.name.clone(), service.ready.clone());
            if let Err(error) = self.start(service) {
                eprintln!("supervise: {name} does not start: {error:#}");
            }
            let start = Instant::now();
            while ready
                .as_ref()
                .is_some_and(|p| UnixStream::connect(p).is_err())
            {
                if start.elapsed() > END_LIMIT {
                    eprintln!("supervise: {name} is not ready; going on");
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Waits for children, own and orphaned, for ever.
    fn reap(self: &Arc<Self>) -> ! {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::empty())) {
                Ok(status) => {
                    let Some(pid) = status.pid() else { continue };
                    self.ended(pid.as_raw(), &format!("{status:?}"));
                }
                Err(Errno::ECHILD) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => eprintln!("supervise: wait: {error}"),
            }
        }
    }

    fn ended(self: &Arc<Self>, pid: i32, how: &str) {
        let mut services = self.services.lock();
        let Some(kept) = services.values_mut().find(|k| k.status.pid == Some(pid)) else {
            return;
        };
        kept.status = Status {
            pid: None,
            ends: kept.status.ends + 1,
            last: how.to_owned(),
        };
        if kept.wanted && kept.service.restart {
            let (table, name) = (self.clone(), kept.service.name.clone());
            eprintln!("supervise: {name} ended ({how}); again in a moment");
            std::thread::spawn(move || {
                std::thread::sleep(REST);
                let service = table
                    .services
                    .lock()
                    .get(&name)
                    .map(|k| (k.wanted, k.service.clone()));
                if let Some((true, service)) = service
                    && let Err(error) = table.start(service)
                {
                    eprintln!("supervise: {name} does not start again: {error:#}");
                }
            });
        }
        self.changed.notify_all();
    }
}

fn spawn(service: &Service) -> Result<i32> {
    let (program, args) = service.argv.split_first().context("an empty command")?;
    // A failed exec would be reaped by us and not by the library, which is not prepared for it.
    if !Path::new(program).exists() {
        bail!("{program} is not there");
    }
    let log = File::options().create(true).append(true).open(&service.log);
    let log = log.with_context(|| service.log.display().to_string())?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    // Not waited for here: the reaper does it.
    let child = command
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    Ok(i32::try_from(child.id())?)
}

/// How a process that was waited for ended, in words.
pub fn end_in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}
