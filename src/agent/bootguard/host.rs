//! The host's files, below the place where its root is mounted.
//!
//! In: paths as the host itself would write them. Out: files written in one step, only when they
//! differ. Blocks on the disk. Invariant: no path leaves the root: links are followed as the host would
//! follow them when a program is looked for, and not at all when something is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use super::GuardError;

const BIN: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];
/// As many links as the kernel follows, about.
const HOPS: u32 = 40;

pub(super) struct Host<'a> {
    root: &'a Path,
}

impl<'a> Host<'a> {
    pub fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// The first of these programs that the host has: its path there.
    pub fn program(&self, names: &[&str]) -> Option<String> {
        let mut paths = names
            .iter()
            .flat_map(|name| BIN.iter().map(move |bin| format!("{bin}/{name}")));
        paths.find(|path| self.is_program(path))
    }

    fn is_program(&self, path: &str) -> bool {
        let found = self
            .resolve(Path::new(path))
            .and_then(|path| fs::metadata(path).ok());
        found.is_some_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    }

    /// Follows links as the host would: an absolute one begins at *its* root.
    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let (mut at, mut hops) = (PathBuf::new(), 0);
        let mut ahead: Vec<PathBuf> = vec![path.to_owned()];
        while let Some(part) = ahead.pop() {
            let mut parts = part.components();
            let Some(first) = parts.next() else { continue };
            ahead.push(parts.as_path().to_owned());
            match first {
                Component::RootDir => at.clear(),
                Component::ParentDir => drop(at.pop()),
                Component::Normal(name) => {
                    at.push(name);
                    if let Ok(target) = fs::read_link(self.root.join(&at)) {
                        hops += 1;
                        if hops > HOPS {
                            return None;
                        }
                        at.pop();
                        ahead.push(target);
                    }
                }
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Some(self.root.join(at))
    }

    /// Makes a file say this; whether it said something else. Replaced in one step, on the disk when done.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Result<bool, GuardError> {
        let to = self.place(path)?;
        let is_file = fs::symlink_metadata(&to)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o777 == mode);
        if is_file && fs::read(&to).is_ok_and(|now| now == text.as_bytes()) {
            return Ok(false);
        }
        let fresh = fresh(&to);
        let written = || {
            let _ = fs::remove_file(&fresh);
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&fresh)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            settle(&fresh, &to)
        };
        written().map_err(failed(&to))?;
        Ok(true)
    }

    /// Makes a link say this; whether it said something else.
    pub fn link(&self, path: &str, target: &str) -> Result<bool, GuardError> {
        let to = self.place(path)?;
        if fs::read_link(&to).is_ok_and(|now| now == Path::new(target)) {
            return Ok(false);
        }
        let fresh = fresh(&to);
        let linked = || {
            let _ = fs::remove_file(&fresh);
            symlink(target, &fresh)?;
            settle(&fresh, &to)
        };
        linked().map_err(failed(&to))?;
        Ok(true)
    }

    /// Removes a file or link; whether it was there.
    pub fn remove(&self, path: &str) -> Result<bool, GuardError> {
        let at = self.join(path);
        match fs::remove_file(&at) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(&at)(error)),
        }
    }

    pub fn remove_if_empty(&self, folder: &str) {
        let _ = fs::remove_dir(self.join(folder));
    }

    fn join(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Where a file of the host is written: its folders are made; none may be a link, which would lead
    /// out of the mounted root.
    fn place(&self, path: &str) -> Result<PathBuf, GuardError> {
        let to = self.join(path);
        let folders: Vec<&Path> = to
            .ancestors()
            .skip(1)
            .take_while(|folder| folder.starts_with(self.root) && *folder != self.root)
            .collect();
        for folder in folders.into_iter().rev() {
            match fs::symlink_metadata(folder) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(failed(folder)(io::Error::other("is not a plain folder"))),
                // The host's own /etc is there; a root without it is none.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && folder.parent() != Some(self.root) =>
                {
                    fs::create_dir(folder).map_err(failed(folder))?;
                }
                Err(error) => return Err(failed(folder)(error)),
            }
        }
        Ok(to)
    }
}

fn fresh(to: &Path) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    to.with_file_name(format!(".{name}.new"))
}

fn settle(fresh: &Path, to: &Path) -> io::Result<()> {
    fs::rename(fresh, to)?;
    match to.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> GuardError {
    let path = path.to_owned();
    move |source| GuardError::File { path, source }
}
