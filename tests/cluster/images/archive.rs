//! Image archives in the format that docker, podman and containerd load ("docker save").
//!
//! In: a folder that is to be the root file system. Out: a tar file. Blocks on `tar`. Invariant:
//! one layer; files belong to root.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use aws_lc_rs::digest;
use serde_json::json;

use crate::process;

/// Writes an archive of `files` under the image's `name` into `dir`.
pub async fn write(name: &str, files: &Path, command: &[&str], dir: &Path) -> Result<PathBuf> {
    let plain = name.replace(['/', ':', '.'], "-");
    let parts = dir.join(&plain);
    std::fs::create_dir_all(&parts)?;
    let layer = parts.join("layer.tar");
    tar(&layer, files, &["."]).await?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&std::fs::read(&layer)?))]},
    });
    std::fs::write(parts.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    std::fs::write(parts.join("manifest.json"), manifest.to_string())?;
    let archive = dir.join(format!("{plain}.tar"));
    tar(
        &archive,
        &parts,
        &["manifest.json", "config.json", "layer.tar"],
    )
    .await?;
    Ok(archive)
}

async fn tar(to: &Path, from: &Path, what: &[&str]) -> Result<()> {
    let (to, from) = (to.to_string_lossy(), from.to_string_lossy());
    let args = [
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "-cf",
        &to,
        "-C",
        &from,
    ];
    process::output("tar", &[&args[..], what].concat())
        .await
        .map(drop)
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA256, bytes);
    let mut text = String::new();
    for byte in sum.as_ref() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
