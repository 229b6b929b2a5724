//! When a folder of manifests may have changed.
//!
//! In: the kernel's events (inotify). Out: a wake-up after any number of changes. Holds that a folder
//! that another one takes the place of is watched again: it is looked for each second.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How often it is looked whether another folder has taken the place of the one that is watched.
const CHECK: Duration = Duration::from_secs(1);

/// A watch on a folder.
pub struct Changes {
    path: PathBuf,
    watcher: RecommendedWatcher,
    woken: mpsc::Receiver<()>,
    watched: Option<Identity>,
}

type Identity = (u64, u64, Option<SystemTime>);

impl Changes {
    /// Watches from now on.
    pub fn of(path: &Path) -> notify::Result<Self> {
        let (wake, woken) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(
            move |event: notify::Result<notify::Event>| {
                // Reading a file is an event, too: ours would wake us for ever.
                let reading = matches!(&event, Ok(event) if event.kind.is_access() && !closed_after_write(event));
                if !reading {
                    // One pending wake-up stands for any number of events.
                    let _ = wake.try_send(());
                }
            },
        )?;
        watcher.watch(path, RecursiveMode::NonRecursive)?;
        Ok(Self {
            path: path.to_owned(),
            watcher,
            woken,
            watched: identity(path),
        })
    }

    /// Waits until something may have changed. May be dropped and called again.
    pub async fn next(&mut self) -> anyhow::Result<()> {
        loop {
            match tokio::time::timeout(CHECK, self.woken.recv()).await {
                Ok(None) => anyhow::bail!("the watch on {} ended", self.path.display()),
                Err(_) if identity(&self.path) == self.watched => {}
                Ok(Some(())) | Err(_) => break,
            }
        }
        // A folder that went took its watch along: the one that came needs another. Where it is
        // still the same one this changes nothing.
        self.watched = identity(&self.path);
        let _ = self.watcher.watch(&self.path, RecursiveMode::NonRecursive);
        Ok(())
    }
}

/// Whether it is still the same folder that is at a path.
fn identity(path: &Path) -> Option<Identity> {
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
