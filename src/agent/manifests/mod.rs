//! A folder of YAML manifests as the source of pods and bindings: demo, tests, laptops. The same
//! seam ([`Change`]) that the Kubernetes watch fills; everything behind it is the same code.
//!
//! Event-driven (inotify); a file's change is in force as soon as it is read. A malformed document
//! is reported and counted, its own earlier objects are dropped (fail closed), and all others stay.
//! Secrets are left to `credentials`: here they are passed over unread.

mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::world::{Batch, Change};
use crate::api::kind::Kind;
use crate::api::object::{Object, ObjectKey, read};
pub use changes::Changes;

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

/// All documents of a folder as they are now; what cannot be read as YAML is told in a sentence.
pub fn documents_of(folder: &Path) -> std::io::Result<Vec<Result<Value, String>>> {
    let mut found = Vec::new();
    for path in manifest_files(folder)? {
        let text = Zeroizing::new(std::fs::read_to_string(&path)?);
        let documents = documents(&text).filter(|(_, document)| !is_secret(document));
        found.extend(documents.map(|(number, document)| {
            value(document)
                .map_err(|problem| format!("{}, document {number}: {problem}", path.display()))
        }));
    }
    Ok(found)
}

fn manifest_files(folder: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let manifest = path
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        if manifest && !hidden && path.is_file() {
            files.insert(path);
        }
    }
    Ok(files)
}

/// The documents of a file with their numbers, split at `---` lines so that a broken one does not
/// take the others along.
fn documents(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some(text);
    let split = std::iter::from_fn(move || {
        let text = rest?;
        let border = text.match_indices("---").find(|(at, _)| {
            let line_start = *at == 0 || text.as_bytes()[at - 1] == b'\n';
            let after = text.as_bytes().get(at + 3);
            line_start && after.is_none_or(u8::is_ascii_whitespace)
        });
        let (document, remaining) =
            border.map_or((text, None), |(at, _)| (&text[..at], Some(&text[at + 3..])));
        rest = remaining;
        Some(document)
    });
    let has_content = |document: &&str| {
        let mut lines = document.lines().map(str::trim);
        lines.any(|line| !line.is_empty() && !line.starts_with('#'))
    };
    split
        .filter(has_content)
        .enumerate()
        .map(|(at, document)| (at + 1, document))
}

fn value(document: &str) -> Result<Value, String> {
    // `app: y` is a label, not `true`.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(document, options).map_err(|error| error.to_string())
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

/// Calls `each` with every document of a folder that is a Secret. Their texts are wiped afterwards.
pub fn secret_documents(folder: &Path, mut each: impl FnMut(&str)) -> std::io::Result<()> {
    for path in manifest_files(folder)? {
        match std::fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => {
                let secrets = documents(&text).filter(|(_, document)| is_secret(document));
                secrets.for_each(|(_, document)| each(document));
            }
            // Deleted between listing and reading, or told where the other documents are read.
            Err(error) => tracing::debug!(file = %path.display(), %error, "manifest skipped"),
        }
    }
    Ok(())
}

/// Whether a document is a Secret, whose text must not be kept or quoted.
fn is_secret(document: &str) -> bool {
    let mut kinds = document.match_indices("kind");
    let may_be = kinds.any(|(at, kind)| {
        let blank = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
        let rest = document[at + kind.len()..].trim_start_matches(blank);
        let rest = rest
            .strip_prefix(':')
            .map(|rest| rest.trim_start_matches(blank));
        rest.is_some_and(|rest| rest.starts_with("Secret"))
    });
    // An owner of another object may be one.
    may_be && serde_saphyr::from_str(document).map_or(true, |OfKind { kind }| kind == "Secret")
}

#[derive(Deserialize)]
struct OfKind {
    kind: String,
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
