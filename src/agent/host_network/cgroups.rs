//! Which pod a cgroup is of, by the names that kubelet gives.
//!
//! In: the number of a cgroup's inode. Out: a pod's UID. Blocks on the file system where a cgroup is not known yet: a
//! container that has just started, mostly. Numbers are never given twice while the node runs, so what was read once
//! stays true. Holds that a pod's UID is kubelet's word: below a pod's folder no name says anything, since a pod may
//! make folders there itself.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::DirEntryExt as _;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::hierarchy::Hierarchy;

/// Folders above pods': of all pods, and of those of a class.
const ABOVE: usize = 2;
/// Folders below a pod's that are looked at: containers, and what they nest.
const BELOW: usize = 6;
/// Cgroups that were looked for and are no pod's. Beyond that they are looked for again.
const MOST_STRANGERS: usize = 4096;

/// The cgroups of pods.
#[derive(Debug)]
pub struct Cgroups {
    hierarchy: Hierarchy,
    known: ArcSwap<HashMap<u64, Arc<str>>>,
    /// Looked for in vain. They were made before anybody asked, so no later look finds them.
    strangers: Mutex<HashSet<u64>>,
}

impl Cgroups {
    /// Knows none yet.
    #[must_use]
    pub fn of(hierarchy: Hierarchy) -> Self {
        Self {
            hierarchy,
            known: ArcSwap::default(),
            strangers: Mutex::default(),
        }
    }

    /// The pod that a cgroup is of, without looking: `None` where that must be looked for, `Some(None)` where it is
    /// known to be nobody's.
    #[must_use]
    pub fn known(&self, id: u64) -> Option<Option<Arc<str>>> {
        if let Some(uid) = self.known.load().get(&id) {
            return Some(Some(uid.clone()));
        }
        self.strangers.lock().contains(&id).then_some(None)
    }

    /// The pod that a cgroup is of, looking if need be. Blocks; of several callers one looks at a time. Folders of
    /// pods that are known to have a network of their own (`is_elsewhere`, by UID) are not looked into: most are such.
    #[must_use]
    pub fn look(&self, id: u64, is_elsewhere: impl Fn(&str) -> bool) -> Option<Arc<str>> {
        let mut strangers = self.strangers.lock();
        // Somebody may have looked meanwhile, for this one or another.
        if let Some(uid) = self.known.load().get(&id) {
            return Some(uid.clone());
        }
        if strangers.contains(&id) {
            return None;
        }
        let mut found = HashMap::new();
        for (_, folder) in self.hierarchy.folders_of_pods() {
            above_pods(&folder, ABOVE, &is_elsewhere, &mut found);
        }
        let uid = found.get(&id).cloned();
        self.known.store(Arc::new(found));
        if uid.is_none() {
            if strangers.len() >= MOST_STRANGERS {
                strangers.clear();
            }
            strangers.insert(id);
        }
        uid
    }
}

/// A folder of one that has cgroups: its name and its number.
fn folders(parent: &Path, mut each: impl FnMut(&str, u64)) -> io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(name) = entry.file_name().to_str()
        {
            each(name, entry.ino());
        }
    }
    Ok(())
}

/// What cannot be read has gone: cgroups come and go while we look.
fn above_pods(
    parent: &Path,
    levels: usize,
    is_elsewhere: &impl Fn(&str) -> bool,
    found: &mut HashMap<u64, Arc<str>>,
) {
    let _ = folders(parent, |name, id| {
        if let Some(uid) = uid_of(name) {
            if is_elsewhere(&uid) {
                return;
            }
            let uid: Arc<str> = uid.into();
            found.insert(id, uid.clone());
            below_pod(&parent.join(name), &uid, BELOW, found);
        } else if levels > 1 {
            above_pods(&parent.join(name), levels - 1, is_elsewhere, found);
        }
    });
}

fn below_pod(parent: &Path, uid: &Arc<str>, levels: usize, found: &mut HashMap<u64, Arc<str>>) {
    let _ = folders(parent, |name, id| {
        found.insert(id, uid.clone());
        if levels > 1 {
            below_pod(&parent.join(name), uid, levels - 1, found);
        }
    });
}

/// The UID in a pod's folder's name: `podUID` with the driver cgroupfs, `kubepods[-CLASS]-podUID.slice` with systemd,
/// which writes `_` for `-`.
fn uid_of(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        None => name.strip_prefix("pod")?.to_owned(),
        Some(unit) => {
            let (class, uid) = unit.strip_prefix("kubepods")?.split_once("-pod")?;
            let known = matches!(class, "" | "-burstable" | "-besteffort");
            known.then(|| uid.replace('_', "-"))?
        }
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (!uid.is_empty() && uid.bytes().all(plain)).then_some(uid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const UID: &str = "8f3a1c52-7d0e-4b7f-9f3e-0a1b2c3d4e5f";

    #[test]
    fn a_pods_folder_is_known_by_its_name_with_both_drivers() {
        let systemd = UID.replace('-', "_");
        for name in [
            format!("pod{UID}"),
            format!("kubepods-pod{systemd}.slice"),
            format!("kubepods-burstable-pod{systemd}.slice"),
            format!("kubepods-besteffort-pod{systemd}.slice"),
        ] {
            assert_eq!(uid_of(&name).as_deref(), Some(UID), "{name}");
        }
        for other in [
            "burstable",
            "kubepods-burstable.slice",
            "kubepods-other-podx.slice",
            "other-podx.slice",
            "pod",
            "pod a",
            "cri-containerd-0123.scope",
            "kubepods-pod.slice",
        ] {
            assert_eq!(uid_of(other), None, "{other}");
        }
    }

    /// The names alone are looked at: a usual folder does.
    fn hierarchy(folders: &[&str]) -> (tempfile::TempDir, Cgroups) {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let cgroups = Cgroups::of(Hierarchy::at(root.path()));
        (root, cgroups)
    }

    #[test]
    fn what_is_below_a_pods_folder_is_that_pods_whatever_it_is_called() {
        let (root, cgroups) = hierarchy(&[
            "kubepods/burstable/podone/main/podtwo/x",
            "kubepods/podtwo/main",
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podthree_3.slice/cri.scope",
            "system.slice/podfour",
            "kubepods/deep/deeper/podfive",
            "kubepods/podelsewhere/main",
        ]);
        let look = |folder: &str| {
            let id = root.path().join(folder).metadata().unwrap().ino();
            let found = cgroups.look(id, |uid| uid == "elsewhere");
            found.as_deref().map(str::to_owned)
        };
        for (folder, uid) in [
            ("kubepods/burstable/podone", Some("one")),
            ("kubepods/burstable/podone/main", Some("one")),
            ("kubepods/burstable/podone/main/podtwo", Some("one")),
            ("kubepods/burstable/podone/main/podtwo/x", Some("one")),
            ("kubepods/podtwo/main", Some("two")),
            (
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podthree_3.slice/cri.scope",
                Some("three-3"),
            ),
            ("kubepods", None),
            ("kubepods/podelsewhere/main", None),
            ("kubepods/burstable", None),
            ("system.slice/podfour", None),
            ("kubepods/deep/deeper/podfive", None),
            (".", None),
        ] {
            assert_eq!(look(folder).as_deref(), uid, "{folder}");
        }
    }

    #[test]
    fn what_came_later_is_found_and_what_is_nobodys_is_looked_for_once() {
        let (root, cgroups) = hierarchy(&["kubepods/podone/main", "system.slice"]);
        let id = |folder: &str| root.path().join(folder).metadata().unwrap().ino();
        assert_eq!(cgroups.known(id("kubepods/podone/main")), None);
        assert!(
            cgroups
                .look(id("kubepods/podone/main"), |_| false)
                .is_some()
        );
        assert!(cgroups.known(id("kubepods/podone/main")).is_some());
        let later = "kubepods/podone/again";
        std::fs::create_dir(root.path().join(later)).unwrap();
        assert_eq!(cgroups.known(id(later)), None);
        assert_eq!(cgroups.look(id(later), |_| false).as_deref(), Some("one"));
        let stranger = id("system.slice");
        assert_eq!(cgroups.known(stranger), None);
        assert_eq!(cgroups.look(stranger, |_| false), None);
        assert_eq!(cgroups.known(stranger), Some(None));
        for number in 0..2 * u64::try_from(MOST_STRANGERS).unwrap() {
            let _ = cgroups.look(u64::MAX - number, |_| false);
        }
        assert!(cgroups.strangers.lock().len() <= MOST_STRANGERS);
    }
}
