//! The startup taint: `lanyard.dev/agent-not-ready`, which node pools give new nodes, is removed from
//! the own node once the agent is ready.
//!
//! In: readiness, the own node's name. Out: a PATCH that removes this taint and no other. Blocks on the
//! API server, each call with its deadline. Invariant 2: nothing is removed before the self-test
//! has passed (it is one of the latches).
//!
//! A node that is registered anew, or a pool that puts its taints back, brings the taint again. The
//! agent may `get` its node, not watch it (least privilege), so it looks each minute, at the API
//! server's cache (`resourceVersion=0`), which costs etcd nothing.

use std::time::Duration;

use hyper::Request;
use hyper::header::CONTENT_TYPE;
use prometheus::{IntCounter, Registry};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::STARTUP_TAINT;
use crate::kubernetes::{CallError, Cluster};
use crate::model::backoff;
use crate::serve::ready::Readiness;
use crate::serve::series;

/// How often readiness is looked at before the node was opened.
const GLANCE: Duration = Duration::from_millis(100);
/// How often the node is looked at afterwards.
const PERIOD: Duration = Duration::from_mins(1);
/// After a failure: the first pause, and the longest.
const RETRY: backoff::Bounds = (Duration::from_millis(500), Duration::from_secs(30));

/// The series of the startup gate.
#[derive(Clone, Debug)]
pub struct TaintMetrics {
    removed: IntCounter,
    failures: IntCounter,
}

impl TaintMetrics {
    /// Registers all series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            removed: series::counter(
                registry,
                "lanyard_startup_taint_removed_total",
                "Times the startup taint was removed from this node.",
            )?,
            failures: series::counter(
                registry,
                "lanyard_startup_taint_failures_total",
                "Failed attempts to look at this node or to remove its startup taint.",
            )?,
        })
    }
}

/// Opens the node whenever the agent is ready and the taint is there. Never ends.
pub async fn run(cluster: Cluster, node: String, readiness: Readiness, metrics: TaintMetrics) {
    let mut failures = 0_u32;
    loop {
        while !readiness.is_ready() {
            sleep(GLANCE).await;
        }
        // After a failure the cache may be what was wrong.
        match open(&cluster, &node, failures == 0).await {
            Ok(removed) => {
                if removed {
                    metrics.removed.inc();
                    tracing::info!(
                        node,
                        taint = STARTUP_TAINT,
                        "node opened for pods: the startup taint is removed"
                    );
                }
                failures = 0;
                sleep(PERIOD.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            }
            Err(error) => {
                metrics.failures.inc();
                if failures == 0 {
                    tracing::warn!(node, taint = STARTUP_TAINT, %error, "cannot remove the startup taint, trying again");
                }
                let pause = backoff::pause(RETRY, failures);
                failures = failures.saturating_add(1);
                sleep(pause).await;
            }
        }
    }
}

/// Looks at the node once and removes the taint where it is there; whether it was.
async fn open(cluster: &Cluster, node: &str, from_cache: bool) -> Result<bool, CallError> {
    let path = format!("/api/v1/nodes/{node}");
    let query = if from_cache { "?resourceVersion=0" } else { "" };
    let get = Request::get(format!("{path}{query}")).body(Vec::new());
    let object: Value = send(cluster, get).await?;
    let Some(patch) = patch(&object) else {
        return Ok(false);
    };
    let body = serde_json::to_vec(&patch).map_err(kube::Error::SerdeError)?;
    let request = Request::patch(path).header(CONTENT_TYPE, "application/json-patch+json");
    let _: Value = send(cluster, request.body(body)).await?;
    Ok(true)
}

async fn send(
    cluster: &Cluster,
    request: Result<Request<Vec<u8>>, hyper::http::Error>,
) -> Result<Value, CallError> {
    let request = request.map_err(kube::Error::HttpError)?;
    cluster.call(cluster.client.request(request)).await
}

/// A JSON patch that removes the taint; `None` when the node does not have it. It fails as a whole when
/// somebody changed the node's taints meanwhile: no other taint is lost.
fn patch(node: &Value) -> Option<Value> {
    let taints = node.pointer("/spec/taints")?.as_array()?;
    let others: Vec<&Value> = taints
        .iter()
        .filter(|taint| taint["key"] != STARTUP_TAINT)
        .collect();
    if others.len() == taints.len() {
        return None;
    }
    let path = "/spec/taints";
    let change = if others.is_empty() {
        json!({"op": "remove", "path": path})
    } else {
        json!({"op": "replace", "path": path, "value": others})
    };
    Some(json!([{"op": "test", "path": path, "value": taints}, change]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_this_taint_with_any_effect_and_no_other() {
        let ours = |effect| json!({"key": STARTUP_TAINT, "effect": effect});
        let other = json!({"key": "a", "value": "b", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"});
        let taints = json!([ours("NoSchedule"), other, ours("NoExecute")]);
        let patch = |taints: &Value| patch(&json!({"spec": {"taints": taints}}));
        let expected = json!([
            {"op": "test", "path": "/spec/taints", "value": taints},
            {"op": "replace", "path": "/spec/taints", "value": [other]}
        ]);
        assert_eq!(patch(&taints), Some(expected));
        let alone = json!([ours("NoSchedule")]);
        let expected = json!([
            {"op": "test", "path": "/spec/taints", "value": alone},
            {"op": "remove", "path": "/spec/taints"}
        ]);
        assert_eq!(patch(&alone), Some(expected));
        assert_eq!(patch(&json!([other])), None);
        assert_eq!(super::patch(&json!({"spec": {}})), None);
    }
}
