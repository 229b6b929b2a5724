//! Cgroups of a trial's own, in this machine's v2 hierarchy: where kubelet would keep pods' processes.
//!
//! In: UIDs of pods. Out: folders, and programs of the node's network whose sockets are in them. Namespaces do not
//! hold cgroups: the folders are the machine's. They go with the trial, and where that was killed by the runner.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lanyard::lab::{self, Namespace, Process};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use tokio::process::Command;

use crate::harness::CannotRun;

/// Where machines have it: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const PREFIX: &str = "lanyard-lab-";
/// Moves itself into a cgroup, then becomes a program.
const INSIDE: &str = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;

/// A folder as kubelet's, with a program's answer from one of its cgroups.
pub struct Tree {
    root: PathBuf,
}

/// What a program said.
#[derive(Clone, Debug)]
pub struct Said {
    /// The HTTP status; 0: no answer.
    pub status: u16,
    /// The body.
    pub body: String,
}

fn mount() -> Result<&'static Path> {
    let is_v2 = |mount: &&Path| {
        statfs(*mount).is_ok_and(|kind| kind.filesystem_type() == CGROUP2_SUPER_MAGIC)
    };
    let found = MOUNTS.map(Path::new).into_iter().find(is_v2);
    found.context(CannotRun("this machine mounts no cgroup v2".to_owned()))
}

impl Tree {
    /// An empty one.
    pub fn plant() -> Result<Self> {
        let pid = lab::outer_pid().context("not in a lab")?;
        let root = mount()?.join(format!("{PREFIX}{pid}"));
        let planted = std::fs::create_dir(&root);
        planted.map_err(|error| CannotRun(format!("{}: {error}", root.display())))?;
        let tree = Self { root };
        tree.folder("kubepods/burstable")?;
        tree.folder("system.slice/daemon")?;
        Ok(tree)
    }

    /// What an agent is told.
    pub fn root(&self) -> String {
        self.root.display().to_string()
    }

    fn folder(&self, path: &str) -> Result<PathBuf> {
        let folder = self.root.join(path);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    /// A container's cgroup of this pod.
    pub fn pod(&self, uid: &str) -> Result<PathBuf> {
        self.folder(&format!("kubepods/burstable/pod{uid}/main"))
    }

    /// The cgroup of a program of the node's own.
    pub fn daemon(&self) -> PathBuf {
        self.root.join("system.slice/daemon")
    }

    /// The cgroup of a class of pods, where no pod's processes are.
    pub fn between_pods(&self) -> PathBuf {
        self.root.join("kubepods/burstable")
    }

    /// Puts a running process in.
    pub fn put(cgroup: &Path, process: &Process) -> Result<()> {
        Ok(std::fs::write(
            cgroup.join("cgroup.procs"),
            process.pid().to_string(),
        )?)
    }

    /// Kubelet's cgroup of all pods goes, with all below.
    pub fn fell_pods(&self) {
        fell(&self.root.join("kubepods"));
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fell(&self.root);
    }
}

/// `program`, to be run on the node's network in a cgroup.
pub fn command(node: &Namespace, cgroup: &Path, program: &str) -> Command {
    let mut command = node.command("sh");
    command.arg("-c").arg(INSIDE).arg(cgroup).arg(program);
    command
}

/// Asks by curl from a cgroup.
pub async fn ask(node: &Namespace, cgroup: &Path, args: &[&str]) -> Result<Said> {
    let mut curl = command(node, cgroup, "curl");
    curl.args(["-q", "-s", "-g", "-m", "10", "-H", "Metadata: true"]);
    curl.args(["-w", "\n%{http_code}"]).args(args);
    let output = curl.stdin(Stdio::null()).output().await?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.signal().is_none(), "{output:?}");
    let (body, status) = printed
        .rsplit_once('\n')
        .with_context(|| format!("{output:?}"))?;
    Ok(Said {
        status: status.parse()?,
        body: body.to_owned(),
    })
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

/// For the runner, outside: removes what a trial of this process left behind that was killed.
pub fn tidy(pid: u32) {
    if let Ok(mount) = mount() {
        fell(&mount.join(format!("{PREFIX}{pid}")));
    }
}
