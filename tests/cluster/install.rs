//! The main job on a real cluster: installed by the chart, pods get what is granted to them by the
//! annotation, and nothing else; whoever is refused is told why.
//!
//! In: a cluster, the chart and the image of this tree. Out: passed, with the times that it took.
//! Blocks on helm and the pods. Each trial removes its namespace.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::api::{DeleteParams, DynamicObject, PostParams};
use serde_json::{Value, json};

use crate::asking::{Answer, Asking, now, once};
use crate::cast::{self, AUDIT, GRANTED, Identity, ORDERS, PAYMENTS};
use crate::clients;
use crate::cluster::Cluster;
use crate::plan::NODES;
use crate::pods::Pod;
use crate::steering;

const LIMIT: Duration = Duration::from_mins(2);
/// 100 ms is promised; this is for a machine that is busy with two nodes and their pods.
const AT_ONCE: Duration = Duration::from_secs(3);
const TROUBLESHOOTING: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/TROUBLESHOOTING.md"));

/// `helm install`, and an agent on each node is ready.
pub async fn the_chart_installs_an_agent_on_each_node(cluster: &Cluster) -> Result<()> {
    let start = Instant::now();
    cluster.lanyard().await?;
    let agents = cluster.agents().await?;
    for node in cluster.nodes() {
        let here = agents
            .iter()
            .filter(|agent| agent["spec"]["nodeName"] == node.name());
        ensure!(here.count() == 1, "{}: {agents:#?}", node.name());
    }
    println!("image loaded, installed, ready: {:.1?}", start.elapsed());
    Ok(())
}

/// Two identities in one pod: by default, by client id, object id and resource id; a third is refused.
pub async fn an_annotation_selects_among_what_is_granted(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "selects";
    cluster.lanyard().await?;
    cast::raise(cluster, NAMESPACE).await?;
    let mark = cluster.mark().await?;
    for (node, name) in [(1, "two-1"), (2, "two-2")] {
        let pod = Pod::new(NAMESPACE, name, node)
            .identity("payments,orders")
            .labels(GRANTED);
        cluster.run_pod(&pod).await?;
        expect(cluster, &pod, "", Some(&PAYMENTS)).await?;
        for identity in [&PAYMENTS, &ORDERS, &AUDIT] {
            let wanted = (identity.name != AUDIT.name).then_some(identity);
            for (parameter, id) in [
                ("client_id", identity.client_id),
                ("object_id", identity.object_id),
                ("principal_id", identity.object_id),
                ("msi_res_id", &identity.resource_id()),
            ] {
                let more = format!("&{parameter}={id}");
                expect(cluster, &pod, &more, wanted).await?;
            }
        }
    }
    // The annotation's first is the default; without the label nothing is granted at all.
    let other = Pod::new(NAMESPACE, "other", 1)
        .identity("orders,payments")
        .labels(GRANTED);
    cluster.run_pod(&other).await?;
    expect(cluster, &other, "", Some(&ORDERS)).await?;
    let stranger = Pod::new(NAMESPACE, "stranger", 2).identity("payments");
    cluster.run_pod(&stranger).await?;
    expect(cluster, &stranger, "", None).await?;
    cluster.no_leaks(mark).await?;
    cast::leave(cluster, NAMESPACE).await
}

/// Refused: an Event with a stable reason and where to read on. `lanyard explain` says what happened.
pub async fn a_refusal_is_an_event_on_the_pod_and_explained(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "refused";
    cluster.lanyard().await?;
    cast::raise(cluster, NAMESPACE).await?;
    for (node, granted, refused) in [(1, "granted-1", "refused-1"), (2, "granted-2", "refused-2")] {
        let pod = Pod::new(NAMESPACE, granted, node)
            .identity(PAYMENTS.name)
            .labels(GRANTED);
        cluster.run_pod(&pod).await?;
        expect(cluster, &pod, "", Some(&PAYMENTS)).await?;
        let (code, said) = explain(cluster, NAMESPACE, granted).await?;
        ensure!(
            code == 0
                && said["verdict"] == "granted"
                && said["requests"][0]["identity"] == format!("{NAMESPACE}/payments"),
            "explain of {granted} ({code}): {said:#}"
        );

        let pod = Pod::new(NAMESPACE, refused, node)
            .identity(AUDIT.name)
            .labels(GRANTED);
        cluster.run_pod(&pod).await?;
        expect(cluster, &pod, "", None).await?;
        event(cluster, NAMESPACE, refused).await?;
        let (code, said) = explain(cluster, NAMESPACE, refused).await?;
        ensure!(
            code == 1 && said["verdict"] == "refused" && said["error"] == "identity_not_found",
            "explain of {refused} ({code}): {said:#}"
        );
    }
    cast::leave(cluster, NAMESPACE).await
}

/// A binding that comes and goes, ten times, seen by a pod that asks 50 times a second.
pub async fn a_bindings_change_of_mind_takes_effect_at_once(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "mind";
    const TIMES: usize = 10;
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    cast::raise(cluster, NAMESPACE).await?;
    let bindings = steering::kind(cluster, "AzureIdentityBinding", Some(NAMESPACE)).await?;
    let binding = bindings.get(ORDERS.name).await?;
    let binding = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding",
        "metadata": {"name": "of-two-minds"}, "spec": binding.data["spec"]});
    let binding: DynamicObject = serde_json::from_value(binding)?;
    bindings
        .delete(ORDERS.name, &DeleteParams::default())
        .await?;
    for (node, name) in [(1, "asks-1"), (2, "asks-2")] {
        let pod = Pod::new(NAMESPACE, name, node)
            .identity(ORDERS.name)
            .labels(GRANTED);
        let asking = Asking::start(cluster, pod, &image, 50).await?;
        let refused = |answer: &Answer| answer.status == 400;
        let granted = |answer: &Answer| answer.status == 200 && answer.word == ORDERS.client_id;
        asking.first(0.0, "a refusal", LIMIT, refused).await?;
        let (mut bound, mut unbound) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let asked = now();
            bindings.create(&PostParams::default(), &binding).await?;
            let done = now();
            let first = asking.first(asked, "a token", LIMIT, granted).await?;
            bound.push(first.at - done);
            let asked = now();
            bindings
                .delete("of-two-minds", &DeleteParams::default())
                .await?;
            let done = now();
            let first = asking.first(asked, "a refusal", LIMIT, refused).await?;
            unbound.push(first.at - done);
        }
        // A token after the first refusal would show here as the next round's; one more look.
        let since = now();
        let later = asking.first(since, "still refused", LIMIT, refused).await?;
        let answers = asking.answers(later.at - 1.0).await?;
        ensure!(answers.last().is_some_and(refused), "{answers:?}");
        at_once(name, "bound, to the first token", bound)?;
        at_once(name, "unbound, to the first refusal", unbound)?;
    }
    cast::leave(cluster, NAMESPACE).await
}

/// A pod ends and another one gets its address: nothing of the first one is left there.
pub async fn a_reused_address_gets_nothing_of_its_predecessor(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "heirs";
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    cast::raise(cluster, NAMESPACE).await?;
    let mark = cluster.mark().await?;
    for plan in NODES {
        let number = plan.number;
        let (first, stranger, other) = (
            format!("first-{number}"),
            format!("stranger-{number}"),
            format!("other-{number}"),
        );
        let pod = |name| Pod::new(NAMESPACE, name, number.into());
        let first = pod(&first).identity(PAYMENTS.name).labels(GRANTED);
        let address = same_address(cluster, None, &first, &image, Some(&PAYMENTS)).await?;
        // Nothing is granted to this one, and another identity to the third.
        let stranger = pod(&stranger).identity(PAYMENTS.name);
        same_address(cluster, Some(&address), &stranger, &image, None).await?;
        let other = pod(&other).identity(ORDERS.name).labels(GRANTED);
        same_address(cluster, Some(&address), &other, &image, Some(&ORDERS)).await?;
        println!("node-{number}: {address} three times, each pod got its own");
    }
    cluster.no_leaks(mark).await?;
    cast::leave(cluster, NAMESPACE).await
}

/// What a user waits for: from the container's start to its first token, one pod after the other.
pub async fn a_pods_first_token_comes_soon(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "first-token";
    const PODS: usize = 5;
    cluster.lanyard().await?;
    let image = clients::image(cluster).await?;
    cast::raise(cluster, NAMESPACE).await?;
    for plan in NODES {
        let (mut started, mut applied) = (Vec::new(), Vec::new());
        for index in 0..PODS {
            let name = format!("new-{}-{index}", plan.number);
            let pod = Pod::new(NAMESPACE, &name, plan.number.into())
                .identity(PAYMENTS.name)
                .labels(GRANTED);
            let asked = now();
            let asking = Asking::start(cluster, pod.clone(), &image, 100).await?;
            let token = |answer: &Answer| answer.status == 200;
            let first = asking.first(asked, "its first token", LIMIT, token).await?;
            let (start, answers) = asking.told().await?;
            ensure!(
                answers.iter().all(|answer| answer.status != 400),
                "{name}: refused for good at first: {answers:?}"
            );
            started.push(first.at - start);
            applied.push(first.at - asked);
            cluster.delete(&pod.yaml()).await?;
        }
        let node = plan.name();
        println!(
            "{node}: a pod's start to its first token {}",
            times(&mut started)
        );
        println!(
            "{node}: kubectl apply to the first token {}",
            times(&mut applied)
        );
        let longest = started.last().copied().unwrap_or_default();
        ensure!(longest < 10.0, "{node}: {longest:.1} s");
    }
    cast::leave(cluster, NAMESPACE).await
}

/// Sorts them; `median … s (… to … s)`.
fn times(seconds: &mut [f64]) -> String {
    seconds.sort_by(f64::total_cmp);
    let at = |index: usize| seconds.get(index).copied().unwrap_or_default() * 1000.0;
    let last = seconds.len().saturating_sub(1);
    format!(
        "median {:.0} ms ({:.0} to {:.0} ms)",
        at(seconds.len() / 2),
        at(0),
        at(last)
    )
}

fn at_once(pod: &str, what: &str, mut seconds: Vec<f64>) -> Result<()> {
    // Before the API server has answered the change may have come through: a negative time.
    println!("{pod}: {what}: {}", times(&mut seconds));
    let longest = seconds.last().copied().unwrap_or_default();
    ensure!(
        longest < AT_ONCE.as_secs_f64(),
        "{pod}: {what}: {longest:.2} s"
    );
    Ok(())
}

/// One request with curl; an answer of another status than expected is an error.
async fn expect(
    cluster: &Cluster,
    pod: &Pod<'_>,
    parameters: &str,
    wanted: Option<&Identity>,
) -> Result<()> {
    let what = format!("{}: {parameters}", pod.name);
    let (status, said) = once(cluster, (pod.namespace, pod.name), parameters).await?;
    let body: Value = serde_json::from_str(&said).with_context(|| format!("{what}: {said}"))?;
    let fits = match wanted {
        Some(identity) => status == "200" && body["client_id"] == identity.client_id,
        None => status == "400" && body["access_token"].is_null(),
    };
    let instead = wanted.map_or("a refusal", |identity| identity.name);
    let (who, error) = (&body["client_id"], &body["error_description"]);
    ensure!(fits, "{what}: {status} {who} {error} instead of {instead}");
    Ok(())
}

/// `lanyard explain` on this machine: its exit status, and what it says as JSON.
pub async fn explain(cluster: &Cluster, namespace: &str, pod: &str) -> Result<(i32, Value)> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_lanyard"));
    command
        .args([
            "explain",
            pod,
            "-n",
            namespace,
            "-o",
            "json",
            "--kubeconfig",
        ])
        .arg(cluster.kubeconfig());
    let output = tokio::time::timeout(LIMIT, crate::process::run(command, b"")).await??;
    let said = serde_json::from_str(&output.stdout);
    Ok((output.code, said.with_context(|| format!("{output:?}"))?))
}

/// The Event about a pod that was refused, with its way out.
async fn event(cluster: &Cluster, namespace: &str, pod: &str) -> Result<()> {
    let what = format!("an Event on {pod}");
    let told = async || {
        let about = format!("regarding.name={pod},reason=IdentityNotGranted");
        let args = [
            "events.events.k8s.io",
            "-n",
            namespace,
            "--field-selector",
            &about,
        ];
        let events = cluster.get(&args).await?;
        let event = events["items"].get(0).context("none yet")?;
        let note = event["note"].as_str().unwrap_or_default();
        let command = format!("lanyard explain {pod} -n {namespace}");
        ensure!(
            event["type"] == "Warning"
                && note.contains("audit")
                && note.contains(&command)
                && note.contains("TROUBLESHOOTING.md#identity_not_found"),
            "{event:#}"
        );
        Ok(true)
    };
    cluster.wait_for(&what, LIMIT, told).await?;
    let heading = "\n### identity_not_found\n";
    ensure!(
        TROUBLESHOOTING.contains(heading),
        "TROUBLESHOOTING.md has no such heading"
    );
    Ok(())
}

/// Runs a pod that asks from its first instant at `address` (the next one of its node if none), sees
/// that it gets what is `wanted` and never anything else, and deletes it.
async fn same_address(
    cluster: &Cluster,
    address: Option<&str>,
    pod: &Pod<'_>,
    image: &str,
    wanted: Option<&Identity>,
) -> Result<String> {
    let node = cluster.node(pod.node);
    if let Some(address) = address {
        // host-local takes the first free one after the last.
        let (network, last) = address.rsplit_once('.').context("an IPv4 address")?;
        let before = last.parse::<u8>()? - 1;
        let state = "/var/lib/cni/networks/pods";
        node.shell(&format!(
            "test ! -e {state}/{address} && printf %s {network}.{before} >{state}/last_reserved_ip.0"
        ))
        .await?;
    }
    let asking = Asking::start(cluster, pod.clone(), image, 50).await?;
    let final_word = |answer: &Answer| match wanted {
        Some(identity) => answer.status == 200 && answer.word == identity.client_id,
        None => answer.status == 400,
    };
    asking.first(0.0, "its own", LIMIT, final_word).await?;
    let seen = cluster.get(&["pod", pod.name, "-n", pod.namespace]).await?;
    let got = seen["status"]["podIP"].as_str().unwrap_or_default();
    ensure!(
        address.is_none_or(|address| address == got),
        "{} has {got}, not {address:?}",
        pod.name
    );
    let (_, answers) = asking.told().await?;
    let wrong = answers
        .iter()
        .find(|answer| answer.status == 200 && !final_word(answer));
    ensure!(wrong.is_none(), "{} at {got} got {wrong:?}", pod.name);
    // Not "refused for good" before it was granted either.
    let early = answers.iter().find(|answer| answer.status == 400);
    ensure!(
        wanted.is_none() || early.is_none(),
        "{} at {got}: {early:?}",
        pod.name
    );
    cluster.delete(&pod.yaml()).await?;
    Ok(got.to_owned())
}
