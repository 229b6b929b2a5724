//! An identity that is on its way to the node: clients that ask again get its token once it is there, the others are told
//! to try again; none is told that it does not exist.

use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::sim::arm::Operations;

use super::report::{Table, milliseconds};
use super::table::{CLIENTS, Client, Dialect, Patience};
use crate::clients::{self, Asker};
use crate::cluster::Cluster;
use crate::plan::POOL;
use crate::steering::{self, Auth, LIMIT};

const NAMESPACE: &str = "matrix-pending";
const NAME: &str = "underway";
/// From the first question to the assignment: longer than the agent holds a request (3 s), shorter than any client that asks
/// again has patience.
const UNDERWAY: Duration = Duration::from_secs(6);

/// All clients at once, while Azure works on the assignment.
pub async fn an_identity_on_its_way_is_waited_for(cluster: &Cluster) -> Result<()> {
    steering::raise(cluster, Auth::Federated).await?;
    let image = clients::image(cluster).await?;
    steering::make(cluster, NAMESPACE, &[NAME]).await?;
    let client_id = steering::client_id(cluster, NAME).await?;
    let pod = Dialect::Imds.pod();
    let manifest = steering::pod(NAMESPACE, pod, 2, NAME).image(&image);
    cluster.run_pod(&manifest).await?;
    cluster
        .azure()
        .set_operations(POOL, Operations::Hold)
        .await?;
    let mark = cluster.mark().await?;
    steering::bind(cluster, NAMESPACE, &[NAME]).await?;
    steering::reach(cluster, &[NAME], "Pending").await?;
    let asker = Asker::new(cluster, NAMESPACE, pod);
    let known = async || {
        let said = asker.client("curl", &["token"]).await;
        let Err(error) = said else { return Ok(true) };
        let words = format!("{error:#}");
        ensure!(!words.contains("Identity not found"), "{words}");
        Ok(true)
    };
    cluster
        .wait_for("the agent to know of the grant", LIMIT, known)
        .await?;
    let calls = CLIENTS.iter().map(|client| {
        let args = ["token", "--client-id", &client_id, "--after", "/tmp/go"].map(str::to_owned);
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            asker.client_with(&[], client.command, &args).await
        }
    });
    let release = async {
        let count = CLIENTS.len();
        let ready =
            format!("n=$(ls /tmp | sed -n '/^go[.]/p' | wc -l); echo $n; [ $n -ge {count} ]");
        let started = async || {
            let shell = ["sh", "-c", &ready];
            let output = cluster.pod_exec(NAMESPACE, pod, &shell).await?;
            output.success("counting")?;
            Ok(true)
        };
        cluster
            .wait_for("all clients to be started", LIMIT, started)
            .await?;
        let go = cluster.pod_exec(NAMESPACE, pod, &["touch", "/tmp/go"]);
        go.await?.success("touch")?;
        // The scenario's own time.
        tokio::time::sleep(UNDERWAY).await;
        cluster.azure().release(POOL, None).await?;
        cluster
            .azure()
            .set_operations(POOL, Operations::World)
            .await?;
        steering::reach(cluster, &[NAME], "Assigned").await
    };
    let (said, released) = tokio::join!(futures_util::future::join_all(calls), release);
    released?;
    let mut table = Table::new("pending", &["assigned 6 s after it was asked"]);
    for (client, said) in CLIENTS.iter().zip(said) {
        let said = said.map(|said| (said["client_id"] == client_id.as_str(), said));
        let cell = waited(client, said, &mut table);
        table.row(client, &[cell]);
    }
    table.finish()?;
    cluster.no_leaks(mark).await?;
    steering::leave(cluster, NAMESPACE, &[NAME]).await
}

fn waited(client: &Client, said: Result<(bool, serde_json::Value)>, table: &mut Table) -> String {
    match (said, client.told) {
        (Ok((true, said)), Patience::Long | Patience::Short) => {
            let took = said["milliseconds"].as_f64().unwrap_or_default() / 1000.0;
            format!("token after {took:.1} s")
        }
        (Err(error), Patience::None) => {
            let words = format!("{error:#}");
            if words.contains("Identity not found") {
                table.differs(format!("{}: {words}", client.name));
            }
            let took = milliseconds(&words).unwrap_or_default();
            format!("\"try again\" after {took} ms")
        }
        (said, _) => {
            table.differs(format!("{}, pending: {said:?}", client.name));
            "?".to_owned()
        }
    }
}
