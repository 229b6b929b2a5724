//! A process of the lab: known by its pid, with a log file, ended with its handle.
//!
//! In: a command. Out: its log, its exit status. Blocks on nothing but the process's end.
//! Invariant: only this pid is ever signalled, and no more after it has been reaped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::LabError;

/// How much of a log an error shows.
const TAIL_LINES: usize = 25;

/// A running (or ended) process.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    pid: u32,
}

impl Process {
    /// Starts `command` with both outputs going to `log` (made anew, or added to).
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, LabError> {
        let starting = || LabError::io(format!("starting {name}"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(starting())?;
        let errors = file.try_clone().map_err(starting())?;
        command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .kill_on_drop(true);
        let child = command.spawn().map_err(starting())?;
        let pid = child.id().unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
            pid,
        })
    }

    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, also after its end.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its log file.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has written until now.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of the log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// How many file descriptors it has open, while it runs.
    pub fn descriptors(&self) -> Result<usize, LabError> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid));
        let open = open.map_err(LabError::io(format!("descriptors of {}", self.name)))?;
        Ok(open.count())
    }

    /// Asks it to end (SIGTERM).
    pub fn term(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends any signal; nothing happens when it has already ended.
    pub fn signal(&self, signal: Signal) {
        // `id` is None once reaped: a reused pid is never hit.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended a moment ago; there is nothing to do about it then.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends it without a chance to clean up (SIGKILL) and waits until it is gone.
    pub async fn kill9(&mut self) -> Result<ExitStatus, LabError> {
        self.signal(Signal::SIGKILL);
        self.wait_exit(Duration::from_secs(10)).await
    }

    /// Waits for its end.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => status.map_err(LabError::io(format!("waiting for {}", self.name))),
            Err(_) => Err(LabError::TimedOut {
                what: format!("the end of {} (log: {})", self.name, self.log.display()),
                seconds: limit.as_secs_f64(),
            }),
        }
    }

    /// An error with the end of its log if it is not running any more.
    pub fn still_running(&mut self) -> Result<(), LabError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(LabError::Ended {
                name: self.name.clone(),
                status: status.to_string(),
                tail: self.tail(),
            }),
            Err(error) => Err(LabError::io(format!("looking at {}", self.name))(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("shell", command, log).unwrap()
    }

    #[tokio::test]
    async fn an_ended_process_shows_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("echo so long; exit 3", &dir.path().join("log"));
        let status = process.wait_exit(Duration::from_secs(20)).await.unwrap();
        assert_eq!(status.code(), Some(3));
        let error = process.still_running().unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("so long"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_killed_process_is_gone_and_a_second_kill_hits_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("exec sleep 600", &dir.path().join("log"));
        process.still_running().unwrap();
        assert!(!process.kill9().await.unwrap().success());
        process.term();
        assert!(process.still_running().is_err());
    }
}
