//! A real Prometheus scrapes both agents, and its answers are what was caused.
//!
//! In: a cluster with Lanyard. Out: passed, or the query whose number is wrong. Prometheus is Debian's
//! and runs on node-1. Debian builds it without the discovery of Kubernetes, so it is told by its
//! discovery by file what the pods' annotations say (`prometheus.io/port`). Blocks until it has
//! scraped often enough.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cast::{self, GRANTED, ORDERS, PAYMENTS};
use crate::cluster::Cluster;
use crate::pods::Pod;

const LIMIT: Duration = Duration::from_mins(1);
/// Prometheus' folder on the node.
const FOLDER: &str = "/tmp/watcher";
const TOKEN: &str = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01";
/// How often each pod asks for its token, and how often the refused one does.
const ASKED: usize = 7;
const REFUSED: usize = 3;

/// Tokens by identity, hit ratio and refusals, asked from Prometheus.
pub async fn prometheus_finds_the_agents_and_counts_what_was_caused(
    cluster: &Cluster,
) -> Result<()> {
    const SHOP: &str = "scraped";
    cluster.lanyard().await?;
    cast::raise(cluster, SHOP).await?;
    let pods = [
        (1, "pay-1", &PAYMENTS),
        (2, "pay-2", &PAYMENTS),
        (2, "order-2", &ORDERS),
    ];
    for (node, name, identity) in pods {
        let pod = Pod::new(SHOP, name, node)
            .identity(identity.name)
            .labels(GRANTED);
        cluster.run_pod(&pod).await?;
    }
    let stranger = Pod::new(SHOP, "stranger", 1);
    cluster.run_pod(&stranger).await?;
    let prometheus = Prometheus::start(cluster).await?;
    prometheus
        .wait("both agents", "count(up{job=\"lanyard\"} == 1)", |agents| {
            (agents - 2.0).abs() < 0.5
        })
        .await?;
    let hits = r#"sum(lanyard_tokens_served_total{cache="hit"})"#;
    let all = "sum(lanyard_tokens_served_total)";
    let refusals = "sum(lanyard_refusals_total)";
    let before = [
        prometheus.number(hits).await?,
        prometheus.number(all).await?,
        prometheus.number(refusals).await?,
    ];
    for (_, name, _) in pods {
        ask(cluster, SHOP, name, ASKED, "200").await?;
    }
    ask(cluster, SHOP, "stranger", REFUSED, "400").await?;

    let of = |name: &str| {
        format!(r#"sum(lanyard_identity_tokens_served_total{{identity="{SHOP}/{name}"}})"#)
    };
    let each = count(ASKED);
    for (what, query, wanted) in [
        ("tokens of payments, both nodes", of("payments"), 2.0 * each),
        ("tokens of orders", of("orders"), each),
        ("tokens of nobody's", of("audit"), 0.0),
        ("refusals", refusals.to_owned(), before[2] + count(REFUSED)),
        ("all tokens", all.to_owned(), before[1] + 3.0 * each),
        // Each node's first request for each identity is fetched, the others are answered from the cache.
        ("hits", hits.to_owned(), before[0] + 3.0 * (each - 1.0)),
    ] {
        let seen = |value: f64| (value - wanted).abs() < 0.5;
        prometheus
            .wait(what, &query, seen)
            .await
            .with_context(|| format!("{what} should be {wanted}"))?;
    }
    let ratio = prometheus.number(&format!("{hits} / {all}")).await?;
    println!("cache hit ratio of this run, as Prometheus sees it: {ratio:.2}");
    prometheus.stop().await?;
    cast::leave(cluster, SHOP).await
}

async fn ask(cluster: &Cluster, ns: &str, pod: &str, times: usize, status: &str) -> Result<()> {
    let script = format!(
        "for n in $(seq {times}); do curl -s -o /dev/null -w '%{{http_code}}\\n' -H Metadata:true '{TOKEN}&resource=https://vault.azure.net'; done"
    );
    let said = cluster.pod_exec(ns, pod, &["sh", "-c", &script]).await?;
    let all = said.stdout.lines().filter(|line| *line == status).count();
    ensure!(all == times, "{pod} was to get {status}: {said:?}");
    Ok(())
}

fn count(times: usize) -> f64 {
    f64::from(u16::try_from(times).unwrap_or(u16::MAX))
}

/// Debian's Prometheus on node-1.
struct Prometheus<'a> {
    cluster: &'a Cluster,
}

impl<'a> Prometheus<'a> {
    async fn start(cluster: &'a Cluster) -> Result<Self> {
        let node = cluster.node(1);
        node.shell(&format!("mkdir -p {FOLDER}")).await?;
        let found = serde_json::to_vec(&targets(&cluster.agents().await?)?)?;
        node.exec_with(&format!("cat > {FOLDER}/agents.json"), &found)
            .await?;
        node.exec_with(
            &format!("cat > {FOLDER}/prometheus.yaml"),
            CONFIG.as_bytes(),
        )
        .await?;
        node.shell(&format!(
            "cd {FOLDER} && {{ setsid prometheus --config.file=prometheus.yaml --storage.tsdb.path=data \
             --web.listen-address=127.0.0.1:9090 > log 2>&1 & }}; echo $! > pid"
        ))
        .await?;
        Ok(Self { cluster })
    }

    /// One number.
    async fn number(&self, query: &str) -> Result<f64> {
        let asked = "curl -s --max-time 5 http://127.0.0.1:9090/api/v1/query --data-urlencode \"query=$(cat)\"";
        let said = self
            .cluster
            .node(1)
            .exec_with(asked, query.as_bytes())
            .await?;
        let reply: Value =
            serde_json::from_str(&said.stdout).with_context(|| format!("{query}: {said:?}"))?;
        let result = reply["data"]["result"]
            .as_array()
            .with_context(|| format!("{query}: {reply}"))?;
        // No series is a sum of nothing.
        let Some(first) = result.first() else {
            return Ok(0.0);
        };
        Ok(first["value"][1].as_str().unwrap_or_default().parse()?)
    }

    async fn wait(&self, what: &str, query: &str, seen: impl Fn(f64) -> bool) -> Result<()> {
        self.cluster
            .wait_for(what, LIMIT, async || Ok(seen(self.number(query).await?)))
            .await
    }

    async fn stop(self) -> Result<()> {
        let node = self.cluster.node(1);
        node.shell(&format!("kill $(cat {FOLDER}/pid); rm -rf {FOLDER}"))
            .await?;
        Ok(())
    }
}

const CONFIG: &str = "\
global: {scrape_interval: 2s}
scrape_configs:
  - job_name: lanyard
    file_sd_configs: [{files: [agents.json]}]
";

/// What discovery would make of the agents' pods: their address, and the port that they are annotated with.
fn targets(agents: &[Value]) -> Result<Value> {
    let target = |pod: &Value| -> Result<Value> {
        let annotation = &pod["metadata"]["annotations"]["prometheus.io/port"];
        let port = annotation
            .as_str()
            .context("no port among the annotations")?;
        let address = pod["status"]["podIP"].as_str().context("no address")?;
        let node = &pod["spec"]["nodeName"];
        Ok(json!({"targets": [format!("{address}:{port}")], "labels": {"node": node}}))
    };
    agents
        .iter()
        .map(target)
        .collect::<Result<Vec<_>>>()
        .map(Value::from)
}
