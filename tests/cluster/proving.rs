//! Who the controller is to Azure Resource Manager: each of the four ways, by a release that is upgraded from one to the next.
//!
//! In: a cluster with Lanyard. Out: passed, with the time from the upgrade to Assigned. Blocks on helm. Invariant: ARM
//! sees the principal that the values name, and nobody else changes anything.

use anyhow::{Result, ensure};

use crate::asking::{now, once};
use crate::cluster::Cluster;
use crate::steering::{self, Auth};

const NAMESPACE: &str = "proves";
const WAYS: [(Auth, &str); 4] = [
    (Auth::Secret, "by-a-secret"),
    (Auth::Certificate, "by-a-certificate"),
    (Auth::NodeIdentity, "by-the-node"),
    (Auth::Federated, "by-the-account"),
];

/// By a secret, a certificate, the node's identity, its own service account: a binding becomes a token with each.
pub async fn an_identity_is_assigned_by_each_way_to_sign_in(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let names = WAYS.map(|(_, name)| name);
    steering::make(cluster, NAMESPACE, &names).await?;
    let all = names.join(",");
    let pod = steering::pod(NAMESPACE, "asks", 2, &all);
    cluster.run_pod(&pod).await?;
    for (auth, name) in WAYS {
        let start = now();
        steering::raise(cluster, auth).await?;
        let mark = cluster.mark().await?;
        steering::bind(cluster, NAMESPACE, &[name]).await?;
        let assigned = steering::reach(cluster, &[name], "Assigned").await?;
        println!(
            "{auth:?}: upgraded and assigned in {:.1} s",
            assigned - start
        );
        let patches = steering::patches(cluster, mark).await?;
        let callers = patches
            .iter()
            .filter_map(|entry| entry.arm.as_ref()?.caller.as_deref());
        let callers: Vec<_> = callers.collect();
        ensure!(callers == [auth.principal()], "{patches:#?}");
        let client_id = steering::client_id(cluster, name).await?;
        let more = format!("&client_id={client_id}");
        let what = format!("a token of {name}");
        cluster
            .wait_for(&what, steering::LIMIT, async || {
                let (status, said) = once(cluster, (NAMESPACE, "asks"), &more).await?;
                ensure!(status == "200", "{status}: {said}");
                Ok(true)
            })
            .await?;
    }
    steering::leave(cluster, NAMESPACE, &names).await
}
