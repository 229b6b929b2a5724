//! The boot guard: what keeps pods from the metadata address between a reboot and the agent's start.
//!
//! In: the host's root file system. Out: a systemd unit, enabled, that lays the closed door (the REJECT
//! in FORWARD, no way in) before kubelet starts, with the host's own `iptables-restore`: after a reboot
//! nothing of the image is needed. Blocks on local files. Invariant 2 (fail closed): it can only close;
//! the agent's rules replace it in one transaction, and nothing in it can be taken for a living agent.

mod host;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use self::host::Host;
use super::intercept::Backend;

pub use self::text::{RULES, UNIT};

/// Why there is no boot guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The host cannot run what the unit would.
    #[error(
        "the host has no iptables-restore (looked for {looked_for} below its /usr/sbin, /sbin, /usr/bin, /usr/local/sbin): \
         install the package iptables on the node; until then nothing closes the gap between boot and the agent's start"
    )]
    NoProgram {
        /// The names.
        looked_for: String,
    },
    /// A file of the host cannot be read or written.
    #[error("{}: {source}; --boot-guard names the host's root file system, and its /etc must be writable", path.display())]
    File {
        /// The file, as this process sees it.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Installs or updates it; the files that changed (none: it was as it should be).
///
/// `root`: the host's root as this process sees it; `script`: what `iptables-restore --noflush` is fed.
pub fn install(root: &Path, script: &str, backend: Backend) -> Result<Vec<PathBuf>, GuardError> {
    let host = Host::new(root);
    let names = [
        backend.restore_program(),
        "iptables-restore",
        backend.other().restore_program(),
    ];
    let program = host.program(&names).ok_or_else(|| GuardError::NoProgram {
        looked_for: names.join(", "),
    })?;
    let mut changed = Vec::new();
    let mut note = |path: &str, is_new: bool| {
        if is_new {
            changed.push(PathBuf::from(path));
        }
    };
    // The rules before the unit, the unit before it is enabled: at every moment a reboot works.
    note(RULES, host.write(RULES, script, 0o600)?);
    note(UNIT, host.write(UNIT, &text::unit(&program), 0o644)?);
    for link in text::LINKS {
        note(link, host.link(link, text::LINK_TARGET)?);
    }
    Ok(changed)
}

/// Removes it; the files that were there.
pub fn remove(root: &Path) -> Result<Vec<PathBuf>, GuardError> {
    let host = Host::new(root);
    let mut removed = Vec::new();
    for file in text::LINKS.into_iter().chain([UNIT, RULES]) {
        if host.remove(file)? {
            removed.push(PathBuf::from(file));
        }
    }
    for folder in text::FOLDERS {
        host.remove_if_empty(folder);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
