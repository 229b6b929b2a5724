//! The folders of host-network pods' cgroups, followed as they come and go.
//!
//! In: a hierarchy, and what inotify tells of it. Out: which cgroup is whose. Blocks on the file system, and reads little of it:
//! after the first walk only what is new, however many pods the node has. The kernel queues an event within the call
//! that makes a folder, so it is there before the folder's first process is. Where folders cannot be watched, or events
//! were lost, a walk tells the same and takes longer. Holds: what could not be read is told, never taken for absent.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::place::Place;

/// Reads of events in one go: more than the kernel keeps.
const MOST_READS: usize = 256;

/// The folders that are looked at.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// `None`: nothing can be watched.
    inotify: Option<Arc<Inotify>>,
    watched: HashMap<WatchDescriptor, (PathBuf, Place)>,
    folders: HashMap<PathBuf, Folder>,
    pods: HashMap<u64, Arc<str>>,
    /// Why the last walk did not see all; `None`: it did, or there was none.
    unread: Option<io::Error>,
}

#[derive(Debug)]
struct Folder {
    id: u64,
    watch: Option<WatchDescriptor>,
}

impl Tree {
    /// Knows nothing yet.
    pub fn at(root: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let inotify = inotify.inspect_err(|error| tracing::warn!(%error, "cgroups cannot be followed: they are read anew for each new container"));
        Self {
            root: root.to_owned(),
            inotify: inotify.ok().map(Arc::new),
            watched: HashMap::new(),
            folders: HashMap::new(),
            pods: HashMap::new(),
            unread: None,
        }
    }

    /// Pods' UIDs by the numbers of their cgroups.
    pub fn pods(&self) -> &HashMap<u64, Arc<str>> {
        &self.pods
    }

    /// What becomes readable when there is something to follow.
    pub fn inotify(&self) -> Option<&Arc<Inotify>> {
        self.inotify.as_ref()
    }

    /// Reads all folders anew; an error says that some could not be read, and the others were.
    pub fn walk(&mut self, is_elsewhere: &impl Fn(&str) -> bool) -> io::Result<()> {
        let before = std::mem::take(&mut self.watched);
        self.folders.clear();
        self.pods.clear();
        self.unread = None;
        self.visit(self.root.clone(), Place::Root, is_elsewhere);
        for watch in before.into_keys() {
            if !self.watched.contains_key(&watch) {
                self.unwatch(Some(watch));
            }
        }
        self.unread.take().map_or(Ok(()), Err)
    }

    /// Looks at what has changed since it was last asked.
    pub fn follow(&mut self, is_elsewhere: &impl Fn(&str) -> bool) {
        let Some(inotify) = self.inotify.clone() else {
            return;
        };
        for _ in 0..MOST_READS {
            let Ok(events) = inotify.read_events() else {
                return; // no more
            };
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    // What it could not read is looked for again by whoever asks for it.
                    let _ = self.walk(is_elsewhere);
                } else {
                    self.take(&event, is_elsewhere);
                }
            }
        }
    }

    fn take(&mut self, event: &InotifyEvent, is_elsewhere: &impl Fn(&str) -> bool) {
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.watched.remove(&event.wd);
            return;
        }
        let Some((parent, place)) = self.watched.get(&event.wd) else {
            return; // from before it was let go
        };
        let Some(name) = event.name.as_deref().and_then(|name| name.to_str()) else {
            return;
        };
        let path = parent.join(name);
        if event.mask.contains(AddWatchFlags::IN_DELETE) {
            self.forget(&path);
        } else if let Some(below) = place.below(name, is_elsewhere) {
            self.visit(path, below, is_elsewhere);
        }
    }

    /// A folder, and all below it. Watched before it is read, so that nothing comes between.
    fn visit(&mut self, path: PathBuf, place: Place, is_elsewhere: &impl Fn(&str) -> bool) {
        let watch = self.watch(&path);
        let read = path.metadata();
        let Some(data) = self.unless_gone(read).filter(std::fs::Metadata::is_dir) else {
            return self.unwatch(watch);
        };
        let id = data.ino();
        if let Some(uid) = place.uid() {
            self.pods.insert(id, uid.clone());
        }
        self.folders.insert(path.clone(), Folder { id, watch });
        // Two links are its name and its own: it has no folders. A cgroup has many files, and most have nothing below.
        if data.nlink() != 2 {
            let names = folders(&path);
            for name in self.unless_gone(names).unwrap_or_default() {
                if let Some(below) = place.below(&name, is_elsewhere) {
                    self.visit(path.join(name), below, is_elsewhere);
                }
            }
        }
        if let Some(watch) = watch {
            self.watched.insert(watch, (path, place));
        }
    }

    fn forget(&mut self, path: &Path) {
        let Some(Folder { id, watch }) = self.folders.remove(path) else {
            return;
        };
        self.pods.remove(&id);
        // By itself a cgroup's watch stays for ever.
        self.unwatch(watch);
    }

    /// Not watched is not lost: it is found by a walk.
    fn watch(&self, path: &Path) -> Option<WatchDescriptor> {
        let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE;
        let flags = changes | AddWatchFlags::IN_ONLYDIR | AddWatchFlags::IN_DONT_FOLLOW;
        self.inotify.as_ref()?.add_watch(path, flags).ok()
    }

    fn unwatch(&mut self, watch: Option<WatchDescriptor>) {
        if let (Some(watch), Some(inotify)) = (watch, &self.inotify) {
            self.watched.remove(&watch);
            let _ = inotify.rm_watch(watch);
        }
    }

    /// Cgroups come and go while we look; any other failure is remembered.
    fn unless_gone<T>(&mut self, read: io::Result<T>) -> Option<T> {
        read.map_err(|error| {
            let gone = [libc::ENOENT, libc::ENOTDIR, libc::ENODEV].map(Some);
            if !gone.contains(&error.raw_os_error()) {
                self.unread = Some(error);
            }
        })
        .ok()
    }
}

/// The names of a folder's folders.
fn folders(parent: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere(_: &str) -> bool {
        false
    }

    #[test]
    fn what_comes_and_goes_is_followed_without_reading_all_again() {
        let root = tempfile::tempdir().unwrap();
        let at = |folder: &str| root.path().join(folder);
        std::fs::create_dir_all(at("kubepods/podone/main")).unwrap();
        let mut tree = Tree::at(root.path());
        tree.walk(&nowhere).unwrap();
        assert_eq!(tree.pods().len(), 2);
        // A container, a pod of a class that is new, and what a pod nests.
        for folder in [
            "kubepods/podone/again",
            "kubepods/burstable/podtwo/main",
            "kubepods/podone/main/podthree",
            "kubepods/podelsewhere/main",
            "system.slice/podfour",
        ] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        tree.follow(&|uid| uid == "elsewhere");
        let whose = |tree: &Tree, folder: &str| {
            let id = at(folder).metadata().unwrap().ino();
            tree.pods().get(&id).map(ToString::to_string)
        };
        for (folder, uid) in [
            ("kubepods/podone/again", Some("one")),
            ("kubepods/burstable/podtwo", Some("two")),
            ("kubepods/burstable/podtwo/main", Some("two")),
            ("kubepods/podone/main/podthree", Some("one")),
            ("kubepods/podelsewhere/main", None),
            ("system.slice/podfour", None),
        ] {
            assert_eq!(whose(&tree, folder).as_deref(), uid, "{folder}");
        }
        for folder in [
            "kubepods/burstable/podtwo/main",
            "kubepods/burstable/podtwo",
        ] {
            std::fs::remove_dir(at(folder)).unwrap();
        }
        tree.follow(&nowhere);
        assert_eq!(tree.pods().len(), 4);
        assert!(tree.pods().values().all(|uid| &**uid == "one"));
        // The whole of it made anew, as when kubelet's cgroup is.
        std::fs::remove_dir_all(at("kubepods")).unwrap();
        tree.follow(&nowhere);
        assert!(
            tree.pods().is_empty() && tree.watched.len() == 1,
            "{tree:?}"
        );
        std::fs::create_dir_all(at("kubepods/podone/main")).unwrap();
        tree.follow(&nowhere);
        assert_eq!(whose(&tree, "kubepods/podone/main").as_deref(), Some("one"));
        let before = tree.watched.len();
        tree.walk(&nowhere).unwrap();
        assert_eq!(tree.watched.len(), before, "the same by a walk");
    }
}
