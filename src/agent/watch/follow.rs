//! Follows one kind for ever: lists it, watches it from there, begins again where the watch ends.
//!
//! In: the API server. Out: batches of changes. Blocks on the network and on a full channel only.
//! Holds invariant 7: every call has its deadline, and a silent watch is one that has died.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Timing;
use super::health::Health;
use super::kind::{Kind, Read, Version};
use super::lookup::Answer;
use super::metrics::{Restart, WatchMetrics};
use super::mirror::Mirror;
use super::pause::Pause;
use crate::agent::world::{Batch, Change};
use crate::kubernetes::{Cluster, Collection, Event, EventKind, Events, Failure, PAGE};

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
    /// Pods that were asked for.
    pub answers: Option<mpsc::Receiver<Answer>>,
    /// Changes when the API server is back.
    pub back: watch::Receiver<u64>,
    /// Who is told how it goes.
    pub health: Arc<Health>,
    /// The series.
    pub metrics: WatchMetrics,
    /// Deadlines and pauses.
    pub timing: Timing,
}

/// Nobody takes changes any more.
#[derive(Debug)]
struct Unheard;

/// Why a watch is not read any further.
enum End {
    /// The server ended it, as it does after its time.
    Over,
    /// The API server was away: what is left of the connection counts for nothing.
    Interrupted,
    /// It failed.
    Failed(Failure),
}

impl Follower {
    /// Follows until nobody takes changes any more.
    pub async fn run(mut self) {
        let _: Result<(), Unheard> = self.follow().await;
    }

    async fn follow(&mut self) -> Result<(), Unheard> {
        let mut pause = Pause::new(self.timing);
        let mut listed = false;
        loop {
            match self.list().await {
                Ok((all, version)) => {
                    let changes = self.mirror.replace(all);
                    let last = !listed && self.unlisted.fetch_sub(1, Ordering::AcqRel) == 1;
                    listed = true;
                    self.heard();
                    self.send(changes, last).await?;
                    self.watch(version, &mut pause).await?;
                }
                Err(failure) => self.trouble(&failure),
            }
            pause.wait(&mut self.back).await;
        }
    }

    /// All objects and the version from which to watch.
    async fn list(&self) -> Result<(Vec<Read>, String), Failure> {
        let (mut all, mut from, mut limit) = (Vec::new(), String::new(), PAGE);
        let kind = self.kind();
        loop {
            let call = self.timing.call;
            let page = self.cluster.page(&self.collection, &from, limit, call);
            let page = page.await?;
            limit = page.limit;
            let items = page.items()?;
            for item in items.items {
                match kind.read(item) {
                    Ok(read) => all.push(read),
                    Err(problem) => {
                        tracing::warn!(kind = kind.as_str(), %problem, "object ignored");
                    }
                }
            }
            if items.metadata.next.is_empty() {
                return Ok((all, items.metadata.resource_version));
            }
            from = items.metadata.next;
        }
    }

    /// Watches, again and again, until all must be listed anew.
    async fn watch(&mut self, mut version: String, pause: &mut Pause) -> Result<(), Unheard> {
        let kind = self.kind();
        loop {
            let begun = Instant::now();
            let Timing { lifetime, call, .. } = self.timing;
            let events = self
                .cluster
                .watch(&self.collection, &version, lifetime, call);
            let end = match events.await {
                Ok(events) => {
                    // What came since will be told; the next bookmark may be a minute away.
                    self.heard();
                    self.read(events, &mut version, pause).await?
                }
                Err(failure) => End::Failed(failure),
            };
            match end {
                // A server that ends each watch at once must not be asked without a pause.
                End::Over if begun.elapsed() > self.timing.first_pause => {}
                End::Over => pause.wait(&mut self.back).await,
                End::Interrupted => self.metrics.restarted(kind, Restart::Failed),
                End::Failed(Failure::Refused { status: 410, .. }) => {
                    self.metrics.restarted(kind, Restart::Expired);
                    return Ok(());
                }
                End::Failed(failure) => {
                    self.trouble(&failure);
                    if matches!(failure, Failure::Unreachable(_)) {
                        self.metrics.restarted(kind, Restart::Failed);
                        pause.wait(&mut self.back).await;
                        continue;
                    }
                    let silent = matches!(failure, Failure::Late(_));
                    let why = if silent {
                        Restart::Silent
                    } else {
                        Restart::Failed
                    };
                    self.metrics.restarted(kind, why);
                    return Ok(());
                }
            }
        }
    }

    /// Reads one watch to its end.
    async fn read(
        &mut self,
        mut events: Events,
        version: &mut String,
        pause: &mut Pause,
    ) -> Result<End, Unheard> {
        self.back.mark_unchanged();
        let mut heard = Instant::now();
        loop {
            let patience = self.timing.silence.saturating_sub(heard.elapsed());
            let change = tokio::select! {
                event = events.next(patience) => match event {
                    Ok(Some(event)) => {
                        heard = Instant::now();
                        pause.reset();
                        self.take(&event, version)
                    }
                    Ok(None) => return Ok(End::Over),
                    Err(failure) => return Ok(End::Failed(failure)),
                },
                Some(answer) = answer(&mut self.answers) => {
                    let changes = self.compare(answer, version);
                    self.send(changes, false).await?;
                    continue;
                }
                Ok(()) = self.back.changed() => return Ok(End::Interrupted),
            };
            self.heard();
            if let Some(change) = change {
                self.send(vec![change], false).await?;
            }
        }
    }

    fn take(&mut self, event: &Event<'_>, version: &mut String) -> Option<Change> {
        let read = match self.kind().read(event.object) {
            Ok(read) => read,
            Err(problem) => {
                tracing::warn!(kind = self.kind().as_str(), %problem, "event ignored");
                return None;
            }
        };
        *version = read.version.to_string();
        match event.kind {
            EventKind::Added | EventKind::Modified => self.mirror.take(read),
            EventKind::Deleted => self.mirror.delete(&read.name, read.version),
            EventKind::Bookmark | EventKind::Error => None,
        }
    }

    /// What was asked for directly counts only where the watch has not been further already.
    fn compare(&mut self, answer: Answer, version: &str) -> Vec<Change> {
        if answer.version != Version::of(version)
            && answer.version.is_old_beside(Version::of(version))
        {
            return Vec::new();
        }
        let pods = answer.pods.into_iter();
        pods.filter_map(|read| self.mirror.take(read)).collect()
    }

    fn kind(&self) -> Kind {
        self.mirror.kind()
    }

    fn heard(&self) {
        self.health.heard(self.kind());
    }

    async fn send(&self, changes: Vec<Change>, complete: bool) -> Result<(), Unheard> {
        self.metrics.malformed(self.kind(), self.mirror.malformed());
        let batch = Batch {
            changes,
            malformed: None,
            complete,
        };
        self.batches.send(batch).await.map_err(|_| Unheard)
    }

    fn trouble(&self, failure: &Failure) {
        let kind = self.kind();
        let why = self.explained(failure);
        if self.health.failed(kind, why) {
            tracing::debug!(kind = kind.as_str(), %failure, "cannot be watched; trying again");
        }
    }

    /// A failure and the way out, where there is one.
    fn explained(&self, failure: &Failure) -> String {
        let kind = self.kind();
        match failure {
            Failure::Refused { status: 404, .. } if kind.is_ours() => format!(
                "the CRD {}.lanyard.dev is not installed: install the chart with crds.install=true, \
                 or `lanyard crds | kubectl apply -f -`",
                kind.as_str()
            ),
            Failure::Refused {
                status: 403,
                message,
            } => format!(
                "the agent may not list and watch {}: its ClusterRole must allow it ({message})",
                kind.as_str()
            ),
            Failure::Refused { status: 401, .. } => {
                "the API server does not accept the agent's credentials".to_owned()
            }
            other => other.to_string(),
        }
    }
}

/// The next answer; never where nobody asks.
async fn answer(answers: &mut Option<mpsc::Receiver<Answer>>) -> Option<Answer> {
    match answers {
        Some(answers) => answers.recv().await,
        None => std::future::pending().await,
    }
}
