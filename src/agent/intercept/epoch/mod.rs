//! Which of the instances on a node owns the rules: the living one with the highest epoch.
//!
//! In: the state directory. Out: a new epoch, whose rules are whose, who is alive. Blocks on local
//! files only. Files: `rules.lock` (flock held from reading the epoch to the swap of the rules),
//! `epoch` (the last one given), `instance-N.lock` (flock held by instance N for as long as it keeps
//! rules, and says whether it enters pods), `group` (who makes agents' sockets), `removed` (uninstall was
//! here). Invariant: nothing in these files can crash anybody; what cannot be read counts as absent, and
//! the comment in the rules themselves stands in for it.

mod group;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::InterceptError;

/// Beyond this a number is damage, not an epoch.
pub const MAX_EPOCH: u64 = 1 << 40;
/// What a file may say and be believed: from there on there is room to count for ever.
const BELIEVED: u64 = MAX_EPOCH / 2;

/// What the file of an instance says that enters no pods. Another word, or none: it does.
const STAYS_OUT: &str = "redirect";

const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(3);

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// `rules.lock` is ours until this is dropped.
#[derive(Debug)]
pub struct RulesLock {
    _file: File,
}

/// This instance is alive and has laid rules, until this is dropped.
#[derive(Debug)]
pub struct Claim {
    /// Its epoch.
    pub epoch: u64,
    enters_pods: bool,
    file: File,
}

impl StateDir {
    /// Touches nothing yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Waits (at most 2 s) for the right to change this node's rules.
    pub async fn lock(&self) -> Result<RulesLock, InterceptError> {
        self.make()?;
        let file = self
            .open("rules.lock")
            .map_err(|error| self.failed("rules.lock", error))?;
        let deadline = tokio::time::Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(RulesLock { _file: file }),
                Err(TryLockError::Error(error)) => return Err(self.failed("rules.lock", error)),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let path = self.path.join("rules.lock");
                    return Err(InterceptError::Locked {
                        path,
                        seconds: LOCK_WAIT.as_secs(),
                    });
                }
            }
        }
    }

    /// An epoch higher than all that this directory or the rules in force know of.
    pub fn next_epoch(
        &self,
        _lock: &RulesLock,
        in_force: Option<u64>,
    ) -> Result<u64, InterceptError> {
        let written = self.read("epoch").and_then(|text| text.trim().parse().ok());
        let written = written.filter(|epoch| *epoch < BELIEVED);
        let highest = written
            .into_iter()
            .chain(in_force)
            .chain(self.instances())
            .max();
        let epoch = highest.unwrap_or(0) + 1;
        self.replace("epoch", |file| {
            io::Write::write_all(file, format!("{epoch}\n").as_bytes())
        })?;
        Ok(epoch)
    }

    /// Makes this instance known as alive; clears away what dead ones left.
    pub fn claim(
        &self,
        _lock: &RulesLock,
        epoch: u64,
        enters_pods: bool,
    ) -> Result<Claim, InterceptError> {
        for dead in self
            .instances()
            .filter(|other| *other != epoch && !self.is_alive(*other))
        {
            let _ = fs::remove_file(self.path.join(instance(dead)));
        }
        let file = self.hold(epoch, enters_pods)?;
        Ok(Claim {
            epoch,
            enters_pods,
            file,
        })
    }

    /// Locked before it has its name: whoever sees the file finds it locked.
    fn hold(&self, epoch: u64, enters_pods: bool) -> Result<File, InterceptError> {
        let says = if enters_pods { "" } else { STAYS_OUT };
        self.replace(&instance(epoch), |file| {
            io::Write::write_all(file, says.as_bytes())?;
            file.lock()
        })
    }

    /// Puts a claim's file back if somebody removed it, so that others see this instance alive.
    pub fn renew(&self, claim: &mut Claim) -> Result<(), InterceptError> {
        if !self.path.join(instance(claim.epoch)).exists() {
            self.make()?;
            claim.file = self.hold(claim.epoch, claim.enters_pods)?;
        }
        Ok(())
    }

    /// The highest living epoch above `epoch`.
    pub fn successor(&self, epoch: u64) -> Option<u64> {
        self.instances()
            .filter(|other| *other > epoch && self.is_alive(*other))
            .max()
    }

    /// Whether this instance enters pods; one that does not say so may.
    pub fn enters_pods(&self, epoch: u64) -> bool {
        self.read(&instance(epoch)).as_deref() != Some(STAYS_OUT)
    }

    /// All instances that are alive.
    pub fn living(&self) -> Vec<u64> {
        self.instances()
            .filter(|epoch| self.is_alive(*epoch))
            .collect()
    }

    /// Whether `lanyard uninstall` asked living agents to leave the rules alone.
    pub fn is_removed(&self) -> bool {
        self.path.join("removed").exists()
    }

    /// Asks living agents to leave the rules alone.
    pub fn set_removed(&self, _lock: &RulesLock) -> Result<(), InterceptError> {
        self.replace("removed", |_| Ok(())).map(drop)
    }

    /// An agent that starts wants its rules.
    pub fn clear_removed(&self, _lock: &RulesLock) {
        let _ = fs::remove_file(self.path.join("removed"));
    }

    /// Removes what nobody alive needs; the removed files' names.
    pub fn clear(&self, _lock: RulesLock) -> Vec<String> {
        let mut removed = Vec::new();
        let mut remove = |name: String| {
            if fs::remove_file(self.path.join(&name)).is_ok() {
                removed.push(name);
            }
        };
        let living = self.living();
        self.instances()
            .filter(|epoch| !living.contains(epoch))
            .for_each(|dead| remove(instance(dead)));
        if living.is_empty() {
            for name in ["checkpoint", "epoch", "group", "removed", "rules.lock"] {
                remove(name.to_owned());
            }
            // Not ours alone: others' files keep it.
            let _ = fs::remove_dir(&self.path);
        }
        removed
    }

    /// Whether there is anything to lock: uninstall leaves no directory behind that it made itself.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    fn instances(&self) -> impl Iterator<Item = u64> + use<> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| {
            let epoch = name
                .strip_prefix("instance-")?
                .strip_suffix(".lock")?
                .parse()
                .ok()?;
            (epoch < BELIEVED).then_some(epoch)
        })
    }

    fn is_alive(&self, epoch: u64) -> bool {
        let Ok(file) = options().read(true).open(self.path.join(instance(epoch))) else {
            return false;
        };
        // Shared, so that two who ask at once do not take each other for the owner.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// For root only, as are the files: whoever can open one for reading can lock it, and whoever
    /// holds a lock of ours keeps every agent from its rules.
    fn make(&self) -> Result<(), InterceptError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| self.failed("", error))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.join(name))
    }

    /// The beginning of a file; what is longer is damaged anyway.
    fn read(&self, name: &str) -> Option<String> {
        let file = options().read(true).open(self.path.join(name)).ok()?;
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, 64), &mut text).ok()?;
        Some(text)
    }

    fn replace(
        &self,
        name: &str,
        prepare: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<File, InterceptError> {
        let fresh = format!(".{name}.new");
        let written = (|| {
            let _ = fs::remove_file(self.path.join(&fresh));
            let mut file = self.open(&fresh)?;
            prepare(&mut file)?;
            fs::rename(self.path.join(&fresh), self.path.join(name))?;
            Ok(file)
        })();
        written.map_err(|error| self.failed(name, error))
    }

    fn failed(&self, name: &str, source: io::Error) -> InterceptError {
        InterceptError::State {
            path: self.path.join(name),
            source,
        }
    }
}

/// Files for root only; no link is followed, and nothing (a pipe) can make us wait.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    options.mode(0o600).custom_flags(flags);
    options
}

fn instance(epoch: u64) -> String {
    format!("instance-{epoch}.lock")
}

#[cfg(test)]
mod tests;
