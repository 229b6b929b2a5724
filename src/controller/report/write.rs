//! Brings drafts to the API server: one merge patch of a status for each object that differs.
//!
//! In: the newest drafts, the lease. Out: patches of the subresource `status`. Blocks on calls, each
//! with its deadline, eight at a time. Only the one controller writes: without the lease nothing is
//! sent, and a new term begins with reading what is there.

use std::sync::Arc;

use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout_at};

use super::desk::{Desk, Key, Write};
use super::draft::Drafts;
use crate::api::kind::Kind;
use crate::controller::lease::Guard;
use crate::kubernetes::{CallError, Cluster, Kind as Listed};
use crate::model::ids::ObjectName;
use crate::serve::clock;

/// Writes under way at the same time.
const AT_ONCE: usize = 8;
/// Until the statuses are read again that could not be.
const RETRY: Duration = Duration::from_secs(5);
/// When there is nothing to wait for.
const IDLE: Duration = Duration::from_mins(10);
/// The kinds that have a status of the report's, and how they are listed.
const KINDS: [(Kind, Listed); 4] = [
    (Kind::Identities, Listed::OURS[0]),
    (Kind::Bindings, Listed::OURS[1]),
    (Kind::Policies, Listed::OURS[2]),
    (Kind::Exceptions, Listed::OURS[3]),
];

/// Writes statuses.
pub struct Writer {
    cluster: Cluster,
    guard: Guard,
    drafts: watch::Receiver<Arc<Drafts>>,
}

impl Writer {
    /// Of the newest drafts, while the lease is held.
    #[must_use]
    pub const fn new(cluster: Cluster, guard: Guard, drafts: watch::Receiver<Arc<Drafts>>) -> Self {
        Self {
            cluster,
            guard,
            drafts,
        }
    }

    /// Writes until nobody drafts any more.
    pub async fn run(mut self) {
        loop {
            self.guard.held().await;
            let desk = match self.read().await {
                Ok(desk) => desk,
                Err(error) => {
                    tracing::warn!(%error, "statuses could not be read; it is tried again");
                    sleep(RETRY).await;
                    continue;
                }
            };
            if !self.term(desk).await {
                return;
            }
        }
    }

    /// One term of holding the lease; whether another one may follow.
    async fn term(&mut self, mut desk: Desk) -> bool {
        let guard = self.guard.clone();
        let lost = guard.lost();
        tokio::pin!(lost);
        loop {
            let drafts = self.drafts.borrow_and_update().clone();
            let (writes, again) = desk.due(&drafts, Instant::now(), clock::now());
            self.write(&mut desk, writes).await;
            let again = again.unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = &mut lost => return true,
                changed = self.drafts.changed() => if changed.is_err() {
                    return false;
                },
                () = sleep_until(again) => {}
            }
        }
    }

    async fn write(&self, desk: &mut Desk, writes: Vec<Write>) {
        let mut under_way = JoinSet::new();
        let mut writes = writes.into_iter();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(until) = self.guard.until()
                && let Some(write) = writes.next()
            {
                let (key, cluster) = (write.key.clone(), self.cluster.clone());
                // A late one would stand above the next leader's, who does not look for it.
                under_way.spawn(async move {
                    let sent = timeout_at(until, send(cluster, write)).await;
                    sent.unwrap_or((key, Err(CallError::Late)))
                });
            }
            match under_way.join_next().await {
                Some(Ok((key, Ok(status)))) => desk.written(&key, status),
                Some(Ok(((kind, name), Err(error)))) => {
                    // It is tried again when its pace allows; an object that is gone has no draft then.
                    tracing::debug!(kind = kind.as_str(), %name, %error, "a status was not written");
                }
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    async fn read(&self) -> Result<Desk, CallError> {
        let mut desk = Desk::default();
        for (kind, listed) in KINDS {
            let params = ListParams::default();
            for object in self.cluster.list(listed, None, &params).await? {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                let name = ObjectName::new(text("namespace"), text("name"));
                desk.found((kind, name), text("uid"), object["status"].clone());
            }
        }
        Ok(desk)
    }
}

async fn send(cluster: Cluster, write: Write) -> (Key, Result<Value, CallError>) {
    let (kind, name) = &write.key;
    let resource = GroupVersionKind::gvk("lanyard.dev", "v1alpha1", kind.singular());
    let resource = ApiResource::from_gvk_with_plural(&resource, kind.as_str());
    let api: Api<DynamicObject> = if name.namespace.is_empty() {
        Api::all_with(cluster.client.clone(), &resource)
    } else {
        Api::namespaced_with(cluster.client.clone(), &name.namespace, &resource)
    };
    let (params, patch) = (PatchParams::default(), Patch::Merge(&write.patch));
    let sent = cluster.call(api.patch_status(&name.name, &params, &patch));
    let status = sent.await.map(|object| object.data["status"].clone());
    (write.key, status)
}
