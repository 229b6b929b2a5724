//! Memory that the kernel holds for processes: what is charged to a cgroup of their own.
//!
//! In: processes. Out: bytes, from the moment at which they were put there: sockets, rules, addresses, routes, whatever
//! namespace they are in. The folder is the machine's, and goes with its handle.

use std::path::PathBuf;

use anyhow::Context as _;
use lanyard::lab::{self, Cgroups};

/// Where machines have the memory controller, and which file of it tells: version 1, version 2.
const MOUNTS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/memory", "memory.kmem.usage_in_bytes"),
    ("/sys/fs/cgroup", "memory.stat"),
];

/// A cgroup with these processes in it.
pub struct Charged {
    mount: PathBuf,
    root: PathBuf,
    file: PathBuf,
    pids: Vec<u32>,
}

impl Charged {
    /// Charges what the kernel holds for `pids` from now on. An error says why this machine cannot.
    pub fn to(pids: &[u32]) -> anyhow::Result<Self> {
        let outer = lab::outer_pid().context("not in a lab")?;
        for (mount, file) in MOUNTS.map(|(mount, file)| (PathBuf::from(mount), file)) {
            let root = mount.join(format!("lanyard-bench-memory-{outer}"));
            if !mount.join("cgroup.procs").exists() || std::fs::create_dir(&root).is_err() {
                continue;
            }
            let file = root.join(file);
            let charged = Self {
                mount,
                root,
                file,
                pids: pids.to_vec(),
            };
            if charged.bytes().is_ok() {
                for pid in pids {
                    Cgroups::put(&charged.root, *pid)?;
                }
                return Ok(charged);
            }
        }
        anyhow::bail!("no cgroup of this machine tells of the kernel's memory")
    }

    /// What is charged now.
    pub fn bytes(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(&self.file)?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("kernel ").or(one_number(line)));
        Ok(value.context("no line of the kernel's")?.trim().parse()?)
    }
}

fn one_number(line: &str) -> Option<&str> {
    line.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(line)
}

impl Drop for Charged {
    fn drop(&mut self) {
        for pid in &self.pids {
            let _ = Cgroups::put(&self.mount, *pid);
        }
        let _ = std::fs::remove_dir(&self.root);
    }
}
