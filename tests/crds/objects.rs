//! The good and the bad objects beside this file, as cases: what is applied, and what is to become
//! of it. Read by the tests that judge without a server and by those that ask one.
//!
//! `good/*.yaml` are manifests. `bad/*.yaml` and `later/*.yaml` are tables, a file for each kind: the
//! spec, the field that is refused (`at`, without list indices; empty for the object as a whole)
//! and the words; with `was`, the spec is an update of that one, which only a server can judge.
//! What is in `later` a server takes and this version of the agent refuses.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

/// Kinds by plural name; the namespaced ones have one.
pub const KINDS: [(&str, &str, bool); 5] = [
    ("azureassignments", "AzureAssignment", false),
    ("azureidentities", "AzureIdentity", true),
    ("azureidentitybindings", "AzureIdentityBinding", true),
    ("azureidentitypolicies", "AzureIdentityPolicy", false),
    ("azuremetadataexceptions", "AzureMetadataException", false),
];

/// A line of a table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    at: String,
    refused: String,
    name: Option<String>,
    was: Option<Value>,
    spec: Value,
}

/// An object that is refused.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "not every reader needs every field")]
pub struct Bad {
    /// Plural name of its kind.
    pub plural: &'static str,
    /// The field, without list indices.
    pub at: String,
    /// The words.
    pub refused: String,
    /// What it is an update of.
    pub was: Option<Value>,
    /// The object.
    pub object: Value,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the project.
pub fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The YAML documents of a text.
pub fn documents(text: &str) -> Vec<Value> {
    let documents = format!("\n{text}");
    let documents = documents.split("\n---");
    let has_content = |text: &&str| {
        let mut lines = text.lines().map(str::trim);
        lines.any(|line| !line.is_empty() && !line.starts_with('#'))
    };
    documents
        .filter(has_content)
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
        .collect()
}

/// The good objects, and the examples that people read.
pub fn good() -> Vec<Value> {
    let mut texts: Vec<String> = KINDS
        .iter()
        .map(|(plural, ..)| text(format!("tests/crds/good/{plural}.yaml")))
        .collect();
    for page in ["docs/api.md", "README.md"] {
        texts.extend(examples(&text(page)));
    }
    texts.push(text("deploy/demo/manifests.yaml"));
    let documents = texts.iter().flat_map(|text| documents(text));
    documents.filter(is_ours).collect()
}

/// The YAML blocks of a page that hold objects of ours.
pub fn examples(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1);
    let block = |text: &str| text.split("```").next().unwrap_or_default().to_owned();
    let ours = |text: &String| text.contains("apiVersion: lanyard.dev/");
    blocks.map(block).filter(ours).collect()
}

fn is_ours(document: &Value) -> bool {
    document["apiVersion"] == "lanyard.dev/v1alpha1"
}

/// The bad objects.
pub fn bad() -> Vec<Bad> {
    table("bad")
}

/// What a server takes and the agent refuses: for this version, or until the controller said more.
pub fn later() -> Vec<Bad> {
    table("later")
}

fn table(folder: &str) -> Vec<Bad> {
    let mut all = Vec::new();
    for (plural, kind, namespaced) in KINDS {
        let file: PathBuf = format!("tests/crds/{folder}/{plural}.yaml").into();
        if !root().join(&file).is_file() {
            continue;
        }
        let lines: Vec<Line> = serde_saphyr::from_str(&text(&file))
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for line in lines {
            let name = line.name.as_deref().unwrap_or("x");
            let object = |spec: Value| {
                let mut metadata = json!({"name": name});
                if namespaced {
                    metadata["namespace"] = json!("shop");
                }
                json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
            };
            all.push(Bad {
                plural,
                object: object(line.spec.clone()),
                was: line.was.clone().map(object),
                at: line.at,
                refused: line.refused,
            });
        }
    }
    assert!(all.len() > 2, "too little in tests/crds/{folder}");
    all
}
