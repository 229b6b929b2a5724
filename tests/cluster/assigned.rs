//! The controller's main job on a real cluster: what a binding says becomes true in Azure, agents wait for it, and Azure is
//! asked no more than needed.
//!
//! In: a cluster with Lanyard. Out: passed, with the times that it took. Blocks on helm, the pods and simulated Azure's
//! operations. Invariant: an identity that is on its way is never a refusal to a pod, and one that failed is one at once.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::sim::arm::{Operations, Poison};
use lanyard::sim::faults::{Effect, Fault, Matching, Target};
use serde_json::Value;

use crate::asking::{Answer, Asking, now, once};
use crate::cast::PAYMENTS;
use crate::clients::{self, Asker};
use crate::cluster::Cluster;
use crate::install;
use crate::loads::Crowd;
use crate::plan::{NODES, POOL};
use crate::steering::{self, Auth, LIMIT};

/// Long enough for the release to change twice: controllers start, and both nodes' agents change over.
const CHANGE: Duration = Duration::from_secs(75);
/// From Assigned to the token; for a machine that is busy.
const AT_ONCE: f64 = 3.0;
/// The debounce and 200 ms are promised; this is for a machine that is busy.
const SOON: f64 = 5.0;

/// `controller.enabled=true` on a release that was without: what is assigned stays, unowned, and no request fails.
pub async fn a_controller_comes_and_no_request_fails(cluster: &Cluster) -> Result<()> {
    let crowd = Crowd::gather(cluster, "taken-over").await?;
    let mark = cluster.mark().await?;
    let before = assigned_in_azure(cluster).await?;
    let (start, loads) = (now(), crowd.load(CHANGE).await?);
    // As docs/controller.md says: first the controller, then agents that wait for its word.
    steering::raise_beside(cluster, Auth::Federated).await?;
    let api = steering::kind(cluster, "AzureAssignment", None).await?;
    let told = async || {
        let seen = steering::seen(&api, &PAYMENTS.resource_id()).await?;
        ensure!(seen.state == "Assigned" && !seen.owned, "{seen:?}");
        Ok(true)
    };
    let what = "the assignment of before to be written down";
    cluster.wait_for(what, LIMIT, told).await?;
    steering::raise(cluster, Auth::Federated).await?;
    let took = now() - start;
    println!("controllers lead, agents ask for assignments: {took:.1} s");
    let reports = loads.reports().await?;
    ensure!(
        took < CHANGE.as_secs_f64(),
        "the load ended before the change: {took:.1} s"
    );
    for report in reports {
        report.flawless(loads.each())?;
    }
    let patches = steering::patches(cluster, mark).await?;
    ensure!(patches.is_empty(), "nothing was to change: {patches:#?}");
    ensure!(assigned_in_azure(cluster).await? == before);
    crowd.disperse().await
}

async fn assigned_in_azure(cluster: &Cluster) -> Result<Vec<String>> {
    let computes = cluster.azure().resources().await?.computes;
    let mut computes = computes.into_iter();
    let pool = computes
        .find(|one| one.name == POOL)
        .context("no scale set")?;
    Ok(pool.identities.into_keys().collect())
}

/// A binding: one PATCH, `Assigned`, and the pods that have been asking all the time get the token at that moment.
pub async fn a_binding_becomes_a_token(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "assigns";
    const NAME: &str = "newcomer";
    steering::raise(cluster, Auth::Federated).await?;
    let image = clients::image(cluster).await?;
    steering::make(cluster, NAMESPACE, &[NAME]).await?;
    let mut asking = Vec::new();
    for (plan, name) in NODES.iter().zip(["asks-1", "asks-2"]) {
        let pod = steering::pod(NAMESPACE, name, plan.number.into(), NAME);
        asking.push(Asking::start(cluster, pod, &image, 20).await?);
    }
    let program = steering::pod(NAMESPACE, "program", 1, NAME).image(&image);
    cluster.run_pod(&program).await?;
    let refused = |answer: &Answer| answer.status == 400;
    for one in &asking {
        one.first(0.0, "a refusal", LIMIT, refused).await?;
    }
    // An SDK begins to wait long before it is answered.
    let takes = Operations::Take { milliseconds: 4000 };
    cluster.azure().set_operations(POOL, takes).await?;
    let mark = cluster.mark().await?;
    let bound = steering::bind(cluster, NAMESPACE, &[NAME]).await?;
    let sdk = Asker::new(cluster, NAMESPACE, "program");
    let waits = async {
        cluster
            .wait_for("the PATCH", LIMIT, async || {
                Ok(!steering::patches(cluster, mark).await?.is_empty())
            })
            .await?;
        sdk.client("python", &["token"]).await
    };
    let names = [NAME];
    let assigned = steering::reach(cluster, &names, "Assigned");
    let (assigned, said) = tokio::try_join!(assigned, waits)?;
    cluster
        .azure()
        .set_operations(POOL, Operations::World)
        .await?;
    let client_id = steering::client_id(cluster, NAME).await?;
    ensure!(said["client_id"] == client_id.as_str(), "python: {said}");

    let patches = steering::patches(cluster, mark).await?;
    let [patch] = patches.as_slice() else {
        anyhow::bail!("{} PATCHes: {patches:#?}", patches.len());
    };
    let sent = patch.time.as_duration().as_secs_f64() - bound;
    println!(
        "binding created → its PATCH arrived: {:.0} ms",
        sent * 1000.0
    );
    ensure!(sent < SOON, "{sent:.1} s");
    for one in &asking {
        let token = |answer: &Answer| answer.status == 200 && answer.word == client_id;
        let first = one.first(bound, "a token", LIMIT, token).await?;
        let woken = first.at - assigned;
        println!("{}: Assigned → token {:.0} ms", one.name(), woken * 1000.0);
        ensure!(woken < AT_ONCE, "{woken:.1} s after Assigned");
        waited_without_a_refusal(&one.answers(bound).await?)?;
    }
    told(cluster, NAMESPACE, NAME, &client_id).await?;
    steering::leave(cluster, NAMESPACE, &names).await
}

/// After the grant is known nothing is a refusal: try again, then tokens.
fn waited_without_a_refusal(answers: &[Answer]) -> Result<()> {
    let mut known = answers.iter().skip_while(|answer| answer.status == 400);
    let refused = known.find(|answer| !matches!(answer.status, 0 | 200 | 503));
    ensure!(
        refused.is_none(),
        "{refused:?} after the grant was known: {answers:?}"
    );
    Ok(())
}

/// What people see of it: the status and the columns.
async fn told(cluster: &Cluster, namespace: &str, name: &str, client_id: &str) -> Result<()> {
    let ready = async || {
        let identity = cluster
            .get(&["azureidentity", name, "-n", namespace])
            .await?;
        let status = &identity["status"];
        ensure!(
            status["clientID"] == client_id
                && status["principalID"].is_string()
                && status["tenantID"].is_string()
                && status["assignedNodes"] == 2
                && condition(&identity, "Ready") == "True",
            "{identity:#}"
        );
        let line = cluster
            .kubectl(&["get", "azid,azidb,azas", "-n", namespace])
            .await?;
        let principal = status["principalID"].as_str().unwrap_or_default();
        ensure!(line.contains(principal) && line.contains("True"), "{line}");
        Ok(true)
    };
    cluster
        .wait_for("the identity's status", LIMIT, ready)
        .await
}

fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |found| {
        found["status"].as_str().unwrap_or_default().to_owned()
    })
}

/// Azure refuses one of two: its pods are told at once and why, the other goes through.
pub async fn a_refused_assignment_is_told_at_once_and_disturbs_no_other(
    cluster: &Cluster,
) -> Result<()> {
    const NAMESPACE: &str = "refuses";
    const NAMES: [&str; 2] = ["sound", "poisoned"];
    steering::raise(cluster, Auth::Federated).await?;
    let image = clients::image(cluster).await?;
    steering::make(cluster, NAMESPACE, &NAMES).await?;
    let azure = cluster.azure();
    azure.poison(NAMES[1], Some(Poison::Unnamed)).await?;
    let mut asking = Vec::new();
    for (plan, (name, identity)) in NODES.iter().zip(["lucky", "unlucky"].iter().zip(NAMES)) {
        let pod = steering::pod(NAMESPACE, name, plan.number.into(), identity);
        asking.push(Asking::start(cluster, pod, &image, 20).await?);
    }
    for one in &asking {
        let refused = |answer: &Answer| answer.status == 400;
        one.first(0.0, "a refusal", LIMIT, refused).await?;
    }
    let bound = steering::bind(cluster, NAMESPACE, &NAMES).await?;
    steering::reach(cluster, &NAMES[..1], "Assigned").await?;
    let failed = steering::reach(cluster, &NAMES[1..], "Failed").await?;
    let token = |answer: &Answer| answer.status == 200;
    asking[0].first(bound, "a token", LIMIT, token).await?;
    let refused = |answer: &Answer| answer.status == 400;
    let first = asking[1].first(failed, "a refusal", LIMIT, refused).await?;
    let took = first.at - failed;
    println!("Failed → told to the pod: {:.0} ms", took * 1000.0);
    ensure!(took < AT_ONCE, "{took:.1} s");
    let what = "an Event on the pod that says why";
    let event = async || {
        let about = "regarding.name=unlucky,reason=IdentityNotUsable";
        let args = [
            "events.events.k8s.io",
            "-n",
            NAMESPACE,
            "--field-selector",
            about,
        ];
        let events = cluster.get(&args).await?;
        let event = events["items"].get(0).context("none yet")?;
        let note = event["note"].as_str().unwrap_or_default();
        ensure!(note.contains("could not be assigned"), "{event:#}");
        Ok(true)
    };
    cluster.wait_for(what, LIMIT, event).await?;
    let (code, said) = install::explain(cluster, NAMESPACE, "unlucky").await?;
    ensure!(
        code == 1 && said.to_string().contains("could not be assigned"),
        "explain ({code}): {said:#}"
    );
    azure.poison(NAMES[1], None).await?;
    steering::leave(cluster, NAMESPACE, &NAMES).await
}

/// 44 pods of five identities: one PATCH. An annotation's edit and a restart of all of them: none, and no request fails.
pub async fn forty_four_pods_cost_one_patch_and_their_restart_none(
    cluster: &Cluster,
) -> Result<()> {
    const NAMESPACE: &str = "crowded";
    const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
    const PODS: usize = 44;
    steering::raise(cluster, Auth::Federated).await?;
    let image = clients::image(cluster).await?;
    steering::make(cluster, NAMESPACE, &NAMES).await?;
    let mut crowd = String::new();
    for index in 0..PODS {
        let name = format!("member-{index}");
        let pod = steering::pod(NAMESPACE, &name, index % 2 + 1, NAMES[index % NAMES.len()]);
        // Writing to a String does not fail.
        let _ = write!(crowd, "{}", pod.yaml());
    }
    let start = now();
    cluster.apply(&crowd).await?;
    all_ready(cluster, NAMESPACE, PODS).await?;
    println!("{PODS} pods: ready after {:.1} s", now() - start);
    let mark = cluster.mark().await?;
    steering::bind(cluster, NAMESPACE, &NAMES).await?;
    steering::reach(cluster, &NAMES, "Assigned").await?;
    let patches = steering::patches(cluster, mark).await?;
    let added = |patches: &[lanyard::sim::Entry]| {
        let calls = patches.iter().filter_map(|entry| entry.arm.as_ref());
        calls.map(|call| call.added.len()).sum::<usize>()
    };
    ensure!(
        patches.len() == 1 && added(&patches) == NAMES.len(),
        "{patches:#?}"
    );

    // From here on Azure is not asked to change anything.
    let mark = cluster.mark().await?;
    let client_id = steering::client_id(cluster, NAMES[0]).await?;
    let busy = steering::pod(NAMESPACE, "busy", 1, NAMES[0]).image(&image);
    cluster.run_pod(&busy).await?;
    let asker = Asker::new(cluster, NAMESPACE, "busy");
    asker.client("curl", &["token"]).await?;
    let flags = format!("--rate 20 --connections new --want-client-id {client_id}");
    let length = Duration::from_secs(30);
    let load = asker.load("storm", length, &flags).await?;
    for kind in ["azureidentity", "azureidentitybinding"] {
        let edit = ["annotate", kind, NAMES[0], "-n", NAMESPACE, "team=till"];
        cluster.kubectl(&edit).await?;
    }
    let members = "app.kubernetes.io/name!=busy";
    let delete = [
        "delete",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        members,
        "--grace-period=0",
        "--force",
    ];
    cluster.kubectl(&delete).await?;
    let start = now();
    cluster.apply(&crowd).await?;
    all_ready(cluster, NAMESPACE, PODS + 1).await?;
    println!("{PODS} pods anew: ready after {:.1} s", now() - start);
    for name in ["member-0", "member-43"] {
        let (status, said) = once(cluster, (NAMESPACE, name), "").await?;
        ensure!(status == "200", "{name}: {said}");
    }
    load.report().await?.flawless(length.as_secs() * 20)?;
    let patches = steering::patches(cluster, mark).await?;
    ensure!(patches.is_empty(), "{patches:#?}");
    steering::leave(cluster, NAMESPACE, &NAMES).await
}

async fn all_ready(cluster: &Cluster, namespace: &str, pods: usize) -> Result<()> {
    let what = format!("{pods} pods to be ready");
    let ready = async || {
        let ready = "jsonpath={range .items[*]}{.status.containerStatuses[?(@.name==\"main\")].ready} {end}";
        let states = cluster
            .kubectl(&["get", "pods", "-n", namespace, "-o", ready])
            .await?;
        let count = states
            .split_whitespace()
            .filter(|one| *one == "true")
            .count();
        ensure!(count == pods, "{count} are");
        Ok(true)
    };
    cluster.wait_for(&what, Duration::from_mins(3), ready).await
}

/// IMDS knows five seconds after Assigned, as the real one may: the pods wait, and are refused nothing.
pub async fn a_late_imds_is_waited_for(cluster: &Cluster) -> Result<()> {
    const NAMESPACE: &str = "late";
    const NAME: &str = "latecomer";
    const DELAY: Duration = Duration::from_secs(5);
    steering::raise(cluster, Auth::Federated).await?;
    let image = clients::image(cluster).await?;
    steering::make(cluster, NAMESPACE, &[NAME]).await?;
    let client_id = steering::client_id(cluster, NAME).await?;
    let pod = steering::pod(NAMESPACE, "patient", 2, NAME);
    let asking = Asking::start(cluster, pod, &image, 20).await?;
    let refused = |answer: &Answer| answer.status == 400;
    asking.first(0.0, "a refusal", LIMIT, refused).await?;
    let body = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    let fault = Fault {
        target: Target::Imds,
        matching: Matching {
            client_id: Some(client_id.clone()),
            ..Matching::default()
        },
        after: 0,
        count: None,
        latency: None,
        effect: Some(Effect::Status {
            code: 400,
            retry_after: None,
            body: Some(body.to_owned()),
        }),
        applied: false,
    };
    cluster.azure().add_fault(&fault).await?;
    let bound = steering::bind(cluster, NAMESPACE, &[NAME]).await?;
    let assigned = steering::reach(cluster, &[NAME], "Assigned").await?;
    tokio::time::sleep(DELAY).await;
    cluster.azure().clear_faults().await?;
    let knows = now();
    let token = |answer: &Answer| answer.status == 200 && answer.word == client_id;
    let first = asking.first(assigned, "a token", LIMIT, token).await?;
    let took = first.at - knows;
    println!("IMDS knows → token {took:.1} s");
    ensure!(first.at > assigned && took < 15.0, "{took:.1} s");
    waited_without_a_refusal(&asking.answers(bound).await?)?;
    steering::leave(cluster, NAMESPACE, &[NAME]).await
}
