//! Client × dialect × selector: each gets a token of the identity that it means, or says in its own words that it cannot ask.

use std::time::Instant;

use anyhow::Result;

use super::report::{self, Table};
use super::table::{CLIENTS, Client, Dialect, Selector};
use super::{DIALECTS, run_pod, token, words};
use crate::cast::{self, AUDIT, ORDERS, PAYMENTS};
use crate::clients::{self, Asker};
use crate::cluster::Cluster;

const NAMESPACE: &str = "matrix";

/// All pods at once, one for each dialect, the clients one after the other.
pub async fn every_client_speaks_every_dialect(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    // Pods that ask for it are served from inside.
    cluster.install(&["--set=agent.mode=mixed"]).await?;
    cluster.agents_ready().await?;
    cast::raise(cluster, NAMESPACE).await?;
    let mark = cluster.mark().await?;
    let start = Instant::now();
    let pods = DIALECTS.map(|place| run_pod(cluster, NAMESPACE, &image, place));
    futures_util::future::try_join_all(pods).await?;
    let before = spoken(cluster).await?;
    let columns = DIALECTS.map(|(dialect, _)| column(cluster, dialect));
    let columns = futures_util::future::join_all(columns).await;
    let after = spoken(cluster).await?;

    let headings = DIALECTS.map(|(dialect, _)| dialect.heading());
    let mut table = Table::new("dialects", &headings);
    for (index, client) in CLIENTS.iter().enumerate() {
        let cells = columns.iter().map(|cells| cells[index].words.clone());
        table.row(client, &cells.collect::<Vec<_>>());
    }
    // That a token came says nothing of the way that it was asked for.
    for (place, (dialect, _)) in DIALECTS.into_iter().enumerate() {
        let cells = columns.iter().flatten();
        let due: usize = cells.map(|cell| cell.of(dialect)).sum();
        let more = after[place] - before[place];
        if (more - f64::from(u32::try_from(due)?)).abs() > 0.5 {
            let heading = dialect.heading();
            table.differs(format!(
                "{heading}: {more} tokens were asked for in it, not {due}"
            ));
        }
    }
    for cell in columns.into_iter().flatten() {
        cell.differences
            .into_iter()
            .for_each(|what| table.differs(what));
    }
    println!("{} clients: {:.0?}", CLIENTS.len(), start.elapsed());
    let seen = table.finish()?;
    cluster.no_leaks(mark).await?;
    let journal = cluster.journal(mark).await?;
    let strange = journal
        .iter()
        .find(|entry| entry.identity.as_deref() == Some(AUDIT.name));
    anyhow::ensure!(strange.is_none(), "nobody was granted it: {strange:?}");
    cast::leave(cluster, NAMESPACE).await?;
    cluster.install(&["--reset-values"]).await?;
    cluster.agents_ready().await?;
    report::stands_in("README.md", "dialects", &seen)
}

/// A client's cell.
#[derive(Debug)]
struct Cell {
    words: String,
    differences: Vec<String>,
    /// Tokens, and the dialect that they were to be asked for in.
    tokens: usize,
    speaks: Dialect,
}

impl Cell {
    fn of(&self, dialect: Dialect) -> usize {
        if self.speaks == dialect {
            self.tokens
        } else {
            0
        }
    }
}

/// Tokens that were asked for in each dialect, on all nodes.
async fn spoken(cluster: &Cluster) -> Result<Vec<f64>> {
    let mut spoken = Vec::new();
    for (dialect, _) in DIALECTS {
        let name = dialect.counted();
        let series = format!("lanyard_tokens_served_by_dialect_total{{dialect=\"{name}\"}}");
        let mut all = 0.0;
        for node in cluster.nodes() {
            all += node.sample(&series).await?;
        }
        spoken.push(all);
    }
    Ok(spoken)
}

async fn column(cluster: &Cluster, dialect: Dialect) -> Vec<Cell> {
    let asker = Asker::new(cluster, NAMESPACE, dialect.pod());
    let mut cells = Vec::new();
    for client in CLIENTS {
        cells.push(cell(asker, client, dialect).await);
    }
    cells
}

async fn cell(asker: Asker<'_>, client: &Client, dialect: Dialect) -> Cell {
    let mut cell = Cell {
        words: String::new(),
        differences: Vec::new(),
        tokens: 0,
        speaks: client.speaks(dialect),
    };
    let mut works = Vec::new();
    for selector in Selector::ALL {
        let wanted = match selector {
            Selector::Default => &PAYMENTS,
            _ => &ORDERS,
        };
        let said = token(asker, client, selector, wanted).await;
        let excepted = client.refusal(dialect, selector);
        let here = format!(
            "{}, {}, {}",
            client.name,
            dialect.heading(),
            selector.word()
        );
        match (said.and_then(|said| wanted.is_of(&said)), excepted) {
            (Ok(()), None) => works.push(selector),
            (Ok(()), Some(_)) => cell.differences.push(format!("{here}: it got the token")),
            (Err(error), Some(words)) if format!("{error:#}").contains(words) => {}
            (Err(error), _) => cell.differences.push(format!("{here}: {error:#}")),
        }
    }
    cell.tokens = works.len();
    cell.words = words::selectors(client, dialect, &works);
    cell
}
