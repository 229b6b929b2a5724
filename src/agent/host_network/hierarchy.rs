//! The node's cgroup hierarchy: whether there is one to tell pods by, and where in it pods are.
//!
//! In: the folder where it is mounted, or one below where kubelet keeps its pods. Out: paths as the kernel takes
//! them. Blocks on the file system only.
//!
//! The kernel reads the paths of `iptables -m cgroup` from the cgroup namespace of whoever lays the rule. A container has
//! one of its own: the node's must be entered first, by the process's first thread, so that all others inherit it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::apart::ApartError;
use super::place::OF_PODS;
use crate::agent::intercept::PodsCgroup;

/// The cgroup namespace of the node's first process.
const NODES: &str = "/proc/1/ns/cgroup";

/// A cgroup v2 hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    root: PathBuf,
    /// Of `root` in the hierarchy, without a slash at its ends; empty where it is the hierarchy's own root.
    path: String,
}

impl Hierarchy {
    /// Opens it, entering the node's cgroup namespace where that is needed. To be called before other threads are: only
    /// the calling one, and those that it starts later, are inside.
    pub fn enter(root: &Path) -> Result<Self, ApartError> {
        let opened = Self::open(root);
        let Err(ApartError::OtherNamespace { .. }) = opened else {
            return opened;
        };
        let entered = File::open(NODES)
            .and_then(|nodes| setns(nodes, CloneFlags::CLONE_NEWCGROUP).map_err(io::Error::from));
        entered.map_err(|error| ApartError::OtherNamespace {
            root: root.to_owned(),
            why: format!("{NODES}: {error}"),
        })?;
        Self::open(root)
    }

    fn open(root: &Path) -> Result<Self, ApartError> {
        let unusable = |error: &dyn std::fmt::Display| ApartError::Unusable {
            root: root.to_owned(),
            why: error.to_string(),
        };
        let real = root.canonicalize().map_err(|error| unusable(&error))?;
        let kind = statfs(&real).map_err(|error| unusable(&error))?;
        if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(ApartError::NotVersion2(root.to_owned()));
        }
        let mounts =
            std::fs::read_to_string("/proc/thread-self/mountinfo").map_err(|e| unusable(&e))?;
        let path = path_in_hierarchy(&mounts, &real).map_err(|why| match why {
            Misread::Elsewhere => ApartError::OtherNamespace {
                root: root.to_owned(),
                why: "it was not asked for".to_owned(),
            },
            other => unusable(&other),
        })?;
        let opened = Self { root: real, path };
        if opened.of_pods().is_empty() {
            return Err(ApartError::NoPods(root.to_owned()));
        }
        Ok(opened)
    }

    /// Any folder as if it were a hierarchy.
    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            path: String::new(),
        }
    }

    /// Where it is seen.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cgroups of all pods that are there now: one, or two while a node changes kubelet's driver.
    #[must_use]
    pub fn of_pods(&self) -> Vec<PodsCgroup> {
        let there = OF_PODS.into_iter().filter_map(|name| {
            let id = self.root.join(name).metadata().ok()?.ino();
            let path = match &*self.path {
                "" => name.to_owned(),
                path => format!("{path}/{name}"),
            };
            Some(PodsCgroup { path, id })
        });
        there.collect()
    }
}

/// What cannot be said of a folder.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Misread {
    #[error("it is in no cgroup2 mount")]
    NoMount,
    #[error("its mount begins above this process's cgroup namespace")]
    Elsewhere,
    #[error("its path has signs that a rule cannot hold")]
    Signs,
}

/// Where `folder` is in the cgroup hierarchy, by the text of `mountinfo`: that shows a mount's root as seen from the
/// reader's cgroup namespace.
fn path_in_hierarchy(mounts: &str, folder: &Path) -> Result<String, Misread> {
    let of_line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let rest = folder.strip_prefix(point).ok()?.to_str()?.to_owned();
        after
            .starts_with("cgroup2 ")
            .then(|| (root.to_owned(), rest))
    };
    // The mount that is nearest, and of two at one place the later.
    let (root, rest) = mounts
        .lines()
        .filter_map(of_line)
        .min_by_key(|(_, rest)| rest.len())
        .ok_or(Misread::NoMount)?;
    if root.split('/').any(|part| part == "..") {
        return Err(Misread::Elsewhere);
    }
    let path = format!("{}/{rest}", root.trim_end_matches('/'));
    let path = path.trim_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/@:".contains(&b);
    if path.bytes().all(plain) {
        Ok(path.to_owned())
    } else {
        Err(Misread::Signs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_version_2_is_told_so() {
        // What is mounted at /sys/fs/cgroup with version 1 is a tmpfs; any folder stands for it.
        let folder = tempfile::tempdir().unwrap();
        let error = Hierarchy::enter(folder.path()).unwrap_err();
        assert!(matches!(error, ApartError::NotVersion2(_)), "{error}");
        let said = error.to_string();
        assert!(said.contains("cgroup v2") && said.contains("cgroup v1"));
        assert!(Hierarchy::enter(Path::new("/no/such/folder")).is_err());
    }

    #[test]
    fn a_folder_is_found_in_its_mount_and_seen_from_where_rules_are_laid() {
        let at =
            |lines: &[&str], folder: &str| path_in_hierarchy(&lines.join("\n"), Path::new(folder));
        let root = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        let tmpfs = "28 23 0:25 / /sys rw - sysfs sysfs rw";
        assert_eq!(at(&[tmpfs, root], "/sys/fs/cgroup").as_deref(), Ok(""));
        assert_eq!(
            at(&[root, tmpfs], "/sys/fs/cgroup/kubelet/x").as_deref(),
            Ok("kubelet/x")
        );
        assert_eq!(at(&[tmpfs], "/sys/fs/cgroup"), Err(Misread::NoMount));
        // A bind mount of a part of it.
        let part = "31 23 0:26 /kubelet /host/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(
            at(&[root, part], "/host/cgroup/x").as_deref(),
            Ok("kubelet/x")
        );
        // The node's own, seen from a container's namespace.
        let above = "31 23 0:26 /../../.. /host/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(at(&[above], "/host/cgroup"), Err(Misread::Elsewhere));
        assert_eq!(at(&[root], "/sys/fs/cgroup/a b"), Err(Misread::Signs));
        assert_eq!(at(&[root], "/sys/fs/cgroup/a\"b"), Err(Misread::Signs));
    }
}
