//! The client matrix: every client in every dialect by every selector, and what each does when it is refused, when its
//! identity is on its way, and when the agent goes in mid-call.
//!
//! In: a cluster with Lanyard, the clients' image. Out: tables of what was seen; an error with everything that is otherwise
//! than `table` says. Blocks for as long as the clients take.

pub mod broken;
pub mod dialects;
mod ending;
pub mod pending;
pub mod refusals;
mod report;
mod start;
mod table;
mod words;

use anyhow::Result;
use serde_json::Value;

use crate::cast::{GRANTED, Identity};
use crate::clients::Asker;
use crate::cluster::Cluster;
use crate::pods::Pod;
use table::{Client, Dialect, Selector};

/// The dialects that are tried, and on which node. The VM extension's needs agents that serve pods from inside.
const DIALECTS: [(Dialect, usize); 4] = [
    (Dialect::Imds, 1),
    (Dialect::AppService, 2),
    (Dialect::AppService2017, 1),
    (Dialect::VmExtension, 2),
];
/// Whoever gives up has done so by then, also on a machine with other work: the slowest seen is Java's refusal, 2.7 s. (What a
/// client that tries again takes, 2 to 5 s, no clock tells from a slow machine.)
const HANG_MILLISECONDS: u64 = 8_000;

/// A pod of the clients' image whose programs speak that dialect.
async fn run_pod(
    cluster: &Cluster,
    namespace: &str,
    image: &str,
    (dialect, node): (Dialect, usize),
) -> Result<()> {
    let pod = Pod::new(namespace, dialect.pod(), node)
        .identity("payments,orders")
        .labels(GRANTED)
        .variables(dialect.variables())
        .annotations(dialect.annotations())
        .image(image);
    cluster.run_pod(&pod).await
}

/// A token of that identity, named so; the client's words otherwise.
async fn token(
    asker: Asker<'_>,
    client: &Client,
    selector: Selector,
    identity: &Identity,
) -> Result<Value> {
    let resource_id = identity.resource_id();
    let id = match selector {
        Selector::Default => "",
        Selector::Client => identity.client_id,
        Selector::Object => identity.object_id,
        Selector::Resource => &resource_id,
    };
    let mut args = vec!["token"];
    args.extend(selector.flag().into_iter().flat_map(|flag| [flag, id]));
    asker.client_with(&[], client.command, &args).await
}
