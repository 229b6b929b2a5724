//! Commands to a first process, from the machine's side.
//!
//! In: its pid as the machine numbers it, and an order. Out: its answer. Blocks on the answer,
//! bounded. Invariant: the socket is reached through the process's own root, so that it cannot be
//! somebody else's, and no path is too long for a socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Answer, Order, SOCKET, Status};

const LIMIT: Duration = Duration::from_secs(30);

/// The path of `inside` as seen from the machine.
pub fn path_of(pid: u32, inside: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{inside}"))
}

/// Gives an order and waits until it has been carried out.
pub async fn order(pid: u32, order: &Order) -> Result<BTreeMap<String, Status>> {
    let talk = async {
        let mut stream = UnixStream::connect(path_of(pid, SOCKET)).await?;
        let line = format!("{}\n", serde_json::to_string(order)?);
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok::<_, anyhow::Error>(serde_json::from_str::<Answer>(&answer)?)
    };
    let answer = tokio::time::timeout(LIMIT, talk).await;
    let answer = answer.map_err(|_| anyhow!("no answer in {} s", LIMIT.as_secs()));
    let answer = answer.and_then(|answer| answer);
    let answer = answer.with_context(|| format!("first process {pid}: {order:?}"))?;
    answer.map_err(|said| anyhow!(said))
}

/// Whether it takes commands.
pub async fn answers(pid: u32) -> bool {
    order(pid, &Order::Status).await.is_ok()
}
