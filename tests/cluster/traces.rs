//! What a cluster leaves on the machine, and its removal: by a dead run's successor, too.
//!
//! In: a cluster's folder. Out: nothing of it any more. Blocks until its processes are gone, bounded.
//! Invariant: a process is ended only where pid and start time are the recorded ones.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lanyard::lab::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::plan::{NODES, Places};
use crate::process;

const CGROUPS: &str = "/sys/fs/cgroup";
const LIMIT: Duration = Duration::from_secs(20);

/// A process that is never mistaken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Its pid as the machine numbers it.
    pub pid: u32,
    /// Its start, in clock ticks after boot.
    pub start: u64,
}

/// Everything outside of a cluster's namespaces and folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Traces {
    /// The outermost process and the first one inside: their end is the cluster's.
    pub processes: Vec<Traced>,
    /// Name of its folder below every cgroup controller, with a leading `/`.
    pub cgroup: String,
    /// Whether it came up; a bringing-up that died on the way leaves `false`.
    #[serde(default)]
    pub complete: bool,
}

impl Traced {
    /// A running process.
    pub fn of(pid: u32) -> Option<Self> {
        let start = process::start_time(pid)?;
        Some(Self { pid, start })
    }

    /// Whether it still runs.
    pub fn lives(self) -> bool {
        process::start_time(self.pid) == Some(self.start)
    }

    /// Ends it by SIGKILL, if it still runs.
    pub fn kill(self) {
        if self.lives()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // It may have ended a moment ago.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Traces {
    /// Those of a cluster that has been started; none where nothing was.
    pub fn read(places: &Places) -> Result<Option<Self>> {
        let path = places.traces();
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => serde_json::from_str(&text?).with_context(|| path.display().to_string()),
        }
    }

    /// Records them.
    pub fn write(&self, places: &Places) -> Result<()> {
        let draft = places.traces().with_extension("new");
        std::fs::write(&draft, serde_json::to_string_pretty(self)?)?;
        Ok(std::fs::rename(draft, places.traces())?)
    }

    /// Whether the cluster runs, all of it.
    pub fn live(&self) -> bool {
        self.complete
            && !self.processes.is_empty()
            && self.processes.iter().all(|process| process.lives())
    }
}

/// Keeps others of this tree from bringing the same cluster up or down, as long as it is held.
pub fn lock(places: &Places) -> Result<File> {
    let path = places.root.with_extension("lock");
    std::fs::create_dir_all(
        path.parent()
            .context("a cluster's folder without a parent")?,
    )?;
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    let busy =
        "somebody else is at work on this tree's cluster: a test run, or an `up`, or a `down`";
    file.try_lock().context(busy)?;
    Ok(file)
}

/// Removes a cluster, living or dead, with all it left.
pub async fn remove(places: &Places) -> Result<()> {
    if let Some(traces) = Traces::read(places)? {
        for process in &traces.processes {
            process.kill();
        }
        let gone = async || !traces.processes.iter().any(|process| process.lives());
        until(LIMIT, "the end of the cluster's processes", gone).await?;
        remove_cgroups(&traces.cgroup).await?;
    }
    match std::fs::remove_dir_all(&places.root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| places.root.display().to_string())
        }
        _ => Ok(()),
    }
}

/// The roots of the hierarchies: one for each controller, or the one of cgroup 2.
fn hierarchies() -> Vec<PathBuf> {
    if Path::new(CGROUPS).join("cgroup.controllers").exists() {
        return vec![CGROUPS.into()];
    }
    let entries = std::fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

/// Makes a cluster's cgroups: two kubelets with one root would reap each other's pods.
pub fn make_cgroups(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let own = hierarchy.join(name.trim_start_matches('/'));
        for dir in [own.clone()]
            .into_iter()
            .chain(NODES.map(|node| own.join(node.name())))
        {
            std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            let parent = dir.parent().context("a cgroup without a parent")?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchy.ends_with("cpuset") {
                    std::fs::write(dir.join(file), std::fs::read(parent.join(file))?)?;
                }
            }
            if hierarchy == Path::new(CGROUPS) {
                // Each by itself: a controller that is not there spoils no other.
                for controller in ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"] {
                    let _ = std::fs::write(
                        parent.join("cgroup.subtree_control"),
                        format!("+{controller}"),
                    );
                }
            }
        }
    }
    Ok(())
}

/// Empties a node's cgroups, as a reboot does; they themselves stay.
pub async fn empty_cgroups(name: &str, node: &str) -> Result<()> {
    let path = format!("{name}/{node}");
    remove_cgroups(&path).await?;
    make_cgroups(name)
}

async fn remove_cgroups(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let own = hierarchy.join(name.trim_start_matches('/'));
        let gone = async || remove_cgroup(&own).is_ok();
        if until(LIMIT, "the cgroups to be empty", gone).await.is_err() {
            bail!(
                "{} cannot be removed: do processes run in it?",
                own.display()
            );
        }
    }
    Ok(())
}

fn remove_cgroup(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    std::fs::remove_dir(dir)
}

/// Moves the logs to where they stay after the removal, and says where that is.
pub fn keep_logs(places: &Places) -> PathBuf {
    let kept = places.root.with_extension("logs");
    // The ones of the time before.
    let _ = std::fs::remove_dir_all(&kept);
    match std::fs::rename(places.logs(), &kept) {
        Ok(()) => kept,
        Err(_) => places.logs(),
    }
}

/// Removes the logs that were kept, and the lock's file.
pub fn forget(places: &Places) -> Result<()> {
    let kept = places.root.with_extension("logs");
    if kept.exists() {
        std::fs::remove_dir_all(&kept).with_context(|| kept.display().to_string())?;
    }
    Ok(std::fs::remove_file(places.root.with_extension("lock"))?)
}
