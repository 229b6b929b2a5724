//! Secrets from the Kubernetes API: a `get` and a `watch` for each one that is needed, by its name.
//!
//! In: which Secrets are wanted. Out: what becomes of reading them, into the rings. Blocks on the network
//! only, and every call has its deadline. Nothing is listed: the agent's rights name each Secret.
//! While the API server is away what was read last stays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::dispatcher;

use super::{Credentials, Seen};
use crate::agent::watch::Timing;
use crate::kubernetes::{Cluster, EventKind, Events, Failure, SecretObject};
use crate::model::backoff;
use crate::model::ids::ObjectName;

/// Until a Secret that may not be read is tried again: somebody must change a Role first.
const FORBIDDEN: Duration = Duration::from_secs(30);
/// What a Secret holds is understood in less than this, but for a PKCS#12 store of many rounds.
const LONG: Duration = Duration::from_millis(500);
/// How many times longer is the rest after that.
const REST: u32 = 5;

/// Follows what is wanted, for ever.
pub async fn follow(credentials: Credentials, cluster: Cluster, timing: Timing) {
    let mut wanted = credentials.wanted();
    let mut running: HashMap<ObjectName, (u64, AbortHandle)> = HashMap::new();
    let mut tasks = JoinSet::new();
    let turns = Arc::new(Semaphore::new(1));
    loop {
        let now = wanted.borrow_and_update().clone();
        running.retain(|secret, (number, task)| {
            let stays = now.get(secret) == Some(*number);
            if !stays {
                task.abort();
            }
            stays
        });
        while tasks.try_join_next().is_some() {}
        for (secret, number) in now.iter() {
            running.entry(secret.clone()).or_insert_with(|| {
                let follower = Follower {
                    credentials: credentials.clone(),
                    cluster: cluster.clone(),
                    secret: secret.clone(),
                    timing,
                    turns: turns.clone(),
                    rests_until: Instant::now(),
                    failures: 0,
                };
                (number, tasks.spawn(follower.run()))
            });
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// Follows one Secret.
struct Follower {
    credentials: Credentials,
    cluster: Cluster,
    secret: ObjectName,
    timing: Timing,
    /// For understanding what a Secret holds.
    turns: Arc<Semaphore>,
    /// What it holds is not looked at before.
    rests_until: Instant,
    /// In a row.
    failures: u32,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let read = self.cluster.secret(&self.secret, self.timing.call).await;
            let version = match read {
                Ok(Some(object)) => self.there(object).await,
                Ok(None) => {
                    self.credentials.take(&self.secret, &Seen::Missing);
                    // Whatever is there when the watch begins is told as new.
                    String::new()
                }
                Err(failure) => {
                    self.trouble(&failure).await;
                    continue;
                }
            };
            if let Err(failure) = self.watch(version).await {
                self.interrupted(&failure).await;
            }
        }
    }

    /// Takes over what it holds, in a thread where nobody waits for the rest of the agent: opening a
    /// PKCS#12 store may take seconds. One at a time, and after a long one this Secret rests: whoever
    /// may write it must not be able to keep a node busy.
    async fn there(&mut self, object: SecretObject) -> String {
        tokio::time::sleep_until(self.rests_until).await;
        let version = object.version.clone();
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let (credentials, secret) = (self.credentials.clone(), self.secret.clone());
        // What it logs belongs to this task's log, where tests look for what must not be in it.
        let log = dispatcher::get_default(Clone::clone);
        let taking = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            dispatcher::with_default(&log, || {
                credentials.take(&secret, &Seen::There(&object.data));
            });
            drop(turn);
            begun.elapsed()
        });
        match taking.await {
            Ok(took) if took > LONG => self.rests_until = Instant::now() + took * REST,
            Ok(_) => {}
            Err(broken) => {
                tracing::error!(secret = %self.secret, %broken, "a Secret could not be understood");
            }
        }
        version
    }

    /// Watches, again and again, until the Secret must be read anew.
    async fn watch(&mut self, mut version: String) -> Result<(), Failure> {
        let Timing { lifetime, call, .. } = self.timing;
        loop {
            let begun = Instant::now();
            let watch = self
                .cluster
                .watch_secret(&self.secret, &version, lifetime, call);
            let events = watch.await?;
            self.read(events, &mut version).await?;
            // A server that ends each watch at once must not be asked without a pause.
            if begun.elapsed() < self.timing.first_pause {
                self.pause().await;
            }
        }
    }

    /// Reads one watch until the server ends it.
    async fn read(&mut self, mut events: Events, version: &mut String) -> Result<(), Failure> {
        while let Some(event) = events.next(self.timing.silence).await? {
            let object = SecretObject::try_from(event.object)?;
            version.clone_from(&object.version);
            match event.kind {
                EventKind::Added | EventKind::Modified => drop(self.there(object).await),
                EventKind::Deleted => self.credentials.take(&self.secret, &Seen::Missing),
                EventKind::Bookmark | EventKind::Error => {}
            }
            self.failures = 0;
        }
        Ok(())
    }

    /// It could not be read.
    async fn trouble(&mut self, failure: &Failure) {
        let secret = &self.secret;
        if let Failure::Refused { status: 403, .. } = failure {
            self.credentials.take(secret, &Seen::Forbidden);
            return tokio::time::sleep(jittered(FORBIDDEN)).await;
        }
        tracing::debug!(%secret, %failure, "a Secret cannot be read; trying again");
        let why = failure.to_string();
        self.credentials.take(secret, &Seen::Away(&why));
        self.pause().await;
    }

    /// It was read, and cannot be watched (any more).
    async fn interrupted(&mut self, failure: &Failure) {
        let secret = &self.secret;
        match failure {
            // The version from which to go on is forgotten: it is read again at once.
            Failure::Refused { status: 410, .. } => {}
            Failure::Refused { status: 403, .. } => {
                tracing::warn!(%secret, "the agent may read the Secret but not watch it: changes are seen late");
                tokio::time::sleep(jittered(FORBIDDEN)).await;
            }
            _ => {
                tracing::debug!(%secret, %failure, "a Secret cannot be watched; reading it again");
                self.pause().await;
            }
        }
    }

    async fn pause(&mut self) {
        let bounds = (self.timing.first_pause, self.timing.longest_pause);
        let pause = backoff::pause(bounds, self.failures);
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(jittered(pause)).await;
    }
}

/// So that the nodes of a cluster do not all come at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
