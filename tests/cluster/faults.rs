//! Invariant 2 on a real cluster: whatever happens to agents, rules and nodes, the door stays closed.
//!
//! In: a cluster with Lanyard, pods that never stop asking. Out: passed, or what came through; how
//! long granted pods were without tokens. Blocks until both nodes have recovered from each fault.
//! Each trial leaves a release that is ready, with the chart's own values.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::asking::now;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::release::NAMESPACE;
use crate::siege::Siege;

const LIMIT: Duration = Duration::from_mins(3);
/// Another program's rules, as a firewall of the host would load them: everything is let pass.
const FOREIGN: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:HOST-FW - [0:0]\n\
    -A FORWARD -j HOST-FW\n-A HOST-FW -p tcp -j ACCEPT\nCOMMIT\n\
    *nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
    -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE\nCOMMIT\n";

/// SIGKILL, eviction, deletion by force: of both nodes' agents at once.
pub async fn an_agent_that_goes_lets_nothing_through(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let siege = Siege::begin(cluster, "agentless").await?;

    let before = cluster.agents().await?;
    let fault = now();
    for agent in &before {
        let node = node_of(cluster, agent)?;
        let pid = pid_of(&node, agent).await?;
        node.shell(&format!("kill -KILL {pid}")).await?;
    }
    restarted(cluster, &before).await?;
    siege.recoveries("killed", fault).await?;
    siege.held("killed", fault).await?;

    let before = cluster.agents().await?;
    let fault = now();
    for agent in &before {
        evict(cluster, name_of(agent)).await?;
    }
    replaced(cluster, &before).await?;
    siege.recoveries("evicted", fault).await?;
    siege.held("evicted", fault).await?;

    let before = cluster.agents().await?;
    let fault = now();
    for agent in &before {
        let name = name_of(agent);
        let delete = ["delete", "pod", name, "-n", NAMESPACE, "--force"];
        let at_once = ["--grace-period=0", "--wait=false"];
        cluster.kubectl(&[&delete[..], &at_once].concat()).await?;
    }
    replaced(cluster, &before).await?;
    siege.recoveries("deleted by force", fault).await?;
    siege.held("deleted by force", fault).await?;
    siege.end().await
}

/// `iptables -F`, `iptables -t nat -F`, kube-proxy ended: one after the other, with agents that run.
pub async fn rules_that_are_flushed_come_back(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let siege = Siege::begin(cluster, "flushed").await?;
    flushed(cluster, &siege, "iptables -F", "iptables -w -F").await?;
    let nat = "iptables -w -t nat -F";
    flushed(cluster, &siege, "iptables -t nat -F", nat).await?;

    let fault = now();
    for node in cluster.nodes() {
        node.service("kube-proxy")?.kill().await?;
        node.service("kube-proxy")?.start().await?;
    }
    services_are_back(cluster).await?;
    siege.recoveries("kube-proxy restarted", fault).await?;
    siege.held("kube-proxy restarted", fault).await?;
    siege.end().await?;
    with_rules_of_their_own(cluster).await
}

/// Both tables at once, and a foreign rule set that lets everything pass: nothing of the two doors in
/// `nat` and `filter` is left until the agent notices.
pub async fn a_foreign_rule_set_lets_nothing_through(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let siege = Siege::begin(cluster, "foreign").await?;
    let both = "iptables -w -F; iptables -w -t nat -F";
    flushed(cluster, &siege, "both tables flushed", both).await?;
    let restore = format!("iptables-restore -w <<'END'\n{FOREIGN}END\n");
    flushed(cluster, &siege, "foreign rules", &restore).await?;
    siege.end().await?;
    with_rules_of_their_own(cluster).await
}

async fn flushed(cluster: &Cluster, siege: &Siege<'_>, what: &str, script: &str) -> Result<()> {
    let fault = now();
    for node in cluster.nodes() {
        node.shell(script).await?;
    }
    rules_are_back(cluster).await?;
    siege.recoveries(what, fault).await?;
    siege.held(what, fault).await
}

/// What others had in these tables (CNI, the nodes' masquerading) is back after a reboot only.
async fn with_rules_of_their_own(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        node.reboot().await?;
    }
    cluster.nodes_ready().await?;
    services_are_back(cluster).await?;
    cluster.agents_ready().await
}

/// With the boot guard: both nodes reboot, once with their agents and once without.
pub async fn a_rebooted_node_is_closed_before_its_agent_starts(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let guarded = ["--set=agent.bootGuard.enabled=true"];
    cluster.install(&guarded).await?;
    cluster.agents_ready().await?;
    let siege = Siege::begin(cluster, "rebooted").await?;
    let fault = now();
    for node in cluster.nodes() {
        let unit = "/etc/systemd/system/kubelet.service.wants/lanyard-boot-guard.service";
        node.shell(&format!("test -e {unit}"))
            .await
            .context("no boot guard")?;
        node.reboot().await?;
    }
    siege.restarts("rebooted", fault).await?;
    siege.held("rebooted", fault).await?;
    cluster.nodes_ready().await?;
    cluster.agents_ready().await?;

    // Agents come late: none may run at all when the nodes boot.
    let nowhere = "--set=agent.nodeSelector.kubernetes\\.io/os=none";
    cluster.install(&[guarded[0], nowhere]).await?;
    let gone = async || Ok(cluster.agents().await?.is_empty());
    cluster.wait_for("no agent to be left", LIMIT, gone).await?;
    let fault = now();
    for node in cluster.nodes() {
        node.reboot().await?;
    }
    let booted = now();
    // Refused connections; not the half-second of a pod's own end, and not an agent's answer.
    let refused = |status| status == 0;
    siege
        .strangers_see("asking without an agent", booted, 60, refused)
        .await?;
    siege.held("rebooted without agents", fault).await?;
    let back = now();
    cluster.install(&guarded).await?;
    cluster.agents_ready().await?;
    siege.recoveries("agents came late", back).await?;
    siege.held("agents came late", fault).await?;
    siege.end().await?;
    cluster.install(&["--reset-values"]).await?;
    cluster.agents_ready().await
}

fn name_of(agent: &Value) -> &str {
    agent["metadata"]["name"].as_str().unwrap_or_default()
}

/// Where it runs.
pub fn node_of<'a>(cluster: &'a Cluster, agent: &Value) -> Result<Node<'a>> {
    let mut nodes = cluster.nodes();
    let node = nodes.find(|node| agent["spec"]["nodeName"] == node.name());
    node.with_context(|| format!("{} is on no node", name_of(agent)))
}

/// What kubelet says of the agent's own container; another one may be beside it.
pub fn container_of(agent: &Value) -> &Value {
    let statuses = agent["status"]["containerStatuses"].as_array();
    let named = |status: &&Value| status["name"] == "agent";
    statuses
        .and_then(|all| all.iter().find(named))
        .unwrap_or(&Value::Null)
}

/// The agent's pid as its node numbers it.
pub async fn pid_of(node: &Node<'_>, agent: &Value) -> Result<u32> {
    let id = container_of(agent)["containerID"].as_str();
    let id = id.and_then(|id| id.strip_prefix("containerd://"));
    let id = id.with_context(|| format!("{} has no container", name_of(agent)))?;
    let tasks = node.shell("ctr -n k8s.io tasks ls").await?;
    let task = tasks.lines().find_map(|line| line.strip_prefix(id));
    let pid = task.and_then(|rest| rest.split_whitespace().next());
    Ok(pid.with_context(|| format!("{id} does not run"))?.parse()?)
}

async fn evict(cluster: &Cluster, name: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction");
    let eviction = format!(
        "{{\"apiVersion\":\"policy/v1\",\"kind\":\"Eviction\",\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"{NAMESPACE}\"}}}}"
    );
    let args = ["create", "--raw", &path, "-f", "-"];
    let said = cluster.kubectl_with(&args, &eviction).await?;
    said.success("the eviction").map(drop)
}

/// The same pods, with another container in each.
pub async fn restarted(cluster: &Cluster, before: &[Value]) -> Result<()> {
    let restarts = |agent: &Value| container_of(agent)["restartCount"].as_u64();
    let again = async || {
        let after = cluster.agents().await?;
        Ok(before.iter().all(|old| {
            let now = after.iter().find(|agent| name_of(agent) == name_of(old));
            now.is_some_and(|now| restarts(now) > restarts(old))
        }))
    };
    cluster
        .wait_for("the agents to be restarted", LIMIT, again)
        .await?;
    cluster.agents_ready().await
}

/// Other pods.
pub async fn replaced(cluster: &Cluster, before: &[Value]) -> Result<()> {
    let others = async || {
        let after = cluster.agents().await?;
        Ok(before
            .iter()
            .all(|old| after.iter().all(|agent| name_of(agent) != name_of(old))))
    };
    cluster.wait_for("other agents", LIMIT, others).await?;
    cluster.agents_ready().await
}

async fn rules_are_back(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let look = "iptables -w -t nat -S; iptables -w -S";
        let back = async || {
            let rules = node.shell(look).await?;
            let has = |rule: &str| rules.lines().any(|line| line.contains(rule));
            ensure!(
                has("-j LANYARD-PREROUTING")
                    && has("-j DNAT --to-destination 169.254.169.252")
                    && has("-j LANYARD-FORWARD")
                    && has("-A LANYARD-FORWARD -d 169.254.169.254/32"),
                "{rules}"
            );
            Ok(true)
        };
        let what = format!("the rules of {}", node.name());
        cluster.wait_for(&what, LIMIT, back).await?;
    }
    Ok(())
}

/// kube-proxy has laid its rules anew.
async fn services_are_back(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let version = "curl -sk -m 3 -o /dev/null -w '%{http_code}' https://10.96.0.1/version";
        let answers = async || Ok(node.shell(version).await? == "200");
        let what = format!("services on {}", node.name());
        cluster.wait_for(&what, LIMIT, answers).await?;
    }
    Ok(())
}
