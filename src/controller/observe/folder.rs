//! A folder of manifests in the API server's place: the same readers and the same batches.
//!
//! In: documents of pods, nodes, namespaces and our kinds. Out: batches, each `complete`: a folder is
//! always read as a whole. Blocks on the disk and on a full channel. Holds that what cannot be read is
//! told and harms no other, and that an edit that changes nothing that counts is no change.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::reader::{FOLLOWED, Observed};
use crate::api::API_VERSION;
use crate::api::kind::Kind;
use crate::controller::world::{Batch, Change};
use crate::kubernetes::folder::{Changes, documents_of};
use crate::kubernetes::watch::{Mirror, Read};
use crate::model::ids::ObjectName;
use crate::serve::ready::Latch;

/// A folder, with what was last read from it.
struct Folder {
    path: PathBuf,
    mirrors: Vec<Mirror<Observed>>,
    /// Problems that were told.
    told: BTreeSet<String>,
}

impl Folder {
    fn new(path: &Path, counts_hosts: bool) -> Self {
        let mirror = |kind| Mirror::new(Observed::new(kind, counts_hosts));
        Self {
            path: path.to_owned(),
            mirrors: FOLLOWED.into_iter().map(mirror).collect(),
            told: BTreeSet::new(),
        }
    }

    /// What differs from last time.
    fn reread(&mut self) -> std::io::Result<Batch> {
        let (mut objects, mut problems) = (Vec::new(), BTreeSet::new());
        for document in documents_of(&self.path)? {
            match document {
                Ok(document) => objects.extend(followed(document)),
                Err(problem) => {
                    problems.insert(problem);
                }
            }
        }
        let mut changes = Vec::new();
        for mirror in &mut self.mirrors {
            // Of two documents with one name the last one counts, as for the agent.
            let mut read: BTreeMap<ObjectName, Read<Change>> = BTreeMap::new();
            let kind = mirror.kind();
            for (_, object) in objects.iter().filter(|(of, _)| *of == kind) {
                let text = to_raw_value(object).map_err(std::io::Error::other)?;
                match mirror.read(&text) {
                    Ok(one) => drop(read.insert(one.name.clone(), one)),
                    Err(problem) => {
                        problems.insert(format!("a {}: {problem}", kind.singular()));
                    }
                }
            }
            changes.extend(mirror.replace(read.into_values().collect()));
        }
        for problem in problems.difference(&self.told) {
            tracing::warn!(folder = %self.path.display(), problem, "manifest ignored");
        }
        self.told = problems;
        Ok(Batch {
            changes,
            complete: true,
        })
    }
}

/// A document of a kind that is followed, with the metadata that an API server would have filled in.
fn followed(mut document: Value) -> Option<(Kind, Value)> {
    let text = |field: &str| document.get(field).and_then(Value::as_str);
    let (version, singular) = (text("apiVersion")?, text("kind")?);
    let kind = FOLLOWED.into_iter().find(|kind| {
        let of = if kind.is_ours() { API_VERSION } else { "v1" };
        kind.singular() == singular && of == version
    })?;
    let whole = hash(&document);
    let spec = hash(document.get("spec").unwrap_or(&Value::Null));
    let metadata = document.get_mut("metadata")?.as_object_mut()?;
    if matches!(kind, Kind::Pods | Kind::Identities | Kind::Bindings) {
        metadata
            .entry("namespace")
            .or_insert_with(|| json!("default"));
    }
    metadata.insert("resourceVersion".to_owned(), json!(whole.to_string()));
    // Another one for another spec: nobody here compares which is greater.
    metadata.insert("generation".to_owned(), json!(spec >> 33));
    Some((kind, document))
}

/// Not 0, which stands for "unknown".
fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish().max(1)
}

/// Follows a folder until nobody takes batches any more.
pub async fn follow(
    path: PathBuf,
    counts_hosts: bool,
    batches: mpsc::Sender<Batch>,
    latch: Latch,
) -> anyhow::Result<()> {
    let mut folder = Folder::new(&path, counts_hosts);
    let mut changes = Changes::of(&path)?;
    loop {
        let (back, batch) = tokio::task::spawn_blocking(move || {
            let batch = folder.reread();
            (folder, batch)
        })
        .await?;
        folder = back;
        match batch {
            Ok(batch) => {
                latch.ready();
                if batches.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            // A file that went between listing and reading: its going is an event, too.
            Err(error) => {
                tracing::warn!(folder = %path.display(), %error, "manifests cannot be read");
                latch.not_ready(error.to_string());
            }
        }
        changes.next().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/n";

    fn kinds(batch: &Batch) -> Vec<Kind> {
        assert!(batch.complete);
        batch.changes.iter().map(Change::kind).collect()
    }

    #[test]
    fn a_folder_is_observed_like_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        write(
            "a.yaml",
            &format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: n}}\nspec: {{providerID: 'azure://{NODE}'}}\n---\n\
                 apiVersion: v1\nkind: Namespace\nmetadata: {{name: a, labels: {{x: y}}}}\n---\n\
                 apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{nodeName: n}}\n---\n\
                 apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\n---\nkind: [broken\n"
            ),
        );
        let mut folder = Folder::new(dir.path(), false);
        let first = folder.reread().unwrap();
        assert_eq!(kinds(&first), [Kind::Pods, Kind::Namespaces, Kind::Nodes]);
        assert_eq!(folder.told.len(), 1);
        let Change::Pod(name, Some(pod)) = &first.changes[0] else {
            panic!("{first:?}")
        };
        assert_eq!((&*name.namespace, &*pod.node), ("default", "n"));
        assert_eq!(kinds(&folder.reread().unwrap()), []);
        write(
            "b.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: q, annotations: {x: y}}\nspec: {nodeName: n}\n",
        );
        assert_eq!(kinds(&folder.reread().unwrap()), [Kind::Pods]);
        write(
            "b.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: q}\nspec: {nodeName: n}\n",
        );
        assert_eq!(
            kinds(&folder.reread().unwrap()),
            [],
            "only metadata were edited"
        );
        std::fs::remove_file(dir.path().join("b.yaml")).unwrap();
        let gone = folder.reread().unwrap();
        assert!(
            matches!(&gone.changes[..], [Change::Pod(_, None)]),
            "{gone:?}"
        );
    }
}
