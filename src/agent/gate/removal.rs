//! The removal marker: a `ConfigMap` whose appearance asks every agent to take its rules away.
//!
//! In: a watch of that one object. Out: a clean node, and an acknowledgement in another `ConfigMap`.
//! Blocks on the API server with deadlines, and on iptables. Invariant 2: removal is an explicit act,
//! and final: a marker that goes away again brings no rules back; only a new start does. Agents may read
//! the marker and never write it, so that a stolen agent token opens no other node.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::leave::Leave;
use crate::agent::config::KubernetesSource;
use crate::api::removal::{REMOVED, acks_name};
use crate::kubernetes::{CallError, Cluster, Collection, EventKind, Failure, PAGE};
use crate::model::backoff;
use crate::serve::clock;
use crate::serve::ready::Latch;

/// How long a start waits for the marker: an API server that is away must not keep pods waiting.
const AT_START: Duration = Duration::from_secs(2);
/// Until a watch stands.
const BEGIN: Duration = Duration::from_secs(10);
/// The server ends a watch after this; bookmarks come each minute.
const LIFETIME: Duration = Duration::from_mins(10);
const SILENCE: Duration = Duration::from_mins(3);
/// After a failure: the first pause, and the longest.
const RETRY: backoff::Bounds = (Duration::from_millis(500), Duration::from_secs(5));

/// The marker and who looks for it.
pub struct Marker {
    cluster: Cluster,
    namespace: String,
    name: String,
    node: String,
}

impl Marker {
    /// `None` when no marker is named.
    pub fn of(cluster: &Cluster, source: &KubernetesSource) -> Option<Self> {
        Some(Self {
            cluster: cluster.clone(),
            namespace: source.namespace.clone(),
            name: source.removal_marker.clone()?,
            node: source.node.clone(),
        })
    }

    /// Whether the marker is there now, at the agent's start. Not being able to tell counts as no: a
    /// door too many closed is mended by the watch.
    pub async fn is_set(&self) -> bool {
        match timeout(AT_START, self.found()).await {
            Ok(Ok(found)) => found.is_some(),
            Ok(Err(error)) => {
                tracing::warn!(marker = self.name, %error, "cannot look for the removal marker; going on without");
                false
            }
            Err(_) => {
                tracing::warn!(
                    marker = self.name,
                    "no answer about the removal marker; going on without"
                );
                false
            }
        }
    }

    /// Waits for the marker, leaves the node, acknowledges. Never ends.
    pub async fn obey(self, leave: Leave, latch: Latch) {
        self.appeared().await;
        let why = format!(
            "ConfigMap {}/{} asks to remove Lanyard; a new start after it is gone lays the rules again",
            self.namespace, self.name
        );
        tracing::warn!(
            why,
            "leaving this node: its pods will reach the node's own identity"
        );
        latch.not_ready(why);
        let mut pauses = Pauses::default();
        while let Err(error) = leave.node().await {
            tracing::error!(%error, "cannot remove everything, trying again");
            sleep(pauses.next()).await;
        }
        let mut pauses = Pauses::default();
        while let Err(error) = self.acknowledge().await {
            tracing::warn!(%error, "cannot acknowledge the removal, trying again");
            sleep(pauses.next()).await;
        }
        tracing::info!(node = self.node, "left this node, and said so");
        std::future::pending::<()>().await;
    }

    async fn appeared(&self) {
        let (mut pauses, mut told) = (Pauses::default(), false);
        loop {
            match self.watch().await {
                Ok(true) => return,
                Ok(false) => (pauses, told) = (Pauses::default(), false),
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(marker = self.name, %error, "cannot watch for the removal marker, trying again");
                }
                Err(_) => {}
            }
            sleep(pauses.next()).await;
        }
    }

    /// Lists and watches this one object; whether the marker showed before the watch ended. The list
    /// is not from a cache: what a lagging API server shows may be long gone, and opening a node is
    /// not undone.
    async fn watch(&self) -> Result<bool, Failure> {
        let of = Collection {
            path: format!("/api/v1/namespaces/{}/configmaps", self.namespace),
            selector: format!("fieldSelector=metadata.name%3D{}", self.name),
            metadata_only: true,
            binary: false,
        };
        let page = self.cluster.page(&of, "", PAGE, BEGIN).await?;
        let list = page.items()?;
        if !list.items.is_empty() {
            return Ok(true);
        }
        let since = &list.metadata.resource_version;
        let mut events = self.cluster.watch(&of, since, LIFETIME, BEGIN).await?;
        while let Some(event) = events.next(SILENCE).await? {
            if matches!(event.kind, EventKind::Added | EventKind::Modified) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn found(&self) -> Result<Option<PartialObjectMeta<ConfigMap>>, CallError> {
        let api = self.api();
        self.cluster.call(api.get_metadata_opt(&self.name)).await
    }

    async fn acknowledge(&self) -> Result<(), CallError> {
        let said = json!({"data": {&self.node: format!("{REMOVED} {:.0}", clock::now())}});
        let name = acks_name(&self.name);
        let (api, params, patch) = (self.api(), PatchParams::default(), Patch::Merge(&said));
        self.cluster
            .call(api.patch_metadata(&name, &params, &patch))
            .await
            .map(drop)
    }

    fn api(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }
}

/// Growing pauses, with some chance in them: all nodes ask the same server.
#[derive(Default)]
struct Pauses(u32);

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = backoff::pause(RETRY, self.0);
        self.0 = self.0.saturating_add(1);
        pause.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}
