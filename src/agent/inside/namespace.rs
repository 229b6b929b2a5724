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
        let (own, this) = (std::fs::metadata(OWN)?, file.metadata()?);
        if (own.dev(), own.ino()) == (this.dev(), this.ino()) {
            return Err(refuse("it is the node's own"));
        }
        Ok(Self { file })
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
        for name in ["file", "link", "own", "pipe", "folder", "absent"] {
            assert!(Namespace::open(folder.path(), name).is_err(), "{name}");
        }
        // The node's own, by its right name.
        let own = Namespace::open(Path::new("/proc/self/ns"), "net");
        assert!(own.is_err());
    }
}
