//! An identity that a pod may not have: every client says so soon, and default chains go on to their next credential.

use anyhow::Result;
use serde_json::Value;

use super::report::{Table, milliseconds};
use super::table::{CLIENTS, Client, Dialect, Selector};
use super::{DIALECTS, HANG_MILLISECONDS, run_pod, token};
use crate::cast::{self, AUDIT};
use crate::clients::{self, Asker};
use crate::cluster::Cluster;
use crate::pods::Pod;

const NAMESPACE: &str = "matrix-refused";
/// Where clients are refused.
const PLACES: [(Dialect, usize); 2] = [DIALECTS[0], DIALECTS[1]];
/// The pods that nothing is granted to.
const STRANGERS: [&str; 2] = ["stranger-imds", "stranger-app-service"];

/// By IMDS and by App Service: an identity of somebody else's by client id, and chains without and with `AZURE_CLIENT_ID`.
pub async fn refusals_are_told_soon_and_chains_go_on(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    cast::raise(cluster, NAMESPACE).await?;
    let mark = cluster.mark().await?;
    for (place, stranger) in PLACES.into_iter().zip(STRANGERS) {
        run_pod(cluster, NAMESPACE, &image, place).await?;
        let (dialect, node) = place;
        let pod = Pod::new(NAMESPACE, stranger, node)
            .variables(dialect.variables())
            .image(&image);
        cluster.run_pod(&pod).await?;
    }
    let columns = [
        "IMDS: refused",
        "chain goes on",
        "… with a client id",
        "App Service: refused",
        "chain goes on",
        "… with a client id",
    ];
    let mut table = Table::new("refusals", &columns);
    for client in CLIENTS {
        let mut cells = Vec::new();
        for ((dialect, _), stranger) in PLACES.into_iter().zip(STRANGERS) {
            let granted = Asker::new(cluster, NAMESPACE, dialect.pod());
            let stranger = Asker::new(cluster, NAMESPACE, stranger);
            cells.push(refused(granted, client, dialect, &mut table).await);
            cells.push(chain(stranger, client, dialect, "", &mut table).await);
            cells.push(chain(granted, client, dialect, AUDIT.client_id, &mut table).await);
        }
        table.row(client, &cells);
    }
    table.finish()?;
    cluster.no_leaks(mark).await?;
    cast::leave(cluster, NAMESPACE).await
}

/// By client id, an identity that exists and is not granted.
async fn refused(asker: Asker<'_>, client: &Client, dialect: Dialect, table: &mut Table) -> String {
    let here = format!("{}, {}", client.name, dialect.heading());
    match token(asker, client, Selector::Client, &AUDIT).await {
        Ok(said) => {
            table.differs(format!("{here}: refused, but got {said}"));
            "a token".to_owned()
        }
        Err(error) => in_time(milliseconds(&format!("{error:#}")), &here, table),
    }
}

/// The default chain where its managed identity is refused.
async fn chain(
    asker: Asker<'_>,
    client: &Client,
    dialect: Dialect,
    client_id: &str,
    table: &mut Table,
) -> String {
    let Some(goes_on) = client.goes_on(dialect, !client_id.is_empty()) else {
        return "no chain".to_owned();
    };
    let here = format!(
        "{}, {}, chain `{client_id}`",
        client.name,
        dialect.heading()
    );
    let variable = format!("AZURE_CLIENT_ID={client_id}");
    let variables: &[&str] = if client_id.is_empty() {
        &[]
    } else {
        &[&variable]
    };
    let said = asker
        .client_with(variables, client.command, &["chain"])
        .await;
    let said = said.unwrap_or_else(|error| Value::from(format!("{error:#}")));
    if said["went_on"] != goes_on {
        table.differs(format!("{here}: {said}"));
    }
    let took = in_time(said["milliseconds"].as_u64(), &here, table);
    if goes_on {
        return took;
    }
    format!("stops (SDK), {took}")
}

fn in_time(took: Option<u64>, here: &str, table: &mut Table) -> String {
    if took.is_none_or(|took| took > HANG_MILLISECONDS) {
        table.differs(format!("{here}: it hung: {took:?} ms"));
    }
    took.map_or("?".to_owned(), |took| format!("{took} ms"))
}
