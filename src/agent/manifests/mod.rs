//! A folder of YAML manifests as the source of pods and bindings: demo, tests, laptops. The same
//! seam ([`Change`]) that the Kubernetes watch fills; everything behind it is the same code.
//!
//! Event-driven (inotify); a file's change is in force as soon as it is read. A malformed document
//! is reported and counted, its own earlier objects are dropped (fail closed), and all others stay.
//! Secrets are left to `credentials`: here they are passed over unread.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::world::{Batch, Change};
use crate::api::kind::Kind;
use crate::api::object::{Object, ObjectKey, read};
use crate::kubernetes::folder::{Changes, documents, is_secret, manifest_files, value};

/// A document that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Which document of it, from 1; 0 for the file as a whole.
    pub document: usize,
    /// What is wrong.
    pub problem: String,
}

/// The folder, with what was last read from each file.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Whether service accounts count.
    accounts: bool,
    files: BTreeMap<PathBuf, Content>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Content {
    /// Of the text: what differs has another one.
    hash: u64,
    keys: BTreeSet<ObjectKey>,
    problems: Vec<Problem>,
}

impl Content {
    /// The object of that name as this file has it: the last document counts.
    fn read(&self, path: &Path, key: &ObjectKey, accounts: bool) -> Option<Object> {
        if !self.keys.contains(key) {
            return None;
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).ok()?);
        let objects =
            documents(&text).filter_map(|(_, document)| parse(document, accounts).ok()?);
        objects.filter(|object| object.key() == *key).last()
    }
}

impl Folder {
    /// A folder that was not read yet; `accounts`: whether service accounts in it count.
    pub fn new(path: PathBuf, accounts: bool) -> Self {
        Self {
            path,
            accounts,
            files: BTreeMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Reads what differs from last time. Blocks on the disk.
    pub fn reread(&mut self) -> std::io::Result<Batch> {
        let mut batch = Batch {
            complete: true,
            ..Batch::default()
        };
        let now = manifest_files(&self.path)?;
        let gone: Vec<_> = self
            .files
            .keys()
            .filter(|path| !now.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            let content = self.files.remove(&path).unwrap_or_default();
            self.forget(content.keys, &mut batch);
        }
        for path in now {
            match std::fs::read_to_string(&path).map(Zeroizing::new) {
                Ok(text) => self.take(path, &text, &mut batch),
                // Deleted between listing and reading: the next event tells.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "manifest cannot be read");
                    self.take(path, "", &mut batch);
                }
            }
        }
        let malformed = self.files.values().map(|content| content.problems.len());
        batch.malformed = Some(malformed.sum());
        Ok(batch)
    }

    fn take(&mut self, path: PathBuf, text: &str, batch: &mut Batch) {
        let hash = self.hasher.hash_one(text);
        if self
            .files
            .get(&path)
            .is_some_and(|content| content.hash == hash)
        {
            return;
        }
        let before = self.files.remove(&path).unwrap_or_default();
        let mut content = Content {
            hash,
            ..Content::default()
        };
        for (number, document) in documents(text) {
            match parse(document, self.accounts) {
                Ok(Some(object)) => {
                    content.keys.insert(object.key());
                    batch.changes.push(Change::Apply(object));
                }
                Ok(None) => {}
                Err(problem) => {
                    tracing::warn!(file = %path.display(), document = number, problem, "manifest ignored");
                    content.problems.push(Problem {
                        file: path.clone(),
                        document: number,
                        problem,
                    });
                }
            }
        }
        let lost = before.keys.difference(&content.keys).cloned().collect();
        self.files.insert(path, content);
        self.forget(lost, batch);
    }

    /// Deletes what no file holds any more. What another file holds, too, is from now on as that
    /// one says: a grant that was taken away must not outlive its file.
    fn forget(&self, keys: BTreeSet<ObjectKey>, batch: &mut Batch) {
        for key in keys {
            let of_others = self
                .files
                .iter()
                .rev()
                .find_map(|(path, content)| content.read(path, &key, self.accounts));
            batch
                .changes
                .push(of_others.map_or(Change::Delete(key), Change::Apply));
        }
    }
}

fn parse(document: &str, accounts: bool) -> Result<Option<Object>, String> {
    if is_secret(document) {
        return Ok(None);
    }
    let value = value(document)?;
    let text = |field: &str| value.pointer(field).and_then(Value::as_str).unwrap_or("?");
    if !accounts && text("/kind") == Kind::ServiceAccounts.singular() {
        return Ok(None);
    }
    let which = format!("{} {}", text("/kind"), text("/metadata/name"));
    read(value, &version(document)).map_err(|malformed| format!("{which}: {malformed}"))
}

/// Stands in for `resourceVersion`: differs when the document does.
fn version(document: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    document.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Follows a folder: sends what it holds, then every change. Ends when the receiver is gone.
/// `accounts`: whether service accounts count.
pub async fn follow(
    path: PathBuf,
    accounts: bool,
    batches: mpsc::Sender<Batch>,
) -> anyhow::Result<()> {
    let mut folder = Folder::new(path.clone(), accounts);
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
                if batches.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => {
                tracing::error!(folder = %path.display(), %error, "manifests cannot be listed");
            }
        }
        changes.next().await?;
    }
}

#[cfg(test)]
mod tests;
