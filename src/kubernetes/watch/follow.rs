//! Follows one kind for ever: lists it, watches it from there, begins again where the watch ends.
//!
//! In: the API server. Out: batches of changes. Blocks on the network and on a full channel only.
//! Holds invariant 7: every call has its deadline, and a silent watch is one that has died.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::health::Health;
use super::metrics::{Restart, WatchMetrics};
use super::mirror::Mirror;
use super::pause::Pause;
use super::read::{Named, Read, Reader, Version};
use super::timing::Timing;
use crate::api::Malformed;
use crate::api::kind::Kind;
use crate::kubernetes::{Cluster, Collection, Event, EventKind, Events, Failure, PAGE};

/// Objects that were asked for beside the watch, which may not have shown them yet.
#[derive(Debug)]
pub struct Asked<T> {
    /// The version of the answer as a whole.
    pub version: Version,
    /// The objects.
    pub objects: Vec<Read<T>>,
}

/// Follows one kind.
pub struct Follower<R: Reader> {
    /// Who follows, as in "the agent": for what is said to people.
    pub who: &'static str,
    /// The API server.
    pub cluster: Cluster,
    /// Which objects.
    pub collection: Collection,
    /// What was heard of them.
    pub mirror: Mirror<R>,
    /// Where changes go.
    pub batches: mpsc::Sender<R::Batch>,
    /// How many kinds were never listed.
    pub unlisted: Arc<AtomicUsize>,
    /// Objects that were asked for beside the watch.
    pub answers: Option<mpsc::Receiver<Asked<R::Object>>>,
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

impl<R: Reader> Follower<R> {
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
    async fn list(&mut self) -> Result<(Vec<Read<R::Object>>, String), Failure> {
        let (mut all, mut from, mut limit) = (Vec::new(), String::new(), PAGE);
        let kind = self.kind();
        loop {
            let call = self.timing.call;
            let page = self.cluster.page(&self.collection, &from, limit, call);
            let page = page.await?;
            limit = page.limit;
            let (about, items) = page.objects()?;
            for item in items {
                match self.mirror.read_item(&item) {
                    Ok(read) => all.push(read),
                    Err(problem) => {
                        tracing::warn!(kind = kind.as_str(), %problem, "object ignored");
                    }
                }
            }
            if about.next.is_empty() {
                return Ok((all, about.resource_version));
            }
            from = about.next;
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

    fn take(&mut self, event: &Event<'_>, version: &mut String) -> Option<R::Change> {
        let (named, read) = match self.understood(event) {
            Ok(understood) => understood,
            Err(problem) => {
                tracing::warn!(kind = self.kind().as_str(), %problem, "event ignored");
                return None;
            }
        };
        let change = match (event.kind, read) {
            (EventKind::Deleted, _) => {
                let deleted = Version::of(&named.version);
                self.mirror.delete(&named.name, deleted)
            }
            (_, Some(read)) => self.mirror.take(read),
            (_, None) => None,
        };
        *version = named.version;
        change
    }

    /// Name and version; the object only where it is one that is there.
    #[allow(clippy::type_complexity, reason = "one use")]
    fn understood(
        &mut self,
        event: &Event<'_>,
    ) -> Result<(Named, Option<Read<R::Object>>), Malformed> {
        let named = Named::read(event.object)?;
        let is_there = matches!(event.kind, EventKind::Added | EventKind::Modified);
        let read = is_there.then(|| self.mirror.read(event.object));
        Ok((named, read.transpose()?))
    }

    /// What was asked for directly counts only where the watch has not been further already.
    fn compare(&mut self, asked: Asked<R::Object>, version: &str) -> Vec<R::Change> {
        if asked.version != Version::of(version)
            && asked.version.is_old_beside(Version::of(version))
        {
            return Vec::new();
        }
        let objects = asked.objects.into_iter();
        objects.filter_map(|read| self.mirror.take(read)).collect()
    }

    fn kind(&self) -> Kind {
        self.mirror.kind()
    }

    fn heard(&self) {
        self.health.heard(self.kind());
    }

    async fn send(&self, changes: Vec<R::Change>, complete: bool) -> Result<(), Unheard> {
        self.metrics.malformed(self.kind(), self.mirror.malformed());
        let batch = R::batch(changes, complete);
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
                "{} may not list and watch {}: its ClusterRole must allow it ({message})",
                self.who,
                kind.as_str()
            ),
            Failure::Refused { status: 401, .. } => {
                format!(
                    "the API server does not accept the credentials of {}",
                    self.who
                )
            }
            other => other.to_string(),
        }
    }
}

/// The next answer; never where nobody asks.
async fn answer<T>(answers: &mut Option<mpsc::Receiver<Asked<T>>>) -> Option<Asked<T>> {
    match answers {
        Some(answers) => answers.recv().await,
        None => std::future::pending().await,
    }
}
