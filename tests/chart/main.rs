//! The chart and the image without a cluster: what Helm renders, what it refuses, and that texts which
//! are kept twice are the same.
//!
//! In: charts/lanyard, helm from the cache (`make test-cluster` builds it). Out: passed, or the
//! difference. Blocks on helm, promtool, apt. What needs an API server is in tests/cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test says so by panicking"
)]

mod app_service;
#[path = "../cluster/cached.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod cached;
mod capabilities;
mod controller;
mod image;
mod kept_twice;
mod rendered;
mod rights;
mod sources;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the tree.
pub fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The chart's own values.
pub fn values() -> Value {
    yaml(&read("charts/lanyard/values.yaml")).remove(0)
}

/// Documents of a YAML stream, empty ones left out.
pub fn yaml(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    documents.into_iter().filter(|one| !one.is_null()).collect()
}

/// helm, run to its end.
pub fn helm(args: &[&str]) -> Output {
    let done = Command::new(helm_program()).args(args).output();
    done.expect("helm is built by `make test-cluster`, and was not found")
}

/// Where helm is kept.
pub fn helm_program() -> PathBuf {
    cached::helm()
}

/// Standard output of a success.
pub fn text(output: Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The objects that `helm template RELEASE` gives with these further arguments.
pub fn template(release: &str, more: &[&str]) -> Vec<Value> {
    let chart = root().join("charts/lanyard");
    let chart = chart.to_str().unwrap();
    let args = ["template", release, chart, "--namespace", "lanyard-system"];
    yaml(&text(helm(&[&args[..], more].concat())))
}
