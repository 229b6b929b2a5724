//! Invariant 9 on a real API server: what the service accounts of the release may do, and no more.
//!
//! In: a cluster with Lanyard. Out: passed, or the right that is one too many. Blocks on kubectl.
//! The thief of these trials has an agent's token, bound to its pod as kubelet gets it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::release::{CHART, NAMESPACE, RELEASE};

/// Values that the chart takes; nothing signs in with them.
const WITH_CONTROLLER: &[&str] = &[
    "--set=controller.enabled=true",
    "--set=controller.azure.auth=nodeIdentity",
];
const WITH_HOST_TOKEN: &[&str] = &["--set=hostToken.enabled=true"];
const TAINT: &str = "lanyard.dev/agent-not-ready";

/// An agent's, with the chart's own values.
pub const AGENT: &[&str] = &[
    "azureassignments.lanyard.dev [] [get list watch]",
    "azureidentities.lanyard.dev [] [get list watch]",
    "azureidentitybindings.lanyard.dev [] [get list watch]",
    "azureidentitypolicies.lanyard.dev [] [get list watch]",
    "azuremetadataexceptions.lanyard.dev [] [get list watch]",
    "configmaps [lanyard-removal-acks] [get patch]",
    "configmaps [lanyard-removal] [get list watch]",
    "events.events.k8s.io [] [create patch]",
    "namespaces [] [get list watch]",
    "nodes [] [get patch]",
    "pods [] [get list watch]",
];

/// The controller's, in its own namespace.
pub const CONTROLLER: &[&str] = &[
    "azureassignments.lanyard.dev [] [get list watch create update patch delete]",
    "azureassignments.lanyard.dev/status [] [update patch]",
    "azureidentities.lanyard.dev [] [get list watch patch]",
    "azureidentities.lanyard.dev/status [] [update patch]",
    "azureidentitybindings.lanyard.dev [] [get list watch]",
    "azureidentitybindings.lanyard.dev/status [] [update patch]",
    "azureidentitypolicies.lanyard.dev [] [get list watch]",
    "azureidentitypolicies.lanyard.dev/status [] [update patch]",
    "azuremetadataexceptions.lanyard.dev [] [get list watch]",
    "azuremetadataexceptions.lanyard.dev/status [] [update patch]",
    "configmaps [lanyard-removal] [get list watch]",
    "deployments.apps [] [get]",
    "events.events.k8s.io [] [create patch]",
    "leases.coordination.k8s.io [] [create]",
    "leases.coordination.k8s.io [lanyard-controller] [get update]",
    "namespaces [] [get list watch]",
    "nodes [] [get list watch]",
    "pods [] [get list watch]",
    "statefulsets.apps [] [get]",
];

const REMOVAL: &[&str] = &[
    "azureidentities.lanyard.dev [] [list patch]",
    "configmaps [] [create]",
    "configmaps [lanyard-removal-acks] [get patch]",
    "configmaps [lanyard-removal] [get patch]",
    "daemonsets.apps [lanyard-agent] [get]",
    "pods [] [list]",
];

/// `kubectl auth can-i --list` of every service account, held against the lists above.
pub async fn service_accounts_may_do_what_is_listed_and_nothing_else(
    cluster: &Cluster,
) -> Result<()> {
    cluster.lanyard().await?;
    expect(cluster, "lanyard-agent", NAMESPACE, AGENT).await?;
    let elsewhere: Vec<_> = AGENT
        .iter()
        .copied()
        .filter(|right| !right.starts_with("configmaps"))
        .collect();
    expect(cluster, "lanyard-agent", "kube-system", &elsewhere).await?;
    // Helm makes this account for the time of the uninstall only: here it is for the time of a look.
    during(cluster, "removal.yaml", &[], async || {
        expect(cluster, "lanyard-removal", NAMESPACE, REMOVAL).await?;
        expect(cluster, "lanyard-removal", "kube-system", &REMOVAL[..1]).await
    })
    .await?;
    during(cluster, "host-token.yaml", WITH_HOST_TOKEN, async || {
        let reviews = [
            "subjectaccessreviews.authorization.k8s.io [] [create]",
            "tokenreviews.authentication.k8s.io [] [create]",
        ];
        expect(
            cluster,
            "lanyard-agent",
            NAMESPACE,
            &[AGENT, &reviews].concat(),
        )
        .await
    })
    .await?;
    // The webhook that adds variables needs nothing of the cluster; with the guard: tests/cluster/theft.rs.
    let with_app_service = &["--set=appService.enabled=true"];
    during(cluster, "admission.yaml", with_app_service, async || {
        expect(cluster, "lanyard-admission", NAMESPACE, &[]).await
    })
    .await?;
    // Its rights are on a cluster whether it runs there or not.
    during(
        cluster,
        "controller-rbac.yaml",
        WITH_CONTROLLER,
        async || {
            expect(cluster, "lanyard-controller", NAMESPACE, CONTROLLER).await?;
            let elsewhere: Vec<_> = CONTROLLER
                .iter()
                .copied()
                .filter(|right| !right.starts_with("configmaps") && !right.starts_with("leases"))
                .collect();
            expect(cluster, "lanyard-controller", "kube-system", &elsewhere).await
        },
    )
    .await
}

/// Looks while the service accounts and rights of that template are there, with those further values.
async fn during(
    cluster: &Cluster,
    template: &str,
    values: &[&str],
    look: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let template = format!("templates/{template}");
    let args = ["template", RELEASE, CHART, "-n", NAMESPACE];
    let rendered = cluster
        .helm(&[&args[..], &["--show-only", &template], values].concat())
        .await?;
    let rights = rendered
        .split("\n---\n")
        .filter(|document| {
            ["kind: Role", "kind: ClusterRole", "kind: ServiceAccount"]
                .iter()
                .any(|kind| document.contains(kind))
        })
        .collect::<Vec<_>>()
        .join("\n---\n");
    cluster.apply(&rights).await?;
    let looked = look().await;
    cluster.delete(&rights).await?;
    looked
}

/// An error if the account may do anything else in that namespace, or cannot do one of these.
pub async fn expect(
    cluster: &Cluster,
    account: &str,
    namespace: &str,
    wanted: &[&str],
) -> Result<()> {
    let who = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let groups = format!("--as-group=system:serviceaccounts:{NAMESPACE}");
    let args = [
        "auth",
        "can-i",
        "--list",
        "--no-headers",
        "-n",
        namespace,
        &who,
        "--as-group=system:serviceaccounts",
        "--as-group=system:authenticated",
        &groups,
    ];
    let listed = cluster.kubectl(&args).await?;
    let rights: BTreeSet<String> = listed.lines().filter_map(right).collect();
    let wanted: BTreeSet<String> = wanted.iter().map(|right| (*right).to_owned()).collect();
    let more: Vec<_> = rights.difference(&wanted).collect();
    let less: Vec<_> = wanted.difference(&rights).collect();
    ensure!(
        more.is_empty() && less.is_empty(),
        "{account} in {namespace} may {more:?} beyond what is listed, and lacks {less:?}"
    );
    Ok(())
}

/// `RESOURCE [NAMES] [VERBS]`; `None` for what every authenticated user may (asking about itself,
/// and addresses that are no objects).
fn right(line: &str) -> Option<String> {
    let (resource, rest) = line.split_once(char::is_whitespace)?;
    if resource.is_empty() || resource.starts_with("self") {
        return None;
    }
    let parts: Vec<&str> = rest.split('[').skip(1).collect();
    let part = |index: usize| {
        parts
            .get(index)
            .map(|part| part.trim().trim_end_matches(']'))
    };
    Some(format!("{resource} [{}] [{}]", part(1)?, part(2)?))
}

/// A token of node-2's agent, in a thief's hands.
pub async fn a_stolen_agent_token_opens_no_node_but_its_own(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let bound = thief(cluster, "bound", Some("node-2")).await?;
    let unbound = thief(cluster, "unbound", None).await?;
    let clean = "[{\"op\":\"remove\",\"path\":\"/spec/taints\"}]";
    cluster.kubectl(&["cordon", "node-1"]).await?;
    // Another node's taints, by the token of node-2, and its own by a token of no node.
    refused(
        cluster,
        &bound,
        "node-1",
        "json",
        clean,
        "node that they run on",
    )
    .await?;
    cluster.kubectl(&["uncordon", "node-1"]).await?;
    cluster
        .kubectl(&["taint", "node", "node-2", "other=1:PreferNoSchedule"])
        .await?;
    refused(cluster, &unbound, "node-2", "json", clean, "of no node").await?;
    // Its own node, anything but the startup taint.
    refused(cluster, &bound, "node-2", "json", clean, "taints").await?;
    for (what, change) in [
        ("a label", "{\"metadata\":{\"labels\":{\"stolen\":\"1\"}}}"),
        (
            "an annotation",
            "{\"metadata\":{\"annotations\":{\"stolen\":\"1\"}}}",
        ),
        (
            "a finalizer",
            "{\"metadata\":{\"finalizers\":[\"example.com/stolen\"]}}",
        ),
        ("cordon", "{\"spec\":{\"unschedulable\":true}}"),
        (
            "another taint",
            "{\"spec\":{\"taints\":[{\"key\":\"stolen\",\"effect\":\"NoExecute\"}]}}",
        ),
        (
            "the startup taint itself",
            "{\"spec\":{\"taints\":[{\"key\":\"lanyard.dev/agent-not-ready\",\"effect\":\"NoExecute\"}]}}",
        ),
    ] {
        let told = refused(
            cluster,
            &bound,
            "node-2",
            "merge",
            change,
            "Lanyard's agents",
        );
        told.await.with_context(|| what.to_owned())?;
    }
    cluster
        .kubectl(&["taint", "node", "node-2", "other-"])
        .await?;
    // What it may: nothing is left to remove, so this changes nothing, and is let pass.
    let same = "{\"metadata\":{\"labels\":{}}}";
    let output = patch(cluster, &bound, "node-2", "merge", same).await?;
    ensure!(
        output.code == 0,
        "a change of nothing was refused: {}",
        output.stderr
    );
    // The marker that opens every node is not an agent's to set.
    let create = ["create", "configmap", "lanyard-removal", "-n", NAMESPACE];
    let output = cluster
        .kubectl_with(&[&["--kubeconfig", &bound], &create[..]].concat(), "")
        .await?;
    ensure!(
        output.stderr.contains("forbidden"),
        "an agent set the marker: {}",
        output.stderr
    );
    acknowledges_only_for_its_own_node(cluster, &bound, &unbound).await
}

async fn acknowledges_only_for_its_own_node(
    cluster: &Cluster,
    bound: &str,
    unbound: &str,
) -> Result<()> {
    let patch = async |who: &str, change: &str| {
        let acks = [
            "patch",
            "configmap",
            "lanyard-removal-acks",
            "-n",
            NAMESPACE,
        ];
        let change = ["--kubeconfig", who, "--type=merge", "-p", change];
        cluster
            .kubectl_with(&[&acks[..], &change[..]].concat(), "")
            .await
    };
    for (who, change) in [
        (unbound, "{\"data\":{\"node-2\":\"removed\"}}"),
        (bound, "{\"data\":{\"node-1\":\"removed\"}}"),
        (bound, "{\"immutable\":true}"),
        (
            bound,
            "{\"metadata\":{\"finalizers\":[\"example.com/stolen\"]}}",
        ),
        (bound, "{\"metadata\":{\"labels\":{\"stolen\":\"1\"}}}"),
    ] {
        let output = patch(who, change).await?;
        ensure!(
            output.code != 0 && output.stderr.contains("Lanyard's agents"),
            "{change}: {}{}",
            output.stdout,
            output.stderr
        );
    }
    for value in ["\"removed\"", "null"] {
        let output = patch(bound, &format!("{{\"data\":{{\"node-2\":{value}}}}}")).await?;
        ensure!(output.code == 0, "its own word: {}", output.stderr);
    }
    Ok(())
}

/// The agent itself still can: the taint is put on its node and goes.
pub async fn an_agent_removes_the_startup_taint_of_its_own_node(cluster: &Cluster) -> Result<()> {
    cluster.lanyard().await?;
    let taint = format!("{TAINT}=:NoSchedule");
    cluster
        .kubectl(&["taint", "node", "node-1", &taint, "keep=1:PreferNoSchedule"])
        .await?;
    let limit = std::time::Duration::from_mins(2);
    let gone = cluster
        .wait_for("the startup taint to be removed", limit, async || {
            let node = cluster.get(&["node", "node-1"]).await?;
            Ok(!node["spec"]["taints"].to_string().contains(TAINT))
        })
        .await;
    let node = cluster.get(&["node", "node-1"]).await?;
    cluster
        .kubectl(&["taint", "node", "node-1", "keep-"])
        .await?;
    gone?;
    ensure!(
        node["spec"]["taints"].to_string().contains("keep"),
        "another taint went with it: {}",
        node["spec"]["taints"]
    );
    Ok(())
}

/// A kubeconfig with an agent's token, bound to the agent's pod on that node or to none.
pub async fn thief(cluster: &Cluster, name: &str, node: Option<&str>) -> Result<String> {
    let mut args = vec!["create", "token", "lanyard-agent", "-n", NAMESPACE];
    let (pod, uid);
    if let Some(node) = node {
        let agents = cluster.agents().await?;
        let agent = agents.iter().find(|pod| pod["spec"]["nodeName"] == node);
        let metadata = &agent.with_context(|| format!("no agent on {node}"))?["metadata"];
        let word = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        pod = format!("--bound-object-name={}", word("name"));
        uid = format!("--bound-object-uid={}", word("uid"));
        args.extend(["--bound-object-kind=Pod", &pod, &uid]);
    }
    let token = cluster.kubectl(&args).await?;
    let path = cluster.kubeconfig_for(name, token.trim())?;
    Ok(path.display().to_string())
}

async fn patch(
    cluster: &Cluster,
    kubeconfig: &str,
    node: &str,
    kind: &str,
    change: &str,
) -> Result<crate::process::Output> {
    let args = [
        "--kubeconfig",
        kubeconfig,
        "patch",
        "node",
        node,
        "--type",
        kind,
        "-p",
        change,
    ];
    cluster.kubectl_with(&args, "").await
}

async fn refused(
    cluster: &Cluster,
    kubeconfig: &str,
    node: &str,
    kind: &str,
    change: &str,
    word: &str,
) -> Result<()> {
    let before = cluster.get(&["node", node]).await?;
    let output = patch(cluster, kubeconfig, node, kind, change).await?;
    let after = cluster.get(&["node", node]).await?;
    ensure!(
        output.code != 0 && output.stderr.contains("denied") && output.stderr.contains(word),
        "{change} of {node}: {}{}",
        output.stdout,
        output.stderr
    );
    ensure!(
        before["spec"] == after["spec"]
            && before["metadata"]["labels"] == after["metadata"]["labels"],
        "{change} of {node} was refused and done"
    );
    Ok(())
}
