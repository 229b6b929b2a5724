//! The images that tests start from: a pause image and a small Debian with a shell and curl.
//!
//! In: the cache folder. Out: a prepared containerd root, copied to each node. Blocks on a package
//! download and an import the first time. Invariant: a prepared root is in the cache whole or not at
//! all, under a name that changes with what it is made of.

pub mod archive;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::node_files::PAUSE;
use crate::process;

/// A small Debian: `sh`, coreutils, curl, certificates.
pub const BASE: &str = "lanyard.test/base:1";
const PACKAGES: &str = "dash,coreutils,grep,sed,curl,ca-certificates";
/// Goes up when the making changes in a way that the other parts of the key do not show.
const FORMAT: &str = "2";
const IMPORT: &str = include_str!("import.sh");
const PAUSE_C: &str = include_str!("pause.c");

/// Makes the prepared root unless it is there.
pub async fn ensure(cache: &Path) -> Result<PathBuf> {
    let made_of = [PACKAGES, PAUSE_C, IMPORT, PAUSE, BASE, FORMAT].concat();
    let key: String = archive::sha256(made_of.as_bytes())
        .chars()
        .take(12)
        .collect();
    let root = cache.join(format!("images-{key}"));
    if root.exists() {
        return Ok(root);
    }
    eprintln!("cluster: making the base image, once, usually 30 s");
    let draft = cache.join(format!(".images-{}", std::process::id()));
    std::fs::create_dir_all(&draft)?;
    let made = make(&draft).await;
    let outcome = made.and_then(|made| Ok(std::fs::rename(made, &root)?));
    std::fs::remove_dir_all(&draft)?;
    outcome.map(|()| root)
}

async fn make(dir: &Path) -> Result<PathBuf> {
    let pause = pause(dir).await?;
    let base = base(dir).await?;
    let root = dir.join("root");
    let text = [&root, &pause, &base].map(|path| path.to_string_lossy().into_owned());
    let mut args = vec![
        "--mount",
        "--pid",
        "--net",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        IMPORT,
        "import",
    ];
    args.extend(text.iter().map(String::as_str));
    process::output("unshare", &args).await?;
    Ok(root)
}

async fn pause(dir: &Path) -> Result<PathBuf> {
    let source = dir.join("pause.c");
    std::fs::write(&source, PAUSE_C)?;
    let files = dir.join("pause");
    std::fs::create_dir(&files)?;
    let program = files.join("pause");
    let [from, to] = [&source, &program].map(|path| path.to_string_lossy().into_owned());
    process::output("cc", &["-static", "-Os", "-s", "-o", &to, &from]).await?;
    archive::write(PAUSE, &files, &["/pause"], dir).await
}

async fn base(dir: &Path) -> Result<PathBuf> {
    let files = dir.join("base");
    let suite = suite()?;
    let modern = Path::new("/etc/apt/sources.list.d/debian.sources");
    let sources = if modern.exists() {
        modern
    } else {
        Path::new("/etc/apt/sources.list")
    };
    let (to, sources) = (files.to_string_lossy(), sources.to_string_lossy());
    let include = format!("--include={PACKAGES}");
    let args = [
        "--quiet",
        "--variant=extract",
        "--format=directory",
        &include,
        &suite,
        &to,
        &sources,
    ];
    process::output("mmdebstrap", &args).await?;
    // What the packages' scripts would have done.
    if !files.join("bin/sh").exists() {
        std::os::unix::fs::symlink("dash", files.join("bin/sh"))?;
    }
    let mut bundle = Vec::new();
    for entry in std::fs::read_dir(files.join("usr/share/ca-certificates/mozilla"))? {
        bundle.extend(std::fs::read(entry?.path())?);
        bundle.push(b'\n');
    }
    std::fs::create_dir_all(files.join("etc/ssl/certs"))?;
    std::fs::write(files.join("etc/ssl/certs/ca-certificates.crt"), bundle)?;
    let people = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    std::fs::write(files.join("etc/passwd"), people)?;
    std::fs::write(files.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    std::fs::create_dir_all(files.join("tmp"))?;
    for rest in [
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "var/cache",
        "var/lib/apt",
    ] {
        let path = files.join(rest);
        if path.exists() {
            std::fs::remove_dir_all(path)?;
        }
    }
    archive::write(BASE, &files, &["/bin/sh"], dir).await
}

/// The machine's Debian release: its mirror is known to work.
fn suite() -> Result<String> {
    let release = std::fs::read_to_string("/etc/os-release")?;
    let lines = release.lines();
    let mut names = lines.filter_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = names
        .next()
        .context("/etc/os-release has no VERSION_CODENAME")?;
    Ok(name.trim_matches('"').to_owned())
}

/// Copies the prepared root to a node: hard links where that is possible, true copies of what is
/// written to in place.
pub async fn copy(prepared: &Path, to: &Path) -> Result<()> {
    let script = "mkdir -p \"$2\"; cp -al \"$1/.\" \"$2/\" 2>/dev/null || { rm -rf \"$2\"; cp -a \"$1\" \"$2\"; }
        find \"$2\" -name '*.db' -exec sh -c 'cp -p \"$1\" \"$1.own\" && mv \"$1.own\" \"$1\"' own {} \\;";
    let [prepared, to] = [prepared, to].map(|path| path.to_string_lossy().into_owned());
    process::output("sh", &["-ec", script, "copy", &prepared, &to])
        .await
        .map(drop)
}
