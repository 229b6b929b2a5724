//! The startup gate and the removal marker, on a real API server with the agent's own rights.
//!
//! In: a Node object with taints, `ConfigMaps` as the chart's hook writes them. Out: the taint goes only
//! after the self-test has passed and takes no other with it; the marker clears the node, for good.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::demo::cast::Cast;
use lanyard::lab::{Agent, AgentSetup, Bundles, Get, Node, until};
use serde_json::Value;

use crate::apiserver::ApiServer;
use crate::bootguard::{UNIT, host};
use crate::harness::Stage;
use crate::inside::{is_clear, is_inside, lay_left_overs};
use crate::standin::on_node;

const WAIT: Duration = Duration::from_secs(30);
const MARKER: &str = "lanyard-removal";

/// What the chart's role adds for the gate.
const RIGHTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: lanyard-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: gate}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: gate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: gate}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: lanyard-agents}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: gate, namespace: lanyard-system}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [lanyard-removal], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [configmaps], resourceNames: [lanyard-removal-acks], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: gate, namespace: lanyard-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gate}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: lanyard-agents}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: lanyard-removal-acks, namespace: lanyard-system}
"#;

async fn object(api: &ApiServer, args: &[&str]) -> Result<Value> {
    let args = [&["get", "-o", "json"], args].concat();
    Ok(serde_json::from_str(&api.kubectl(&args, "").await?)?)
}

async fn taints(api: &ApiServer, node: &Node) -> Result<Vec<String>> {
    let node = object(api, &["node", node.name()]).await?;
    let taints = node["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let words = |taint: &Value| format!("{}:{}", taint["key"], taint["effect"]).replace('"', "");
    Ok(taints.iter().map(words).collect())
}

async fn ready_page(node: &Node, agent: &Agent) -> String {
    let asked = node
        .namespace()
        .get(agent.admin(), &Get::new("/readyz"))
        .await;
    asked.map_or_else(|error| error.to_string(), |reply| reply.body)
}

pub async fn the_taint_goes_when_the_proof_is_there(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let api = ApiServer::start(&cast.lab, &stage.logs).await?;
    api.apply(RIGHTS).await?;
    let node = cast.lab.node().clone();
    let tainted = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\nspec:\n  taints:\n\
         \x20 - {{key: lanyard.dev/agent-not-ready, effect: NoSchedule}}\n\
         \x20 - {{key: other.dev/gpu, value: \"1\", effect: NoSchedule}}\n\
         \x20 - {{key: lanyard.dev/agent-not-ready, effect: NoExecute, timeAdded: 2026-01-01T00:00:00Z}}\n",
        node.name()
    );
    api.kubectl(&["create", "-f", "-"], &tainted).await?;
    ensure!(taints(&api, &node).await?.len() >= 3);
    let drop = |what: &str| {
        format!(
            "iptables-{} -t raw {what} PREROUTING -s 169.254.169.251 -j DROP",
            stage.backend
        )
    };
    on_node(&node, &drop("-A")).await?;
    let setup = AgentSetup::of_cluster(&node, &api.kubeconfig())
        .flag("--iptables-backend", &stage.backend)
        .flag("--startup-taint", "true");
    let mut agent = cast.lab.start_agent(&setup)?;
    let only_the_proof = async || {
        let page = ready_page(&node, &agent).await;
        page.trim().lines().count() == 1 && page.starts_with("self-test: no answer")
    };
    until(WAIT, "all but the self-test", only_the_proof).await?;
    ensure!(
        taints(&api, &node).await?.len() >= 3,
        "opened without proof"
    );
    on_node(&node, &drop("-D")).await?;
    agent.ready(WAIT).await?;
    let opened = async || {
        let left = taints(&api, &node).await.unwrap_or_default();
        left.iter().all(|taint| !taint.starts_with("lanyard.dev/"))
    };
    until(WAIT, "the node to be opened", opened).await?;
    let left = taints(&api, &node).await?;
    ensure!(
        left.contains(&"other.dev/gpu:NoSchedule".to_owned()),
        "{left:?}"
    );
    let counted = async || {
        let metrics = agent.metrics().await.unwrap_or_default();
        metrics.contains("lanyard_startup_taint_removed_total 1")
    };
    Ok(until(WAIT, "the metric", counted).await?)
}

pub async fn the_marker_clears_the_node_for_good(stage: Stage) -> Result<()> {
    let root = host(&stage)?;
    let cast = Cast::raise(stage.lab, &[]).await?;
    let api = ApiServer::start(&cast.lab, &stage.logs).await?;
    api.apply(RIGHTS).await?;
    let (node, b) = (cast.lab.node().clone(), stage.backend.clone());
    let bundles = Bundles::new(&cast.lab)?;
    bundles.add("one", &cast.payments)?;
    let setup = AgentSetup::of_cluster(&node, &api.kubeconfig())
        .flag("--iptables-backend", &b)
        .flag("--boot-guard", &root.to_string_lossy())
        .flag("--removal-marker", MARKER)
        .flag("--mode", "in-pod")
        .flag("--runtime-state", &bundles.path().display().to_string());
    let mut agent = cast.lab.agent(&setup).await?;
    until(WAIT, "the boot guard", async || root.join(UNIT).exists()).await?;
    until(WAIT, "a listener inside", async || {
        is_inside(&cast.payments).await
    })
    .await?;
    ensure!(rules(&node, &b).await?.contains("LANYARD-"));

    let marker = ["-n", "lanyard-system", "create", "configmap", MARKER];
    api.kubectl(&marker, "").await?;
    acknowledged(&api, &node).await?;
    is_clean(&node, &b, &root).await?;
    ensure!(is_clear(&cast.payments).await);
    bundles.add("late", &cast.reports)?;
    let page = ready_page(&node, &agent).await;
    ensure!(
        page.contains("removal: ConfigMap lanyard-system/lanyard-removal"),
        "{page}"
    );

    // One that starts now says so as well, lays nothing, and takes away what it finds.
    agent.process.kill9().await?;
    forget(&api).await?;
    for pod in [&cast.payments, &cast.reports] {
        ensure!(is_clear(pod).await, "{} is not left alone", pod.name());
        lay_left_overs(pod).await?;
        ensure!(!is_clear(pod).await, "nothing is left over");
    }
    let mut agent = cast
        .lab
        .start_agent(&setup.clone().second("agent-2", 9465))?;
    acknowledged(&api, &node).await?;
    is_clean(&node, &b, &root).await?;
    ensure!(is_clear(&cast.payments).await && is_clear(&cast.reports).await);
    let log = std::fs::read_to_string(stage.logs.join("agent-2.log"))?;
    ensure!(!log.contains("rules laid"), "{log}");

    // The marker goes, and nothing comes back but by a new start.
    api.kubectl(&["-n", "lanyard-system", "delete", "configmap", MARKER], "")
        .await?;
    is_clean(&node, &b, &root).await?;
    let page = ready_page(&node, &agent).await;
    ensure!(page.contains("removal: ConfigMap"), "{page}");
    agent.process.term();
    agent.process.wait_exit(WAIT).await?;
    ensure!(!node.state_dir().exists(), "state files are left");
    let _agent = cast.lab.agent(&setup.second("agent-3", 9466)).await?;
    ensure!(rules(&node, &b).await?.contains("LANYARD-"));
    Ok(())
}

async fn acknowledged(api: &ApiServer, node: &Node) -> Result<()> {
    let acks = ["-n", "lanyard-system", "configmap", "lanyard-removal-acks"];
    let said = async || {
        let acks = object(api, &acks).await.unwrap_or_default();
        let said = acks["data"][node.name()]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        said.starts_with("removed 20") && said.ends_with('Z')
    };
    Ok(until(WAIT, "the acknowledgement", said).await?)
}

/// Nobody has acknowledged anything.
async fn forget(api: &ApiServer) -> Result<()> {
    let patch = [
        "-n",
        "lanyard-system",
        "patch",
        "configmap",
        "lanyard-removal-acks",
        "--type=json",
    ];
    let patch = [
        &patch[..],
        &["-p", r#"[{"op": "remove", "path": "/data"}]"#],
    ]
    .concat();
    api.kubectl(&patch, "").await.map(drop)
}

async fn rules(node: &Node, backend: &str) -> Result<String> {
    on_node(node, &format!("iptables-{backend}-save")).await
}

async fn is_clean(node: &Node, backend: &str, root: &Path) -> Result<()> {
    let left = rules(node, backend).await?;
    ensure!(!left.contains("LANYARD"), "{left}");
    let addresses = on_node(node, "ip -o -4 addr show dev lo").await?;
    ensure!(!addresses.contains("169.254.169.252"), "{addresses}");
    ensure!(!root.join(UNIT).exists(), "the boot guard is left");
    Ok(())
}
