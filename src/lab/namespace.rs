//! One network namespace: programs and in-process clients that run inside it.
//!
//! In: a name. Out: commands (`nsenter`, which becomes the program: same pid) and futures driven by
//! a thread of their own that has moved into the namespace. Blocks on process creation and on `ip`.
//! Invariant: only the thread moves; the process itself stays where it was.

use std::ffi::OsStr;
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sched::{CloneFlags, setns};
use tokio::process::Command;

use super::LabError;

/// A named network namespace of this lab.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a new one, with its loopback up.
    pub async fn create(name: &str) -> Result<Self, LabError> {
        ip(&format!("netns add {name}\n")).await?;
        let namespace = Self {
            name: name.to_owned(),
        };
        namespace.ip("link set lo up\n").await?;
        Ok(namespace)
    }

    /// Its name in `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that `nsenter --net=` and `setns` take.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// `program`, to be run inside. Killed when its handle is dropped.
    ///
    /// Not `ip netns exec`: that one remounts /sys and hides the cgroups.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command.kill_on_drop(true);
        command
    }

    /// Runs `program` to its end inside and gives its standard output; an error has its words.
    pub async fn output(&self, program: &str, args: &[&str]) -> Result<String, LabError> {
        let output = self
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await;
        let output = output.map_err(LabError::io(format!("starting {program}")))?;
        said(format!("{program} {}", args.join(" ")), &output)
    }

    /// Feeds lines to `ip -batch` inside; the first refused line is the error.
    pub async fn ip(&self, lines: &str) -> Result<(), LabError> {
        batch(self.command("ip"), lines).await
    }

    /// Writes a network setting (`net/ipv4/ip_forward`) of this namespace.
    pub async fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let (path, value) = (PathBuf::from("/proc/sys").join(key), value.to_owned());
        let what = format!("writing {}", path.display());
        let written = self.run(async move || std::fs::write(path, value)).await?;
        written.map_err(LabError::io(what))
    }

    /// Runs `work` on a thread and a runtime of its own inside the namespace.
    ///
    /// Sockets opened by it live there, also when they outlive it.
    pub fn run<T, W>(&self, work: W) -> impl Future<Output = Result<T, LabError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: AsyncFnOnce() -> T + Send + 'static,
    {
        let (path, name) = (self.path(), self.name.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("ns-{name}"));
        let spawned = thread.spawn(move || {
            let outcome = File::open(&path)
                .and_then(|file| setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from))
                .and_then(|()| {
                    tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                })
                .map(|runtime| runtime.block_on(work()));
            // Nobody waits any more: the answer has no reader.
            let _ = sender.send(outcome);
        });
        async move {
            let what = format!("running inside namespace {name}");
            if let Err(error) = spawned {
                return Err(LabError::io(what)(error));
            }
            let gone = |_| io::Error::other("the work panicked");
            receiver
                .await
                .map_err(gone)
                .and_then(|outcome| outcome)
                .map_err(LabError::io(what))
        }
    }

    /// Takes the name away; the namespace itself ends with its last process.
    pub async fn delete(&self) -> Result<(), LabError> {
        ip(&format!("netns del {}\n", self.name)).await
    }
}

/// Feeds lines to `ip -batch` in the lab's outermost namespace.
pub(super) async fn ip(lines: &str) -> Result<(), LabError> {
    batch(Command::new("ip"), lines).await
}

async fn batch(mut command: Command, lines: &str) -> Result<(), LabError> {
    use tokio::io::AsyncWriteExt as _;
    let starting = || LabError::io("starting ip -batch");
    command.args(["-batch", "-"]).kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(starting())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(lines.as_bytes())
            .await
            .map_err(starting())?;
    }
    let output = child.wait_with_output().await.map_err(starting())?;
    said(
        format!("ip -batch <<'{}'", lines.trim().replace('\n', "; ")),
        &output,
    )
    .map(drop)
}

fn said(command: String, output: &std::process::Output) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = if words.is_empty() {
        output.status.to_string()
    } else {
        words
    };
    Err(LabError::Tool { command, said })
}
