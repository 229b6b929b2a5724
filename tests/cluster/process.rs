//! Programs run to their end, with their words in the error.
//!
//! In: program and arguments. Out: what it printed. Blocks until its end. Invariant: a program is
//! ended with the future that waits for it.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What a program left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a success; the words of a failure as an error.
    pub fn success(self, what: &str) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        bail!(
            "`{what}` failed ({}): {}{}",
            self.code,
            self.stderr.trim(),
            self.stdout.trim()
        );
    }
}

/// Runs `command` to its end, with `input` as its standard input.
pub async fn run(mut command: Command, input: &[u8]) -> Result<Output> {
    let name = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.kill_on_drop(true).spawn();
    let mut child = child.with_context(|| format!("starting {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // A program that does not read to the end is no error of ours.
        tokio::spawn(async move { stdin.write_all(&input).await });
    }
    let output = child.wait_with_output().await?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program of the machine; its words on failure.
pub async fn output(program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    let what = format!("{program} {}", args.join(" "));
    run(command, &[]).await?.success(&what)
}

/// `program` in the namespaces (`--mount`, `--net`, …) of the process `pid`.
pub fn inside(pid: u32, namespaces: &[&str], program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={pid}"))
        .args(namespaces)
        .arg("--")
        .arg(program);
    command
}

/// Feeds `lines` to `ip -batch` in the namespaces of `pid`; `namespace` names one below /run/netns.
pub async fn ip(pid: u32, namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut command = inside(pid, &["--mount", "--net", "--pid"], "ip");
    if let Some(namespace) = namespace {
        command.args(["-netns", namespace]);
    }
    command.args(["-batch", "-"]);
    let what = format!("ip -batch <<'{}'", lines.trim().replace('\n', "; "));
    run(command, lines.as_bytes())
        .await?
        .success(&what)
        .map(drop)
}

/// Start time of a process in clock ticks after boot: with its pid it is never another's.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name may hold anything, also `)`.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Pids of the children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&child| parent(child) == Some(pid)).collect()
}

/// Whether `word` is one of the arguments that a process was started with.
pub fn has_argument(pid: u32, word: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|argument| argument == word.as_bytes())
}
