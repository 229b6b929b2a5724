//! The leader is cut off from the API server, with a change that it tries again and again.
//!
//! In: a cluster with Lanyard, a controller on each node. Out: passed. Blocks until the lease has ended and the other one
//! leads. Invariant: no PATCH is sent by one whose lease may have ended, by the time at which Azure got it.

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use lanyard::sim::Entry;
use lanyard::sim::faults::{Effect, Fault, Matching, Target};

use crate::cluster::Cluster;
use crate::leading::{apart, both_run};
use crate::release::NAMESPACE as RELEASED;
use crate::steering::{self, Auth, LIMIT};

const NAMESPACE: &str = "severed";
const NAME: &str = "tether";
/// How long a lease lasts after it was renewed.
const LEASE: SignedDuration = SignedDuration::from_secs(15);

/// Azure asks for two seconds' patience after each try; the other leader tries it, too, once it leads.
pub async fn a_leader_that_is_cut_off_writes_nothing(cluster: &Cluster) -> Result<()> {
    steering::raise(cluster, Auth::Federated).await?;
    steering::make(cluster, NAMESPACE, &[NAME]).await?;
    let number = apart(cluster).await?;
    let other = if number == 1 { 2 } else { 1 };
    cluster
        .run_pod(&steering::pod(NAMESPACE, "runner", other, NAME))
        .await?;
    let leader = steering::leader(cluster).await?;
    let pods = steering::controllers(cluster).await?;
    let own = pods
        .iter()
        .find(|pod| pod["metadata"]["name"] == leader.as_str());
    let address = own.and_then(|pod| pod["status"]["podIP"].as_str());
    let address = address.context("the leader has no address")?;
    let rule = format!("FORWARD -s {address} -p tcp --dport 6443 -j DROP");
    cluster.azure().add_fault(&busy()).await?;
    let played = cut(cluster, number, &rule).await;
    cluster.azure().clear_faults().await?;
    played?;
    steering::reach(cluster, &[NAME], "Assigned").await?;
    both_run(cluster).await?;
    steering::leave(cluster, NAMESPACE, &[NAME]).await
}

/// Binds, cuts the leader off with a rule on its node, and looks at who tries the change when.
async fn cut(cluster: &Cluster, number: usize, rule: &str) -> Result<()> {
    let mark = cluster.mark().await?;
    steering::bind(cluster, NAMESPACE, &[NAME]).await?;
    cluster
        .wait_for("two tries", LIMIT, async || {
            Ok(steering::patches(cluster, mark).await?.len() > 1)
        })
        .await?;
    let node = cluster.node(number);
    let before = steering::holder(cluster).await?;
    node.shell(&format!("iptables -w 10 -I {rule}")).await?;
    let at = Timestamp::now();
    let seen = followed(cluster, &before, mark).await;
    node.shell(&format!("iptables -w 10 -D {rule}")).await?;
    let (renewed, patches) = seen?;
    judge(&patches, at, renewed)
}

/// Waits until somebody else has tried the change; gives when the first one renewed its lease last, and all tries.
async fn followed(cluster: &Cluster, before: &str, mark: u64) -> Result<(Timestamp, Vec<Entry>)> {
    let mut renewed = None;
    let mut patches = Vec::new();
    cluster
        .wait_for("the other one's try", LIMIT, async || {
            let lease = ["lease", "lanyard-controller", "-n", RELEASED];
            let spec = cluster.get(&lease).await?["spec"].clone();
            if spec["holderIdentity"] == before {
                let time = spec["renewTime"].as_str().context("renewed never")?;
                renewed = Some(time.parse::<Timestamp>()?);
            }
            patches = steering::patches(cluster, mark).await?;
            let first = patches.first().map(host);
            Ok(patches.iter().any(|entry| Some(host(entry)) != first))
        })
        .await?;
    Ok((renewed.context("the lease changed hands at once")?, patches))
}

/// Nothing of the first one's came after the end of its lease, nor after the other's first.
fn judge(patches: &[Entry], cut: Timestamp, renewed: Timestamp) -> Result<()> {
    let first = host(&patches[0]);
    let (of_first, of_other): (Vec<_>, Vec<_>) =
        patches.iter().partition(|entry| host(entry) == first);
    let end = renewed + LEASE;
    let after = of_first.iter().filter(|entry| entry.time > cut).count();
    let last = of_first.last().context("it tried nothing")?.time;
    let begun = of_other.first().context("nobody followed")?.time;
    println!(
        "{after} tries after the cut, the last {:.1} s before the lease's end; the other's first {:.1} s after it",
        end.duration_since(last).as_secs_f64(),
        begun.duration_since(end).as_secs_f64()
    );
    ensure!(after > 0, "it tried nothing more: {of_first:#?}");
    ensure!(
        last < end && last < begun,
        "sent without a lease, which ended at {end}: {of_first:#?}"
    );
    Ok(())
}

/// The node that a call comes from.
fn host(entry: &Entry) -> &str {
    let port = entry.source.rfind(':');
    port.map_or(&entry.source, |port| &entry.source[..port])
}

fn busy() -> Fault {
    Fault {
        target: Target::Arm,
        matching: Matching {
            method: Some("PATCH".to_owned()),
            ..Matching::default()
        },
        after: 0,
        count: None,
        latency: None,
        effect: Some(Effect::Status {
            code: 429,
            retry_after: Some(2),
            body: None,
        }),
        applied: false,
    }
}
