//! Cgroups of a lab's own, in this machine's v2 hierarchy: where kubelet would keep pods' processes.
//!
//! In: UIDs of pods. Out: folders. Namespaces do not hold cgroups: the folders are the machine's. They go with the value, with
//! all that runs in them, and where the lab was killed by whoever [tidies](Cgroups::tidy) after it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{LabError, outer_pid};

/// Where machines have it: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const PREFIX: &str = "lanyard-lab-";

/// A folder as kubelet's.
#[derive(Debug)]
pub struct Cgroups {
    mount: &'static Path,
    root: PathBuf,
}

impl Cgroups {
    /// An empty one. One at a time in a lab.
    pub fn plant() -> Result<Self, LabError> {
        let pid = outer_pid().ok_or_else(|| missing("a lab"))?;
        let mount = mount()?;
        let root = mount.join(format!("{PREFIX}{pid}"));
        std::fs::create_dir(&root).map_err(LabError::io(format!("making {}", root.display())))?;
        let planted = Self { mount, root };
        planted.folder("kubepods/burstable")?;
        planted.folder("system.slice/daemon")?;
        Ok(planted)
    }

    /// What an agent is told.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, path: &str) -> Result<PathBuf, LabError> {
        let folder = self.root.join(path);
        let making = LabError::io(format!("making {}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(making)?;
        Ok(folder)
    }

    /// The cgroup of this pod's container `main`.
    pub fn pod(&self, uid: &str) -> Result<PathBuf, LabError> {
        self.container(uid, "main")
    }

    /// A container's cgroup.
    pub fn container(&self, uid: &str, name: &str) -> Result<PathBuf, LabError> {
        self.folder(&format!("kubepods/burstable/pod{uid}/{name}"))
    }

    /// The cgroup of a program of the node's own.
    #[must_use]
    pub fn daemon(&self) -> PathBuf {
        self.root.join("system.slice/daemon")
    }

    /// The cgroup of a class of pods, where no pod's processes are.
    #[must_use]
    pub fn between_pods(&self) -> PathBuf {
        self.root.join("kubepods/burstable")
    }

    /// Kubelet's cgroup of all pods goes, with all below.
    pub fn fell_pods(&self) {
        fell(&self.root.join("kubepods"));
    }

    /// Puts a running process into a cgroup, of these or another, with all its threads.
    pub fn put(cgroup: &Path, pid: u32) -> Result<(), LabError> {
        let written = std::fs::write(cgroup.join("cgroup.procs"), pid.to_string());
        written.map_err(LabError::io(format!("{pid} into {}", cgroup.display())))
    }

    /// Takes a process out of all of these: it would end with them.
    pub fn free(&self, pid: u32) -> Result<(), LabError> {
        Self::put(self.mount, pid)
    }

    /// Removes what a lab that was killed left behind, by the pid that it had outside.
    pub fn tidy(pid: u32) {
        if let Ok(mount) = mount() {
            fell(&mount.join(format!("{PREFIX}{pid}")));
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        fell(&self.root);
    }
}

fn mount() -> Result<&'static Path, LabError> {
    let is_v2 = |mount: &&Path| {
        statfs(*mount).is_ok_and(|kind| kind.filesystem_type() == CGROUP2_SUPER_MAGIC)
    };
    let found = MOUNTS.map(Path::new).into_iter().find(is_v2);
    found.ok_or_else(|| missing("a mount of cgroup v2"))
}

fn missing(what: &str) -> LabError {
    LabError::io(what)(std::io::ErrorKind::NotFound.into())
}

/// Removes a folder of cgroups, ending what is still in it; what is in use a moment longer is waited for.
fn fell(folder: &Path) {
    let _ = std::fs::write(folder.join("cgroup.kill"), "1");
    for _ in 0..200 {
        if !folder.exists() || remove(folder).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder)
}
