//! The runtime's bundles: one folder for each container, named by its id.
//!
//! In: the folder of all bundles. Out: the sandboxes that there are, whenever that changes. Blocks on the disk. A bundle's
//! configuration is written after its folder: it is looked for again, soon, and then less often. A folder that is made anew
//! under a name is another bundle, also where nobody saw that the name was gone meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::sandbox::{self, Sandbox};
use crate::kubernetes::folder::Changes;

const CONFIG: &str = "config.json";
/// Pauses between looks at a bundle whose configuration is not there yet.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(2));
/// The longest id that is a container's.
const LONGEST: usize = 128;

/// All bundles.
pub struct Bundles {
    folder: PathBuf,
    changes: Changes,
    /// What is known of each: a sandbox, or something else.
    known: BTreeMap<String, Option<Noticed>>,
    /// Those that could not be read yet.
    unread: BTreeMap<String, Unread>,
    again: Option<Instant>,
}

/// A sandbox, and since when it is known of.
#[derive(Clone, Debug)]
pub struct Noticed {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// When its bundle was first seen.
    pub since: Instant,
}

/// A bundle whose configuration is not there yet.
struct Unread {
    since: Instant,
    /// Before the next look.
    pause: Duration,
}

impl Bundles {
    /// Follows the folder from now on.
    pub fn of(folder: &Path) -> notify::Result<Self> {
        let mut bundles = Self {
            folder: folder.to_owned(),
            changes: Changes::of(folder)?,
            known: BTreeMap::new(),
            unread: BTreeMap::new(),
            again: None,
        };
        bundles.look();
        Ok(bundles)
    }

    /// The sandboxes, by a key that no other has had.
    pub fn sandboxes(&self) -> impl Iterator<Item = (&str, &Noticed)> {
        let known = self.known.iter();
        known.filter_map(|(key, noticed)| Some((key.as_str(), noticed.as_ref()?)))
    }

    /// Whether the sandbox of this key is there.
    pub fn has(&self, key: &str) -> bool {
        self.known.get(key).is_some_and(Option::is_some)
    }

    /// Waits until something may have changed, and looks. May be dropped and called again.
    pub async fn next(&mut self) -> anyhow::Result<()> {
        let again = self.again;
        tokio::select! {
            changed = self.changes.next() => changed?,
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
        self.look();
        Ok(())
    }

    fn look(&mut self) {
        let now = Instant::now();
        let present = match present(&self.folder) {
            Ok(present) => present,
            // That sandboxes are gone must be seen, not taken from a failure.
            Err(error) => {
                tracing::warn!(%error, "the runtime's bundles cannot be read, trying again");
                self.again = Some(now + PAUSES.1);
                return;
            }
        };
        self.known.retain(|key, _| present.contains_key(key));
        self.unread.retain(|key, _| present.contains_key(key));
        for (key, id) in present {
            if self.known.contains_key(&key) {
                continue;
            }
            let text = std::fs::read(self.folder.join(&id).join(CONFIG));
            if let Ok(Ok(sandbox)) = text.map(|text| sandbox::read(&text)) {
                let since = self.unread.remove(&key).map_or(now, |unread| unread.since);
                let noticed = sandbox.map(|sandbox| Noticed { sandbox, since });
                self.known.insert(key, noticed);
            } else {
                let fresh = Unread {
                    since: now,
                    pause: PAUSES.0 / 2,
                };
                let unread = self.unread.entry(key).or_insert(fresh);
                unread.pause = (unread.pause * 2).min(PAUSES.1);
            }
        }
        let pauses = self.unread.values().map(|unread| unread.pause);
        self.again = pauses.min().map(|pause| now + pause);
    }
}

/// The sandboxes that there are now; of a folder that is not there, none.
pub fn now(folder: &Path) -> Vec<Sandbox> {
    let read = |id: &String| std::fs::read(folder.join(id).join(CONFIG)).ok();
    let present = present(folder).unwrap_or_default();
    let texts = present.values().filter_map(read).collect::<Vec<_>>();
    let sandboxes = texts.iter().filter_map(|text| sandbox::read(text).ok()?);
    sandboxes.collect()
}

/// All bundles' names, by what tells a folder from one that has the name after it.
fn present(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let about = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            about => about?,
        };
        let name = entry.file_name().into_string();
        if let Some(name) = name.ok().filter(|name| name.len() <= LONGEST) {
            // File systems use numbers again; not all of them know when a folder was made.
            let made = about.created().ok();
            names.insert(format!("{name} {} {made:?}", about.ino()), name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, id: &str, text: &str) {
        std::fs::create_dir_all(folder.join(id)).unwrap();
        std::fs::write(folder.join(id).join(CONFIG), text).unwrap();
    }

    fn config(uid: &str) -> String {
        format!(
            r#"{{"annotations": {{"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-uid": "{uid}"}},
            "linux": {{"namespaces": [{{"type": "network", "path": "/run/netns/{uid}"}}]}}}}"#
        )
    }

    async fn until(bundles: &mut Bundles, expected: &[&str]) {
        let wait = async {
            loop {
                let uids: Vec<_> = bundles
                    .sandboxes()
                    .map(|(_, one)| one.sandbox.uid.to_string())
                    .collect();
                if uids == expected {
                    return;
                }
                bundles.next().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn sandboxes_come_late_written_and_go() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", &config("one"));
        write(
            folder.path(),
            "b",
            r#"{"annotations": {"io.kubernetes.cri.container-type": "container"}}"#,
        );
        let mut bundles = Bundles::of(folder.path()).unwrap();
        until(&mut bundles, &["one"]).await;
        // First the folder, then half of the file, then all.
        std::fs::create_dir(folder.path().join("c")).unwrap();
        bundles.next().await.unwrap();
        let whole = config("two");
        std::fs::write(folder.path().join("c").join(CONFIG), &whole[..40]).unwrap();
        bundles.next().await.unwrap();
        std::fs::write(folder.path().join("c").join(CONFIG), &whole).unwrap();
        until(&mut bundles, &["one", "two"]).await;
        std::fs::remove_dir_all(folder.path().join("a")).unwrap();
        until(&mut bundles, &["two"]).await;
    }

    #[tokio::test]
    async fn who_has_a_name_next_is_another_one_also_where_nobody_looked_between() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", &config("one"));
        let mut bundles = Bundles::of(folder.path()).unwrap();
        let key = |bundles: &Bundles| bundles.sandboxes().next().unwrap().0.to_owned();
        let before = key(&bundles);
        // What is written into it later makes no other one of it.
        std::fs::write(folder.path().join("a").join("log"), "").unwrap();
        bundles.look();
        assert_eq!(key(&bundles), before);
        for uid in ["two", "two"] {
            let before = key(&bundles);
            std::fs::remove_dir_all(folder.path().join("a")).unwrap();
            write(folder.path(), "a", &config(uid));
            bundles.look();
            assert!(!bundles.has(&before), "{before}");
            until(&mut bundles, &[uid]).await;
        }
    }
}
