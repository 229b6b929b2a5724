//! A pod's network namespace, opened so that it can be nothing else.
//!
//! In: a folder of named namespaces, a name. Out: a handle. Blocks on the file system only. Holds that no link
//! is followed, that what is opened is a namespace, and that it is not the node's own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, fstatfs};

/// The file system that namespaces are files of.
const NSFS: FsType = FsType(0x6e73_6673);
/// The namespace that this process is in.
const OWN: &str = "/proc/self/ns/net";

/// An open network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    number: Number,
}

/// Tells namespaces apart, for as long as they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    device: u64,
    inode: u64,
}

impl Number {
    /// Of the file that a namespace is.
    pub fn of(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

impl Namespace {
    /// Opens a namespace by its name in a folder.
    pub fn open(folder: &Path, name: &str) -> io::Result<Self> {
        let folder = open(
            folder,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        // Not blocking: a pipe would be waited for.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file: OwnedFd = openat(&folder, name, flags, Mode::empty())?;
        let refuse = |why: &str| io::Error::other(format!("{name}: {why}"));
        if fstatfs(&file)?.filesystem_type() != NSFS {
            return Err(refuse("it is no namespace"));
        }
        let file = File::from(file);
        let number = |file: &std::fs::Metadata| Number::of(file.dev(), file.ino());
        let (own, number) = (number(&std::fs::metadata(OWN)?), number(&file.metadata()?));
        if own == number {
            return Err(refuse("it is the node's own"));
        }
        Ok(Self { file, number })
    }

    /// What tells it from others.
    pub fn number(&self) -> Number {
        self.number
    }

    /// The handle. That it is one of a network is for `setns` to say.
    pub fn into_file(self) -> File {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_namespace_is_opened_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("/proc/1/ns/net", path("link")).unwrap();
        std::os::unix::fs::symlink(OWN, path("own")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        for name in ["file", "pipe", "folder", "absent"] {
            assert!(Namespace::open(folder.path(), name).is_err(), "{name}");
        }
        // Not refused for where they lead to: one to another pod's would not be (tests/netns tries that).
        for name in ["link", "own"] {
            let error = Namespace::open(folder.path(), name).unwrap_err();
            let followed = error.raw_os_error() != Some(nix::errno::Errno::ELOOP as i32);
            assert!(!followed, "{name}: {error}");
        }
        // The node's own, by its right name.
        let own = Namespace::open(Path::new("/proc/self/ns"), "net");
        assert!(own.is_err());
    }
}
