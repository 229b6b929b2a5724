//! The checkpoint: what an agent that restarts while the API server is away goes on with.
//!
//! In: what the index knows, when it has changed. Out: a file that only root reads, replaced whole, at
//! most once a second; or its content at the next start. Blocks on the local disk, in a thread for it.
//! Holds invariant 7, and invariant 4: nothing in it is secret.

mod content;
mod format;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use content::Content;
pub use format::{Checkpoint, Here, Refused};

use super::watch::Health;

/// The file's name in the state directory.
const NAME: &str = "checkpoint";
/// Between two writes of something new.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two writes that only say that all is as it was.
const RENEWAL: Duration = Duration::from_mins(1);

/// Why there is no checkpoint to go on with.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Others may have written it.
    #[error("it is not a file of root's alone (owner {owner}, mode {mode:o})")]
    Exposed {
        /// Owner's user id.
        owner: u32,
        /// Permission bits.
        mode: u32,
    },
    /// It is larger than any that we write.
    #[error("it has {0} bytes")]
    Large(u64),
    /// It does not count here.
    #[error("{0}")]
    Refused(#[from] Refused),
}

/// The checkpoint of one node.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    here: Here,
}

impl Store {
    /// In `dir`, for this boot, this network namespace and `node`.
    pub fn new(dir: &Path, node: &str) -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            dir: dir.to_owned(),
            here: Here {
                boot: boot.trim().to_owned(),
                network: fs::metadata("/proc/self/ns/net")?.ino(),
                node: node.to_owned(),
            },
        })
    }

    /// What was kept, and how old it is. `None` where nothing was. Blocks on the disk.
    pub fn load(&self) -> Result<Option<(Content, Duration)>, LoadError> {
        let mut file = match OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(self.dir.join(NAME))
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let meta = file.metadata()?;
        let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
        if !meta.is_file() || owner != nix::unistd::geteuid().as_raw() || mode & 0o077 != 0 {
            return Err(LoadError::Exposed { owner, mode });
        }
        if meta.len() > format::LARGEST as u64 {
            return Err(LoadError::Large(meta.len()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let checkpoint = format::decode(&bytes, &self.here)?;
        let age = uptime()?.saturating_sub(checkpoint.heard);
        Ok(Some((checkpoint.content, age)))
    }

    /// Replaces the file. Blocks on the disk.
    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let unfinished = self.dir.join(format!("{NAME}.new"));
        let _ = fs::remove_file(&unfinished);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, self.dir.join(NAME))?;
        File::open(&self.dir)?.sync_all()
    }

    fn encode(&self, content: &Content, age: Duration) -> io::Result<Vec<u8>> {
        let bytes = format::encode(&Checkpoint {
            here: self.here.clone(),
            heard: uptime()?.saturating_sub(age),
            content: content.clone(),
        })?;
        if bytes.len() > format::LARGEST {
            return Err(io::Error::other(format!(
                "{} bytes are too many",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// Keeps the file as new as what comes, until nobody sends any more.
    pub async fn keep(self, mut contents: watch::Receiver<Arc<Content>>, health: Arc<Health>) {
        let mut written: Option<Arc<Content>> = None;
        // When it was last looked, and when it was last written.
        let (mut at, mut saved) = (Instant::now(), Instant::now());
        let mut failing = false;
        // Nothing is written before something was known: what a process before this one left counts on.
        let mut known = false;
        loop {
            let renewal = tokio::time::timeout_at(saved + RENEWAL, contents.changed());
            let is_news = match renewal.await {
                Ok(Ok(())) => true,
                Ok(Err(_)) => return,
                Err(_) => false,
            };
            known |= is_news;
            if is_news {
                tokio::time::sleep_until(at + PAUSE).await;
            }
            let content = contents.borrow_and_update().clone();
            at = Instant::now();
            let same = written.as_ref().is_some_and(|before| **before == *content);
            if same && saved.elapsed() < RENEWAL {
                continue;
            }
            saved = at;
            if !known {
                continue;
            }
            let (store, age) = (self.clone(), health.state_age());
            let saving = tokio::task::spawn_blocking({
                let content = content.clone();
                move || store.save(&store.encode(&content, age)?)
            });
            match saving.await.map_err(io::Error::other).flatten() {
                Ok(()) => (written, failing) = (Some(content), false),
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, dir = %self.dir.display(), "the checkpoint cannot be written: an agent that restarts while the API server is away would know no pod");
                    }
                    failing = true;
                }
            }
        }
    }
}

/// Time since boot, suspension included: the same for all processes of a boot, and never set.
fn uptime() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split(' ').next().and_then(|first| first.parse().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| io::Error::other("/proc/uptime cannot be read"))
}

#[cfg(test)]
mod tests;
