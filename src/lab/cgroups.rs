//! Cgroups of a lab's own, in this machine's v2 hierarchy: where kubelet would keep pods' processes.
//!
//! In: UIDs of pods. Out: folders. Where nobody has mounted the hierarchy the lab does. Namespaces do not hold cgroups: the
//! folders are the machine's. They go with the value, with all that runs in them, and where the lab was killed by whoever
//! [tidies](Cgroups::tidy) after it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{LAB_DIR, LabError, outer_pid};

/// Where machines have it: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const KIND: &str = "cgroup2";
const PREFIX: &str = "lanyard-lab-";

/// A folder as kubelet's.
#[derive(Debug)]
pub struct Cgroups {
    mount: PathBuf,
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
        Self::put(&self.mount, pid)
    }

    /// Removes what a lab that was killed left behind, by the pid that it had outside.
    pub fn tidy(pid: u32) {
        let folder = format!("{PREFIX}{pid}");
        if let Some(mount) = found() {
            return fell(&mount.join(folder));
        }
        // The lab's own mount went with it. Another one, which goes with this thread; who may not have it had no lab with cgroups.
        let apart = std::thread::spawn(move || {
            let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let private = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
                nix::mount::mount(None::<&str>, "/", None::<&str>, all, None::<&str>)
            });
            let at = Path::new(MOUNTS[0]);
            if private.and_then(|()| mount_at(at)).is_ok() {
                fell(&at.join(folder));
            }
        });
        let _ = apart.join();
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        fell(&self.root);
    }
}

fn found() -> Option<PathBuf> {
    let is_v2 = |mount: &PathBuf| {
        statfs(mount).is_ok_and(|kind| kind.filesystem_type() == CGROUP2_SUPER_MAGIC)
    };
    let mut mounts = MOUNTS.map(PathBuf::from).into_iter().chain([own()]);
    mounts.find(is_v2)
}

/// Where the lab mounts it itself.
fn own() -> PathBuf {
    Path::new(LAB_DIR).join("cgroup")
}

/// The machine's mount. A lab makes one only where there is none: it would set the options of all of them anew.
fn mount() -> Result<PathBuf, LabError> {
    if let Some(mount) = found() {
        return Ok(mount);
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|line| line.ends_with(KIND)) {
        let why = "this machine's kernel has none (no `cgroup2` in /proc/filesystems)";
        let source = std::io::Error::new(std::io::ErrorKind::Unsupported, why);
        return Err(LabError::io(
            "cgroup v2, without which pods of the node's network cannot be tried",
        )(source));
    }
    let own = own();
    let mounting = || LabError::io(format!("mounting cgroup v2 at {}", own.display()));
    std::fs::create_dir_all(&own).map_err(mounting())?;
    mount_at(&own).map_err(|errno| mounting()(errno.into()))?;
    Ok(own)
}

fn mount_at(folder: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some(KIND), folder, Some(KIND), flags, None::<&str>)
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
