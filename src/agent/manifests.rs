//! A folder of YAML manifests as the source of pods and bindings: demo, tests, laptops. The same
//! seam ([`Change`]) that the Kubernetes watch fills; everything behind it is the same code.
//!
//! Event-driven (inotify); a file's change is in force as soon as it is read. A malformed document
//! is reported and counted, its own earlier objects are dropped (fail closed), and all others stay.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher};
use serde_json::Value;
use tokio::sync::mpsc;

use super::world::{Batch, Change};
use crate::api::kind::Kind;
use crate::api::object::{Object, ObjectKey, read};

/// How often it is looked whether another folder has taken the place of the one that is watched.
const CHECK: Duration = Duration::from_secs(1);

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
        let text = std::fs::read_to_string(path).ok()?;
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
            match std::fs::read_to_string(&path) {
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
        let text = std::fs::read_to_string(&path)?;
        found.extend(documents(&text).map(|(number, document)| {
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
    let (wake, mut woken) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event, too: ours would wake us for ever.
        let reading =
            matches!(&event, Ok(event) if event.kind.is_access() && !closed_after_write(event));
        if !reading {
            // One pending wake-up stands for any number of events.
            let _ = wake.try_send(());
        }
    })?;
    watcher.watch(&path, RecursiveMode::NonRecursive)?;
    let (mut folder, mut watched) = (Folder::new(path.clone(), accounts), identity(&path));
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
        loop {
            match tokio::time::timeout(CHECK, woken.recv()).await {
                Ok(None) => anyhow::bail!("the watch on {} ended", path.display()),
                Err(_) if identity(&path) == watched => {}
                Ok(Some(())) | Err(_) => break,
            }
        }
        // A folder that went took its watch along: the one that came needs another. Where it is
        // still the same one this changes nothing.
        watched = identity(&path);
        let _ = watcher.watch(&path, RecursiveMode::NonRecursive);
    }
}

/// Whether it is still the same folder that is at a path.
fn identity(path: &Path) -> Option<(u64, u64, Option<SystemTime>)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.created().ok()))
}

fn closed_after_write(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(
        event.kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
    )
}

#[cfg(test)]
mod tests;
