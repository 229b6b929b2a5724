//! The `AzureAssignment` of this node's compute resource: which one that is the Node object says, then it
//! is followed like any other kind.
//!
//! In: the API server. Out: the assignment's name, once, and then batches of changes. Blocks on the
//! network and on a full channel only. Holds that nobody is answered before it is known what is
//! assigned: this kind counts as unlisted until then.

use k8s_openapi::api::core::v1::Node;
use kube::Api;

use super::kind::{self, Facts};
use crate::agent::world::{Batch, Change};
use crate::api::kind::Kind;
use crate::kubernetes::watch::{Follower, Pause};
use crate::model::compute::Compute;

/// Follows it until nobody takes changes any more.
pub async fn follow(mut follower: Follower<Facts>, node: &str) {
    let mut pause = Pause::new(follower.timing);
    let compute = loop {
        match compute_of(&follower, node).await {
            Ok(compute) => break compute,
            Err(why) => {
                let kind = Kind::Assignments;
                if follower.health.failed(kind, why.clone()) {
                    tracing::warn!(kind = kind.as_str(), why, "cannot be followed");
                }
            }
        }
        pause.wait(&mut follower.back).await;
    };
    let name = compute.assignment_name();
    tracing::info!(%compute, assignment = name, "identities are asked for once they are assigned to this node");
    let batch = Batch {
        changes: vec![Change::Compute(name.as_str().into())],
        ..Batch::default()
    };
    if follower.batches.send(batch).await.is_err() {
        return;
    }
    follower.collection = kind::collection(Kind::Assignments, &name);
    follower.run().await;
}

async fn compute_of(follower: &Follower<Facts>, node: &str) -> Result<Compute, String> {
    let nodes: Api<Node> = Api::all(follower.cluster.client.clone());
    let object = follower.cluster.call(nodes.get(node)).await;
    let object = object.map_err(|error| format!("the Node {node} cannot be read: {error}"))?;
    let id = object.spec.and_then(|spec| spec.provider_id);
    let id = id.ok_or_else(|| {
        format!("the Node {node} has no spec.providerID (yet): without it nobody knows what is assigned to it; outside Azure use --assignments=ignored")
    })?;
    id.parse().map_err(|error| {
        format!(
            "spec.providerID of the Node {node}: {error}; outside Azure use --assignments=ignored"
        )
    })
}
