//! Follows one kind for ever: lists it, watches it from there, begins again where the watch ends.
//!
//! In: the API server. Out: batches of changes. Blocks on the network and on a full channel only.
//! Holds invariant 7: every call has its deadline, and a silent watch is one that has died.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::kind::Read;
use super::mirror::Mirror;
use crate::agent::world::Batch;
use crate::kubernetes::{Cluster, Collection, EventKind, Failure};

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// One page of a list, or the beginning of a watch.
    pub call: Duration,
    /// How long a watch may be silent. The server sends a bookmark about every minute.
    pub silence: Duration,
    /// After which the server ends a watch.
    pub lifetime: Duration,
    /// The first pause after a failure; the next are longer.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(15),
            silence: Duration::from_mins(3),
            lifetime: Duration::from_mins(5),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(8),
        }
    }
}

/// Follows one kind.
pub struct Follower {
    /// The API server.
    pub cluster: Cluster,
    /// Which objects.
    pub collection: Collection,
    /// What was heard of them.
    pub mirror: Mirror,
    /// Where changes go.
    pub batches: mpsc::Sender<Batch>,
    /// How many kinds were never listed.
    pub unlisted: Arc<AtomicUsize>,
    /// Deadlines and pauses.
    pub timing: Timing,
}

/// Nobody takes changes any more.
#[derive(Debug)]
struct Unheard;

impl Follower {
    /// Follows until nobody takes changes any more.
    pub async fn run(mut self) {
        let _: Result<(), Unheard> = self.follow().await;
    }

    async fn follow(&mut self) -> Result<(), Unheard> {
        let mut pause = Pause::new(self.timing);
        let mut listed = false;
        loop {
            let version = match self.list().await {
                Ok((all, version)) => {
                    let changes = self.mirror.replace(all);
                    let last = !listed && self.unlisted.fetch_sub(1, Ordering::AcqRel) == 1;
                    listed = true;
                    self.send(changes, last).await?;
                    version
                }
                Err(failure) => {
                    self.trouble(&failure);
                    pause.wait().await;
                    continue;
                }
            };
            self.watch(version, &mut pause).await?;
        }
    }

    /// All objects and the version from which to watch.
    async fn list(&self) -> Result<(Vec<Read>, String), Failure> {
        let (mut all, mut from) = (Vec::new(), String::new());
        loop {
            let page = self.cluster.page(&self.collection, &from, self.timing.call);
            let page = page.await?;
            let items = page.items()?;
            for item in items.items {
                match self.mirror.kind().read(item) {
                    Ok(read) => all.push(read),
                    Err(problem) => {
                        tracing::warn!(kind = self.mirror.kind().as_str(), %problem, "object ignored");
                    }
                }
            }
            if items.metadata.next.is_empty() {
                return Ok((all, items.metadata.resource_version));
            }
            from = items.metadata.next;
        }
    }

    /// Watches, again and again, until it must be listed anew.
    async fn watch(&mut self, mut version: String, pause: &mut Pause) -> Result<(), Unheard> {
        loop {
            let begun = Instant::now();
            let Timing { lifetime, call, .. } = self.timing;
            let watch = self
                .cluster
                .watch(&self.collection, &version, lifetime, call);
            let failure = match watch.await {
                Ok(mut events) => loop {
                    match events.next(self.timing.silence).await {
                        Ok(Some(event)) => {
                            pause.reset();
                            let changes = match self.mirror.kind().read(event.object) {
                                Err(problem) => {
                                    tracing::warn!(kind = self.mirror.kind().as_str(), %problem, "event ignored");
                                    continue;
                                }
                                Ok(read) => {
                                    version = read.version.to_string();
                                    match event.kind {
                                        EventKind::Added | EventKind::Modified => {
                                            self.mirror.take(read)
                                        }
                                        EventKind::Deleted => {
                                            self.mirror.delete(&read.name, read.version)
                                        }
                                        EventKind::Bookmark | EventKind::Error => None,
                                    }
                                }
                            };
                            if let Some(change) = changes {
                                self.send(vec![change], false).await?;
                            }
                        }
                        Ok(None) => break None,
                        Err(failure) => break Some(failure),
                    }
                },
                Err(failure) => Some(failure),
            };
            match failure {
                None if begun.elapsed() > Duration::from_secs(1) => {}
                None => pause.wait().await,
                Some(Failure::Refused { status: 410, .. }) => return Ok(()),
                Some(failure) => {
                    self.trouble(&failure);
                    pause.wait().await;
                    if matches!(failure, Failure::Refused { .. } | Failure::Nonsense(_)) {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn send(
        &self,
        changes: Vec<crate::agent::world::Change>,
        complete: bool,
    ) -> Result<(), Unheard> {
        let batch = Batch {
            changes,
            malformed: None,
            complete,
        };
        self.batches.send(batch).await.map_err(|_| Unheard)
    }

    fn trouble(&self, failure: &Failure) {
        let kind = self.mirror.kind();
        tracing::warn!(kind = kind.as_str(), %failure, "cannot be watched; trying again");
    }
}

/// Growing pauses, each with chance in it: nodes must not come all at once.
struct Pause {
    timing: Timing,
    next: Duration,
}

impl Pause {
    fn new(timing: Timing) -> Self {
        Self {
            timing,
            next: timing.first_pause,
        }
    }

    fn reset(&mut self) {
        self.next = self.timing.first_pause;
    }

    async fn wait(&mut self) {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.timing.longest_pause);
        tokio::time::sleep(pause).await;
    }
}
