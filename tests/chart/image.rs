//! The image archive: same in, same out, and in the forms that engines load.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{root, text};

/// Builds with a binary that `make image` left, in a folder of its own.
fn build(binary: &Path, out: &Path) -> Vec<u8> {
    let build = Command::new(root().join("deploy/image/build"))
        .args(["amd64", "--binary"])
        .args([binary, Path::new("--out"), out])
        .output();
    text(build.unwrap());
    std::fs::read(out.join("lanyard-amd64.tar")).unwrap()
}

/// A file of a tar archive.
fn member(archive: &Path, name: &str) -> Vec<u8> {
    let tar = Command::new("tar")
        .arg("-xOf")
        .args([archive, Path::new(name)])
        .output()
        .unwrap();
    assert!(
        tar.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&tar.stderr)
    );
    tar.stdout
}

#[test]
fn two_builds_are_bit_equal_and_both_forms_name_the_same_layers() {
    let binary = root().join("target/x86_64-unknown-linux-gnu/release/lanyard");
    assert!(binary.exists(), "`make image` comes before this test");
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(
        build(&binary, one.path()) == build(&binary, two.path()),
        "the two archives differ"
    );

    let archive = one.path().join("lanyard-amd64.tar");
    let json = |name: &str| -> Value { serde_json::from_slice(&member(&archive, name)).unwrap() };
    let path = |digest: &Value| digest.as_str().unwrap().replace("sha256:", "blobs/sha256/");
    let index = &json("index.json")["manifests"][0];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        index["annotations"]["io.containerd.image.name"],
        format!("docker.io/library/lanyard:{version}")
    );
    let manifest = json(&path(&index["digest"]));
    let docker = &json("manifest.json")[0];
    assert_eq!(docker["RepoTags"][0], format!("lanyard:{version}"));
    assert_eq!(docker["Config"], path(&manifest["config"]["digest"]));
    let layers: Vec<String> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| path(&layer["digest"]))
        .collect();
    assert_eq!(docker["Layers"], serde_json::json!(layers));
    let config = json(&path(&manifest["config"]["digest"]));
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/local/bin/lanyard");
    assert_eq!(
        config["config"]["Labels"]["org.opencontainers.image.version"],
        version
    );
}
