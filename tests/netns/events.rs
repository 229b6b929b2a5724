//! What owners of pods are told, with a real API server: Events on the pod, and `lanyard explain`.
//!
//! In: the usual cast, its manifests written to the API server. Out: the Events that are there, and
//! what the command says in the words of its exit status.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, MANIFESTS, NAMESPACE, VAULT_RESOURCE};
use lanyard::lab::{AgentSetup, Bundles, Get, IMDS, Pod, until};
use serde_json::Value;

use crate::apiserver::{ApiServer, token_status};
use crate::harness::Stage;
use crate::inside::{sample, until_status};
use crate::inside_ownership::program;

const WAIT: Duration = Duration::from_secs(30);

async fn raise(stage: Stage) -> Result<(Cast, ApiServer)> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let api = ApiServer::start(&cast.lab, &stage.logs).await?;
    api.apply(MANIFESTS).await?;
    write(&api, &cast.payments, Some("payments")).await?;
    write(&api, &cast.stranger, Some("payment")).await?;
    Ok((cast, api))
}

async fn write(api: &ApiServer, pod: &Pod, identity: Option<&str>) -> Result<()> {
    let manifest = pod.manifest(NAMESPACE, pod.name(), identity);
    let lines = manifest.lines().filter(|line| !line.starts_with("  uid:"));
    api.apply(&lines.collect::<Vec<_>>().join("\n")).await
}

async fn events(api: &ApiServer) -> Result<Vec<Value>> {
    let all = ["get", "events.events.k8s.io", "-A", "-o", "json"];
    let mut list: Value = serde_json::from_str(&api.kubectl(&all, "").await?)?;
    let items = list["items"].take();
    Ok(serde_json::from_value(items)?)
}

/// A refusal is told once on the pod, whatever the number of requests; who is served has no Event.
pub async fn a_refusal_is_an_event_on_the_pod(stage: Stage) -> Result<()> {
    let (cast, api) = raise(stage).await?;
    let setup = AgentSetup::of_cluster(cast.lab.node(), &api.kubeconfig()).flag("--pod-wait", "2s");
    let agent = cast.lab.agent(&setup).await?;
    ensure!(token_status(&cast.payments, VAULT_RESOURCE).await? == 200);
    for _ in 0..50 {
        ensure!(token_status(&cast.stranger, VAULT_RESOURCE).await? == 400);
    }
    let closed =
        Get::new("/metadata/instance/compute?api-version=2021-02-01").header("Metadata", "true");
    ensure!(cast.stranger.namespace().get(IMDS, &closed).await?.status == 403);
    until(WAIT, "two Events", async || {
        events(&api).await.is_ok_and(|all| all.len() >= 2)
    })
    .await?;
    let mut told: Vec<(String, String)> = Vec::new();
    for event in events(&api).await? {
        let text = |field: &str| {
            event
                .pointer(field)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        ensure!(
            text("/regarding/name").as_deref() == Some(cast.stranger.name()),
            "{event}"
        );
        ensure!(text("/type").as_deref() == Some("Warning"), "{event}");
        told.push((
            text("/reason").context("a reason")?,
            text("/note").context("a note")?,
        ));
    }
    told.sort();
    let [(first, note), (second, _)] = &told[..] else {
        anyhow::bail!("not two Events but {told:?}");
    };
    ensure!(
        (first.as_str(), second.as_str()) == ("IdentityNotGranted", "MetadataPathClosed"),
        "{told:?}"
    );
    ensure!(
        note.contains("shop/payment, but there is no such AzureIdentity"),
        "{note}"
    );
    ensure!(
        note.contains("TROUBLESHOOTING.md#identity_not_found"),
        "{note}"
    );
    // As its owner sees it.
    let described = api
        .kubectl(
            &["-n", NAMESPACE, "describe", "pod", cast.stranger.name()],
            "",
        )
        .await?;
    ensure!(described.contains("IdentityNotGranted"), "{described}");
    ensure!(
        agent
            .metrics()
            .await?
            .contains("lanyard_events_dropped_total 0")
    );
    Ok(())
}

/// Whoever is on the node's own network passes the agent by, and is told so.
pub async fn a_host_network_pod_is_told_that_it_bypasses(stage: Stage) -> Result<()> {
    let (cast, api) = raise(stage).await?;
    let node = cast.lab.node().name();
    let host = |namespace: &str, name: &str, labels: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {{{labels}}}\n\
             spec: {{nodeName: {node}, hostNetwork: true, containers: [{{name: main, image: none}}]}}\n"
        )
    };
    let both = host(NAMESPACE, "proxy", "app: proxy")
        + &host("default", "agent-x", "app.kubernetes.io/part-of: lanyard");
    api.apply(&both).await?;
    let setup =
        AgentSetup::of_cluster(cast.lab.node(), &api.kubeconfig()).flag("--namespace", "default");
    let agent = cast.lab.agent(&setup).await?;
    until(WAIT, "an Event", async || {
        events(&api).await.is_ok_and(|all| !all.is_empty())
    })
    .await?;
    let all = events(&api).await?;
    ensure!(all.len() == 1, "{all:?}");
    ensure!(all[0]["reason"] == "HostNetworkBypasses" && all[0]["regarding"]["name"] == "proxy");
    let series = "lanyard_host_network_pods_bypassing 1\n";
    ensure!(agent.metrics().await?.contains(series));
    Ok(())
}

/// Whoever is to be served inside its network and has the port there is told once, however often it is tried.
pub async fn who_has_our_port_is_told_on_the_pod(stage: Stage) -> Result<()> {
    let (cast, api) = raise(stage).await?;
    let bundles = Bundles::new(&cast.lab)?;
    let pod = &cast.payments;
    let own = program(pod, "0.0.0.0:50254").await?;
    let uid = ["-n", NAMESPACE, "get", "pod", pod.name()];
    let uid = [&uid[..], &["-o", "jsonpath={.metadata.uid}"]].concat();
    let uid = api.kubectl(&uid, "").await?;
    bundles.add_as("one", &uid, pod.namespace())?;
    let setup = AgentSetup::of_cluster(cast.lab.node(), &api.kubeconfig())
        .flag("--mode", "in-pod")
        .flag("--runtime-state", &bundles.path().display().to_string());
    let agent = cast.lab.agent(&setup).await?;
    let taken = "lanyard_inside_failures_total{reason=\"taken\"}";
    until(WAIT, "an Event, and more attempts", async || {
        let told = events(&api).await.is_ok_and(|all| !all.is_empty());
        told && sample(&agent, taken).await >= Some(5)
    })
    .await?;
    let all = events(&api).await?;
    let [event] = &all[..] else {
        anyhow::bail!("not one Event but {all:#?}");
    };
    ensure!(
        event["reason"] == "EndpointTaken" && event["regarding"]["name"] == pod.name(),
        "{event}"
    );
    let note = event["note"].as_str().unwrap_or_default();
    ensure!(
        note.contains("listens on port 50254") && note.contains("#endpoint_taken"),
        "{note}"
    );
    drop(own);
    until_status(pod, 200).await
}

/// `lanyard explain` reads the cluster: who is refused hears why, and what to apply.
pub async fn explain_reads_the_cluster(stage: Stage) -> Result<()> {
    let (cast, api) = raise(stage).await?;
    let node = cast.lab.node().name();
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: lanyard-agent-x\n  namespace: default\n  labels: {{app.kubernetes.io/name: lanyard, app.kubernetes.io/component: agent}}\nspec: {{nodeName: {node}, hostNetwork: true, containers: [{{name: agent, image: none, args: [agent]}}]}}\nstatus: {{phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}\n"
    );
    api.apply(&manifest).await?;
    let explain = async |args: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = cast.lab.cloud().command(cast.lab.program());
        command
            .arg("explain")
            .args(args)
            .arg("--kubeconfig")
            .arg(api.admin());
        let output = command.output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((
            output.status.code(),
            text + &String::from_utf8_lossy(&output.stderr),
        ))
    };
    let (code, text) = explain(&[cast.payments.name(), "-n", NAMESPACE]).await?;
    ensure!(code == Some(0), "{code:?}: {text}");
    ensure!(
        text.contains("agent default/lanyard-agent-x is ready"),
        "{text}"
    );
    let (code, text) = explain(&[cast.stranger.name(), "-n", NAMESPACE]).await?;
    ensure!(code == Some(1), "{code:?}: {text}");
    ensure!(
        text.contains("kubectl -n shop annotate --overwrite pod"),
        "{text}"
    );
    let (code, text) = explain(&["nobody", "-n", NAMESPACE, "-o", "json"]).await?;
    ensure!(
        code == Some(2) && text.contains("there is no pod shop/nobody"),
        "{code:?}: {text}"
    );
    // What an agent's token may not read is named, and nothing is claimed.
    let mut command = cast.lab.cloud().command(cast.lab.program());
    command
        .args([
            "explain",
            cast.payments.name(),
            "-n",
            NAMESPACE,
            "--kubeconfig",
        ])
        .arg(api.kubeconfig());
    let output = command.output().await?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    Ok(())
}
