//! An identity that is on its way to the node: clients that ask again get its token once it is there, the others are told
//! to try again; none is told that it does not exist.

use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::sim::arm::Operations;

use super::report::Table;
use super::start::{BEGIN, begin, started};
use super::table::{CLIENTS, Dialect};
use super::{HANG_MILLISECONDS, ending};
use crate::asking::{now, once};
use crate::clients::{self, Asker};
use crate::cluster::Cluster;
use crate::plan::POOL;
use crate::steering::{self, Auth, LIMIT};

const NAMESPACE: &str = "matrix-pending";
const NAME: &str = "underway";
/// How long Azure works on the assignment: when the clients ask, 3 s of it have gone, and what is left is longer than the agent
/// holds a request and shorter than the patience of any client that asks again.
const TAKES: Duration = Duration::from_secs(9);
const HOLD: Duration = Duration::from_secs(3);

/// All clients at once, while Azure works on the assignment.
pub async fn an_identity_on_its_way_is_waited_for(cluster: &Cluster) -> Result<()> {
    steering::raise(cluster, Auth::Federated).await?;
    let image = clients::image(cluster).await?;
    steering::make(cluster, NAMESPACE, &[NAME]).await?;
    let client_id = steering::client_id(cluster, NAME).await?;
    let pod = Dialect::Imds.pod();
    let manifest = steering::pod(NAMESPACE, pod, 2, NAME).image(&image);
    cluster.run_pod(&manifest).await?;
    let takes = Operations::Take {
        milliseconds: TAKES.as_millis().try_into()?,
    };
    cluster.azure().set_operations(POOL, takes).await?;
    let mark = cluster.mark().await?;
    let asker = Asker::new(cluster, NAMESPACE, pod);
    let calls = CLIENTS.iter().map(|client| {
        let args = ["token", "--client-id", &client_id, "--after", BEGIN].map(str::to_owned);
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            asker.ended(&[], client.command, &args).await
        }
    });
    let assigned = async {
        started(cluster, (NAMESPACE, pod), CLIENTS.len()).await?;
        steering::bind(cluster, NAMESPACE, &[NAME]).await?;
        steering::reach(cluster, &[NAME], "Pending").await?;
        cluster
            .wait_for("the agent to know of the grant", LIMIT, async || {
                let (status, said) = once(cluster, (NAMESPACE, pod), "").await?;
                ensure!(status == "503", "{status}: {said}");
                Ok(true)
            })
            .await?;
        let asked = now();
        begin(cluster, (NAMESPACE, pod)).await?;
        Ok::<_, anyhow::Error>(steering::reach(cluster, &[NAME], "Assigned").await? - asked)
    };
    let (said, assigned) = tokio::join!(futures_util::future::join_all(calls), assigned);
    cluster
        .azure()
        .set_operations(POOL, Operations::World)
        .await?;
    let assigned = assigned?;
    ensure!(
        assigned > HOLD.as_secs_f64(),
        "it came too soon to say anything: {assigned:.1} s"
    );
    let heading = format!("assigned {assigned:.1} s after it was asked");
    let mut table = Table::new("pending", &[&heading]);
    let limit = HOLD + Duration::from_millis(HANG_MILLISECONDS);
    for (client, output) in CLIENTS.iter().zip(said) {
        let told = ("\"try again\"", limit);
        let cell = output.and_then(|output| ending::cell(output, client.told, &client_id, told));
        table.row_of(client, &[], cell);
    }
    table.finish()?;
    cluster.no_leaks(mark).await?;
    steering::leave(cluster, NAMESPACE, &[NAME]).await
}
