//! Where the programs are that are built once: outside of the tree, by version.
//!
//! In: `LANYARD_CACHE`, or the user's own cache folder; `programs/go.mod` for the version. Out: paths.
//! Whether anything is there is for whoever asks to see. All test programs that need Kubernetes or
//! helm have this file.

use std::path::PathBuf;

/// Helm's version.
pub const HELM: &str = "4.3.1";

/// The folder with all of them.
pub fn folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_default().join(".cache/lanyard");
    variable("LANYARD_CACHE").unwrap_or_else(home)
}

/// The folder with Kubernetes' programs and kubectl.
pub fn kubernetes() -> PathBuf {
    let version = pinned("k8s.io/kubernetes v").unwrap_or_default();
    folder().join(format!("kubernetes-{version}/bin"))
}

/// helm itself.
pub fn helm() -> PathBuf {
    folder().join(format!("helm-{HELM}/bin/helm"))
}

/// What stands behind `key` at the beginning of a line of go.mod.
pub fn pinned(key: &str) -> Option<&'static str> {
    let lines = include_str!("programs/go.mod").lines();
    let mut values = lines.filter_map(|line| {
        line.trim()
            .trim_start_matches("require ")
            .strip_prefix(key)?
            .split_whitespace()
            .next()
    });
    values.next()
}
