//! Which pod a cgroup is of.
//!
//! In: the number of a cgroup's inode. Out: a pod's UID. Blocks on the file system where a cgroup is not known yet: a
//! container that has just started, mostly. Numbers are never given twice while the node runs, so what was read once
//! stays true.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use nix::sys::inotify::Inotify;
use parking_lot::Mutex;

use super::hierarchy::Hierarchy;
use super::tree::Tree;

/// Cgroups that were looked for and are no pod's. Beyond that they are looked for again.
const MOST_STRANGERS: usize = 4096;

/// Whose a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The pod's with this UID.
    Pods(Arc<str>),
    /// No pod's.
    Nobodys,
}

impl Whose {
    /// The pod's UID.
    pub fn uid(self) -> Option<Arc<str>> {
        match self {
            Self::Pods(uid) => Some(uid),
            Self::Nobodys => None,
        }
    }
}

/// The cgroups of pods.
#[derive(Debug)]
pub struct Cgroups {
    /// Whoever looks has it for so long.
    tree: Mutex<Tree>,
    known: ArcSwap<HashMap<u64, Arc<str>>>,
    /// Looked for in vain. They were made before anybody asked, so no later look finds them.
    strangers: Mutex<HashSet<u64>>,
}

impl Cgroups {
    /// Knows none yet.
    #[must_use]
    pub fn of(hierarchy: &Hierarchy) -> Self {
        Self {
            tree: Mutex::new(Tree::at(hierarchy.root())),
            known: ArcSwap::default(),
            strangers: Mutex::default(),
        }
    }

    /// Whose a cgroup is, without looking: `None` where that must be looked for. Does not wait.
    #[must_use]
    pub fn known(&self, id: u64) -> Option<Whose> {
        if let Some(uid) = self.known.load().get(&id) {
            return Some(Whose::Pods(uid.clone()));
        }
        let stranger = self.strangers.lock().contains(&id);
        stranger.then_some(Whose::Nobodys)
    }

    /// Whose a cgroup is, looking if need be: at what is new, then at all. Blocks; of several callers one looks at a
    /// time. Folders of pods that are known to have a network of their own (`is_elsewhere`, by UID) are not looked into:
    /// most are such. An error says that it was not found and something could not be read.
    pub fn look(&self, id: u64, is_elsewhere: impl Fn(&str) -> bool) -> io::Result<Whose> {
        let mut tree = self.tree.lock();
        // Somebody may have looked meanwhile, for this one or another.
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let found = self.find(&mut tree, id, &is_elsewhere);
        self.publish(&tree);
        found
    }

    fn find(
        &self,
        tree: &mut Tree,
        id: u64,
        is_elsewhere: &impl Fn(&str) -> bool,
    ) -> io::Result<Whose> {
        tree.follow(is_elsewhere);
        if let Some(uid) = tree.pods().get(&id) {
            return Ok(Whose::Pods(uid.clone()));
        }
        let walked = tree.walk(is_elsewhere);
        if let Some(uid) = tree.pods().get(&id) {
            return Ok(Whose::Pods(uid.clone()));
        }
        walked?;
        let mut strangers = self.strangers.lock();
        if strangers.len() >= MOST_STRANGERS {
            strangers.clear();
        }
        strangers.insert(id);
        Ok(Whose::Nobodys)
    }

    /// Looks at all, for nobody yet. Blocks.
    pub fn walk(&self, is_elsewhere: impl Fn(&str) -> bool) {
        let mut tree = self.tree.lock();
        // Whoever asks for what could not be read looks again.
        let _ = tree.walk(&is_elsewhere);
        self.publish(&tree);
    }

    /// Looks at what is new, for nobody yet. Blocks.
    pub fn follow(&self, is_elsewhere: impl Fn(&str) -> bool) {
        let mut tree = self.tree.lock();
        tree.follow(&is_elsewhere);
        self.publish(&tree);
    }

    /// What becomes readable when there is something new.
    pub fn inotify(&self) -> Option<Arc<Inotify>> {
        self.tree.lock().inotify().cloned()
    }

    fn publish(&self, tree: &Tree) {
        self.known.store(Arc::new(tree.pods().clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// The names alone are looked at: a usual folder does.
    fn hierarchy(folders: &[&str]) -> (tempfile::TempDir, Cgroups) {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let cgroups = Cgroups::of(&Hierarchy::at(root.path()));
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
            found.unwrap().uid()
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
        let look = |id| cgroups.look(id, |_| false).unwrap();
        let ones = Whose::Pods("one".into());
        assert_eq!(look(id("kubepods/podone/main")), ones);
        assert_eq!(
            cgroups.known(id("kubepods/podone/main")),
            Some(ones.clone())
        );
        let later = "kubepods/podone/again";
        std::fs::create_dir(root.path().join(later)).unwrap();
        assert_eq!(cgroups.known(id(later)), None);
        assert_eq!(look(id(later)), ones);
        let stranger = id("system.slice");
        assert_eq!(cgroups.known(stranger), None);
        assert_eq!(look(stranger), Whose::Nobodys);
        assert_eq!(cgroups.known(stranger), Some(Whose::Nobodys));
        for number in 0..2 * u64::try_from(MOST_STRANGERS).unwrap() {
            look(u64::MAX - number);
        }
        assert!(cgroups.strangers.lock().len() <= MOST_STRANGERS);
    }

    #[test]
    fn what_is_known_is_told_while_somebody_looks() {
        let (root, cgroups) = hierarchy(&["kubepods/podone/main", "system.slice"]);
        let id = |folder: &str| root.path().join(folder).metadata().unwrap().ino();
        let _ = cgroups.look(id("system.slice"), |_| false);
        let _somebody = cgroups.tree.lock();
        assert_eq!(cgroups.known(id("system.slice")), Some(Whose::Nobodys));
        assert!(cgroups.known(id("kubepods/podone/main")).is_some());
        assert_eq!(cgroups.known(u64::MAX), None);
    }

    #[test]
    fn nobody_is_a_stranger_for_what_could_not_be_read() {
        use std::os::fd::AsRawFd as _;
        let top = tempfile::tempdir().unwrap();
        // A path that is too long is there and cannot be read. It is made from nearer by.
        let long = "x".repeat(250);
        let mut near = std::fs::File::open(top.path()).unwrap();
        let mut path = top.path().to_owned();
        let of =
            |near: &std::fs::File, name: &str| format!("/proc/self/fd/{}/{name}", near.as_raw_fd());
        while path.as_os_str().len() + long.len() < 4070 {
            std::fs::create_dir(of(&near, &long)).unwrap();
            near = std::fs::File::open(of(&near, &long)).unwrap();
            path.push(&long);
        }
        std::fs::create_dir_all(of(&near, "kubepods/podone")).unwrap();
        let unreadable = of(&near, &format!("kubepods/podone/{long}"));
        std::fs::create_dir(&unreadable).unwrap();
        let cgroups = Cgroups::of(&Hierarchy::at(&path));
        let id = std::fs::metadata(&unreadable).unwrap().ino();
        for _ in 0..2 {
            assert!(cgroups.look(id, |_| false).is_err());
            assert_eq!(cgroups.known(id), None);
        }
        // What could be read is known all the same.
        let pods = std::fs::metadata(of(&near, "kubepods/podone"))
            .unwrap()
            .ino();
        let of_pods = cgroups.look(pods, |_| false).unwrap();
        assert_eq!(of_pods, Whose::Pods("one".into()));
        std::fs::remove_dir(&unreadable).unwrap();
        assert_eq!(cgroups.look(id, |_| false).unwrap(), Whose::Nobodys);
        assert_eq!(cgroups.known(id), Some(Whose::Nobodys));
    }
}
