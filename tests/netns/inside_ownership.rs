//! Mode `in-pod`: whose a namespace is, where that could be mistaken.
//!
//! In: labs as in `inside`, with names that lead elsewhere. Out: nothing in anybody else's network, and a word about it, once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::demo::curl;
use lanyard::lab::{Agent, Get, IMDS, Pod, until};

use crate::harness::Stage;
use crate::inside::{is_clear, is_inside, raise, sample, until_status};

const WAIT: Duration = Duration::from_secs(30);
const FAILED: &str = "lanyard_inside_failures_total{reason=\"failed\"}";

/// It is told to try again by the node's rules: none of ours is in its network, and nobody else's answers.
async fn is_closed(pod: &Pod) -> Result<()> {
    let request = Get::token(VAULT_RESOURCE);
    let reply = pod.namespace().get(IMDS, &request).await?;
    let closed = reply.status == 503 && reply.body.contains("from outside");
    ensure!(closed, "{}: {reply:?}", pod.name());
    Ok(())
}

/// A token of its own identity.
async fn is_itself(cast: &Cast, pod: &Pod) -> Result<()> {
    let asked = curl::token(pod, VAULT_RESOURCE, "").await?;
    let claims = asked.claims().with_context(|| format!("{asked:?}"))?;
    let own = &cast.world.identity(pod.name())?.principal_id;
    ensure!(claims.oid == *own, "{}: {claims:?}", pod.name());
    Ok(())
}

/// One line for all attempts at this pod.
fn is_told_once(agent: &Agent, uid: &str, words: &str) -> Result<()> {
    let log = agent.process.log();
    let of_it = |line: &&str| line.contains(uid) && line.contains("trouble in a pod;");
    let told: Vec<_> = log.lines().filter(of_it).collect();
    let [line] = told[..] else {
        anyhow::bail!("told {} times: {told:#?}", told.len());
    };
    ensure!(line.contains(words), "{line}");
    Ok(())
}

/// A name among the named namespaces that is a link to another pod's: that one would be given the identity of whom the
/// bundle names.
pub async fn a_link_leads_into_no_other_pod(stage: Stage) -> Result<()> {
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    let (other, named) = (&cast.payments, &cast.reports);
    let others = other.namespace().path();
    let link = others.with_file_name("link");
    std::os::unix::fs::symlink(&others, &link)?;
    bundles.add_at("link", named.uid(), &link)?;
    until(WAIT, "three attempts", async || {
        is_inside(other).await || sample(&agent, FAILED).await >= Some(3)
    })
    .await?;
    ensure!(is_clear(other).await, "the link was followed");
    is_told_once(&agent, named.uid(), "Too many levels of symbolic links")?;
    for pod in [other, named] {
        is_closed(pod).await?;
    }
    // Both have what is theirs as soon as it is they who are named.
    for pod in [other, named] {
        bundles.add(pod.name(), pod)?;
        until_status(pod, 200).await?;
        is_itself(&cast, pod).await?;
    }
    ensure!(sample(&agent, "lanyard_inside_pods").await == Some(2));
    Ok(())
}
