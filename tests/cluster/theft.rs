//! A stolen agent token asks for service accounts' tokens: it gets those of its own node's pods, for Entra ID, and no others.
//!
//! In: a cluster with Lanyard. Out: passed, or the token that was one too many. Blocks on kubectl. The thief has an agent's
//! token, bound to its pod as kubelet gets it; RBAC, the chart's policy and its admission stand in the way.

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::pods::Pod;
use crate::process::Output;
use crate::rights::thief;
use crate::stage::{self, UNLISTED};

const SHOP: &str = "sources";
const ENTRA: &str = "--audience=api://AzureADTokenExchange";
/// Pods that are asked for in the instant of their creation.
const NEW: usize = 15;

/// What node-2's agent could ask for, and what it must not get.
pub async fn a_stolen_agent_token_gets_its_own_nodes_pods_tokens_only(
    cluster: &Cluster,
) -> Result<()> {
    stage::raise(cluster).await?;
    let bound = thief(cluster, "bound", Some("node-2")).await?;
    let unbound = thief(cluster, "unbound", None).await?;
    for (node, name) in [(1, "theirs"), (2, "own")] {
        cluster.run_pod(&Pod::new(SHOP, name, node)).await?;
    }
    cluster.run_pod(&Pod::new(UNLISTED, "own", 2)).await?;
    let (own, theirs) = (
        uid(cluster, SHOP, "own").await?,
        uid(cluster, SHOP, "theirs").await?,
    );
    let mine = pod("own", &own);
    let output = ask(cluster, &bound, SHOP, &format!("{ENTRA} {mine}")).await?;
    ensure!(output.code == 0, "its own node's pod: {}", output.stderr);
    let unlisted = uid(cluster, UNLISTED, "own").await?;
    for (what, who, namespace, words) in [
        (
            "another node's pod",
            &bound,
            SHOP,
            format!("{ENTRA} {}", pod("theirs", &theirs)),
        ),
        (
            "another node's pod under its own's name",
            &bound,
            SHOP,
            format!("{ENTRA} {}", pod("own", &theirs)),
        ),
        (
            "its own's uid under another's name",
            &bound,
            SHOP,
            format!("{ENTRA} {}", pod("theirs", &own)),
        ),
        (
            "by a token of no node",
            &unbound,
            SHOP,
            format!("{ENTRA} {mine}"),
        ),
        (
            "an unlisted namespace",
            &bound,
            UNLISTED,
            format!("{ENTRA} {}", pod("own", &unlisted)),
        ),
    ] {
        refused(cluster, what, who, namespace, &words).await?;
    }
    for (what, words) in [
        ("no pod", ENTRA.to_owned()),
        ("the API server's audience", mine.clone()),
        ("another audience", format!("--audience=vault {mine}")),
        (
            "a second audience",
            format!("{ENTRA} --audience=vault {mine}"),
        ),
        ("a long life", format!("{ENTRA} {mine} --duration=2h")),
    ] {
        refused(cluster, what, &bound, SHOP, &words).await?;
    }
    just_created_pods_of_another_node(cluster, &bound).await?;
    stage::leave(cluster, SHOP).await?;
    stage::leave(cluster, UNLISTED).await
}

/// Whoever judges must not rely on a view of the pods that is an instant old.
async fn just_created_pods_of_another_node(cluster: &Cluster, bound: &str) -> Result<()> {
    for index in 0..NEW {
        let name = format!("new-{index}");
        let bind = Pod::new(SHOP, &name, 1).yaml().replace(
            "  nodeSelector: {kubernetes.io/hostname: node-1}\n",
            "  nodeName: node-1\n",
        );
        let create = ["create", "-o", "jsonpath={.metadata.uid}", "-f", "-"];
        let uid = cluster
            .kubectl_with(&create, &bind)
            .await?
            .success("create")?;
        let words = format!("{ENTRA} {}", pod(&name, &uid));
        refused(
            cluster,
            "a pod of node-1, an instant old",
            bound,
            SHOP,
            &words,
        )
        .await?;
    }
    Ok(())
}

async fn uid(cluster: &Cluster, namespace: &str, pod: &str) -> Result<String> {
    let pod = cluster.get(&["pod", pod, "-n", namespace]).await?;
    Ok(pod["metadata"]["uid"].as_str().context("a uid")?.to_owned())
}

/// `kubectl create token default`; the token itself stays in here.
async fn ask(cluster: &Cluster, kubeconfig: &str, namespace: &str, words: &str) -> Result<Output> {
    let create = [
        "--kubeconfig",
        kubeconfig,
        "create",
        "token",
        "default",
        "-n",
        namespace,
    ];
    let words: Vec<&str> = create.into_iter().chain(words.split(' ')).collect();
    cluster.kubectl_with(&words, "").await
}

fn pod(name: &str, uid: &str) -> String {
    format!("--bound-object-kind=Pod --bound-object-name={name} --bound-object-uid={uid}")
}

async fn refused(
    cluster: &Cluster,
    what: &str,
    who: &str,
    namespace: &str,
    words: &str,
) -> Result<()> {
    let output = ask(cluster, who, namespace, words).await?;
    let refused = output.stderr.contains("denied") || output.stderr.contains("orbidden");
    ensure!(
        output.code != 0 && refused,
        "{what}: {} bytes of a token; {}",
        output.stdout.len(),
        output.stderr
    );
    Ok(())
}
