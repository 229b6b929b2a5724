//! The agent goes while every client waits for its answer: replaced by a new one, and killed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::sim::faults::{Effect, Fault, Matching, Target};
use serde_json::Value;

use super::report::Table;
use super::start::{BEGIN, started};
use super::table::{CLIENTS, Client, Dialect};
use super::{HANG_MILLISECONDS, ending, run_pod};
use crate::asking::now;
use crate::cast::{self, ORDERS};
use crate::clients::{self, Asker};
use crate::cluster::Cluster;
use crate::faults;
use crate::process::Output;
use crate::release::{DAEMON_SET, NAMESPACE as RELEASE_NAMESPACE};

const NAMESPACE: &str = "matrix-broken";
const NODE: usize = 1;
const LIMIT: Duration = Duration::from_mins(2);
/// How long IMDS takes meanwhile: less than the agent waits for it, more than it takes to kill the agent.
const SLOW: Duration = Duration::from_secs(4);
/// And under a rollout, where there is a new token to be got every two seconds: a pod has a share of those.
const LATE: Duration = Duration::from_secs(1);
const PAUSED: &str = "https://paused.example";

/// Under a rollout no call fails; after a kill those that ask again get their token, the others say what happened.
pub async fn calls_outlive_the_agent_where_the_client_asks_again(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    cast::raise(cluster, NAMESPACE).await?;
    run_pod(cluster, NAMESPACE, &image, (Dialect::Imds, NODE)).await?;
    let mark = cluster.mark().await?;
    let result = async {
        let rolled = under_a_rollout(cluster).await?;
        Ok::<_, anyhow::Error>((rolled, under_a_kill(cluster).await?))
    };
    let result = result.await;
    cluster.azure().clear_faults().await?;
    let (rolled, (after, killed)) = result?;
    let killing = format!("agent killed {after:.1} s after it was asked");
    let columns = ["calls under a rollout", "failed", "the longest", &killing];
    let mut table = Table::new("broken", &columns);
    let limit = Duration::from_secs_f64(after) + Duration::from_millis(HANG_MILLISECONDS);
    let told = ("error", limit);
    for (client, (rolled, killed)) in CLIENTS.iter().zip(rolled.iter().zip(killed)) {
        let hung = rolled.longest > ending::LONGEST.as_secs_f64();
        if rolled.failures > 0 || rolled.calls == 0 || hung {
            table.differs(format!("{}, under a rollout: {rolled:?}", client.name));
        }
        let calls = [
            rolled.calls.to_string(),
            rolled.failures.to_string(),
            format!("{:.1} s", rolled.longest),
        ];
        let killed =
            killed.and_then(|output| ending::cell(output, client.broken, ORDERS.client_id, told));
        table.row_of(client, &calls, killed);
    }
    table.finish()?;
    cluster.no_leaks(mark).await?;
    cast::leave(cluster, NAMESPACE).await
}

/// What a client saw while the agents were replaced.
#[derive(Debug)]
struct Rolled {
    calls: usize,
    failures: usize,
    /// Seconds.
    longest: f64,
    /// The failures' words.
    words: String,
}

/// Each client asks for one new token after the other, slowly answered, until all agents are new.
async fn under_a_rollout(cluster: &Cluster) -> Result<Vec<Rolled>> {
    slow(cluster, LATE).await?;
    let loops = CLIENTS.iter().map(|Client { command, .. }| {
        format!(
            "(until [ -e /tmp/stop ]; do client {command} token --client-id {} \
             --resource https://wave-$(($(date +%s) / 2)).example >>/tmp/{command}.out 2>/tmp/{command}.err; code=$?; \
             echo $code >>/tmp/{command}.codes; [ $code = 0 ] || cat /tmp/{command}.err >>/tmp/{command}.failed; done; \
             touch /tmp/{command}.done) >/dev/null 2>&1 </dev/null &\n",
            ORDERS.client_id
        )
    });
    let scripts: String = loops.collect();
    shell(cluster, &scripts).await?;
    // Every client is at it.
    let each = "for client in $ALL; do [ -s /tmp/$client.out ] || { echo $client; exit 1; }; done";
    holds(cluster, "each client's first token", each).await?;
    let before = cluster.agents().await?;
    let restart = ["rollout", "restart", DAEMON_SET, "-n", RELEASE_NAMESPACE];
    cluster.kubectl(&restart).await?;
    faults::replaced(cluster, &before).await?;
    shell(cluster, "touch /tmp/stop").await?;
    let all = "for client in $ALL; do [ -e /tmp/$client.done ] || { echo $client; exit 1; }; done";
    holds(cluster, "each client's last token", all).await?;
    cluster.azure().clear_faults().await?;
    let mut rolled = Vec::new();
    for Client { command, .. } in CLIENTS {
        let out = shell(cluster, &format!("cat /tmp/{command}.out")).await?;
        let words = shell(
            cluster,
            &format!("cat /tmp/{command}.failed 2>/dev/null || :"),
        )
        .await?;
        let codes = shell(cluster, &format!("cat /tmp/{command}.codes")).await?;
        let failures = codes.lines().filter(|code| *code != "0").count();
        let said = out.lines().map(serde_json::from_str::<Value>);
        let said = said
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| out.clone())?;
        let took = |said: &Value| said["milliseconds"].as_f64().unwrap_or(f64::INFINITY) / 1000.0;
        let ours = |said: &Value| said["client_id"] == ORDERS.client_id;
        ensure!(
            said.iter().all(ours),
            "{command}: another identity's: {said:?}"
        );
        ensure!(
            said.len() + failures == codes.lines().count(),
            "{command}: {} tokens, exit codes {codes:?}",
            said.len()
        );
        rolled.push(Rolled {
            calls: said.len(),
            failures,
            longest: said.iter().map(took).fold(0.0, f64::max),
            words,
        });
    }
    Ok(rolled)
}

/// All clients wait for the agent's answer at once, and it is killed; after how many seconds, and what each left.
async fn under_a_kill(cluster: &Cluster) -> Result<(f64, Vec<Result<Output>>)> {
    slow(cluster, SLOW).await?;
    let asker = Asker::new(cluster, NAMESPACE, Dialect::Imds.pod());
    let calls = CLIENTS.iter().map(|client| {
        let by_id = [
            "token",
            "--client-id",
            ORDERS.client_id,
            "--resource",
            PAUSED,
        ];
        let args = [&by_id[..], &["--after", BEGIN]].concat();
        async move { asker.ended(&[], client.command, &args).await }
    });
    let kill = async {
        let count = CLIENTS.len();
        started(cluster, (NAMESPACE, Dialect::Imds.pod()), count).await?;
        let before = cluster.agents().await?;
        let node = cluster.node(NODE);
        let agent = before
            .iter()
            .find(|agent| agent["spec"]["nodeName"] == node.name());
        let agent = agent.context("no agent on the node")?;
        let pid = faults::pid_of(&node, agent).await?;
        let asked = now();
        // Until all are connected to 169.254.169.254:80; in the pod, because they are answered soon.
        let all = format!(
            "touch {BEGIN}; for look in $(seq 150); do \
             n=$(cat /proc/net/tcp /proc/net/tcp6 | sed -n '/FEA9FEA9:0050 01 /p' | wc -l); \
             [ $n -lt {count} ] || exit 0; sleep 0.02; done; echo $n; exit 1"
        );
        shell(cluster, &all)
            .await
            .context("all clients to wait for an answer")?;
        node.shell(&format!("kill -KILL {pid}")).await?;
        let killed = now() - asked;
        cluster.azure().clear_faults().await?;
        faults::restarted(cluster, std::slice::from_ref(agent)).await?;
        Ok::<_, anyhow::Error>(killed)
    };
    let (said, killed) = tokio::join!(futures_util::future::join_all(calls), kill);
    Ok((killed?, said))
}

/// IMDS answers so late.
async fn slow(cluster: &Cluster, latency: Duration) -> Result<()> {
    let fault = Fault {
        target: Target::Imds,
        matching: Matching::default(),
        after: 0,
        count: None,
        latency: Some(latency),
        effect: None::<Effect>,
        applied: false,
    };
    Ok(cluster.azure().add_fault(&fault).await?)
}

/// Runs a script in the pod; `$ALL` are the clients.
async fn shell(cluster: &Cluster, script: &str) -> Result<String> {
    let all: Vec<&str> = CLIENTS.iter().map(|client| client.command).collect();
    let script = format!("ALL='{}'\n{script}", all.join(" "));
    let shell = ["sh", "-c", &script];
    let output = cluster.pod_exec(NAMESPACE, Dialect::Imds.pod(), &shell);
    output.await?.success("a script in the pod")
}

/// Waits until a script in the pod succeeds.
async fn holds(cluster: &Cluster, what: &str, script: &str) -> Result<()> {
    let holds = async || {
        shell(cluster, script).await?;
        Ok(true)
    };
    cluster.wait_for(what, LIMIT, holds).await
}
