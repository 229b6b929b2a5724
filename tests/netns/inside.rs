//! Mode `in-pod`: the agent listens inside each pod's network namespace.
//!
//! In: labs whose agents are told where a runtime keeps its bundles; the bundles are files that the trials write, as
//! containerd would. Out: tokens, refusals, and what is left of a pod that goes. Invariant: whoever asks inside is that
//! pod, whatever address packets claim.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, NAMESPACE, VAULT_RESOURCE};
use lanyard::demo::curl;
use lanyard::lab::{Agent, AgentSetup, Bundles, Get, IMDS, Pod, Style, until};

use crate::app_service::{self, ANOTHER, SECRET, URL};
use crate::cgroups::Said;
use crate::harness::Stage;

const WAIT: Duration = Duration::from_secs(30);

/// A cast with an agent that serves from inside.
pub async fn raise(stage: Stage, mode: &str) -> Result<(Cast, Bundles, Agent)> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let bundles = Bundles::new(&cast.lab)?;
    let setup = setup(&cast, &bundles, &stage.backend, mode);
    let agent = cast.lab.agent(&setup).await?;
    Ok((cast, bundles, agent))
}

/// How it is started.
pub fn setup(cast: &Cast, bundles: &Bundles, backend: &str, mode: &str) -> AgentSetup {
    cast.agent(backend)
        .flag("--mode", mode)
        .flag("--runtime-state", &bundles.path().display().to_string())
        .flag("--log-level", "info,lanyard::agent=debug")
        .flag("--pod-wait", "300ms")
}

pub async fn status(pod: &Pod) -> u16 {
    let reply = pod.namespace().get(IMDS, &Get::token(VAULT_RESOURCE)).await;
    reply.map_or(0, |reply| reply.status)
}

pub async fn until_status(pod: &Pod, wanted: u16) -> Result<()> {
    let what = format!("{wanted} for {}", pod.name());
    let waited = until(WAIT, &what, async || status(pod).await == wanted).await;
    if waited.is_err() {
        let request = Get::token(VAULT_RESOURCE);
        println!("{:?}", pod.namespace().get(IMDS, &request).await);
        for args in [&["-4", "addr"][..], &["route"]] {
            println!("{}", pod.namespace().output("ip", args).await?);
        }
        println!("{}", pod.namespace().output("ss", &["-tln"]).await?);
    }
    Ok(waited?)
}

/// A sample of the agent's.
pub async fn sample(agent: &Agent, series: &str) -> Option<u64> {
    let text = agent.metrics().await.ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// Whether the metadata address is the pod's own.
pub async fn is_inside(pod: &Pod) -> bool {
    let args = ["-4", "addr", "show", "dev", "lo"];
    let addresses = pod.namespace().output("ip", &args).await;
    addresses.is_ok_and(|text| text.contains("169.254.169.254/32"))
}

/// Neither address nor rule of ours, and nobody listens.
pub async fn is_clear(pod: &Pod) -> bool {
    let tables = pod.namespace().output("nft", &["list", "tables"]).await;
    let sockets = pod.namespace().output("ss", &["-Hltn"]).await;
    !is_inside(pod).await
        && tables.is_ok_and(|text| !text.contains("lanyard"))
        && sockets.is_ok_and(|text| !text.contains("50254"))
}

/// Lays what looks like ours: what an agent that was killed leaves in a pod.
pub async fn lay_left_overs(pod: &Pod) -> Result<()> {
    let ours = "ip addr add 169.254.169.254/32 dev lo scope host && nft add table ip lanyard";
    pod.namespace().output("sh", &["-c", ours]).await?;
    Ok(())
}

/// Nothing is known of its address, and nothing needs to be.
pub async fn a_pod_is_served_from_inside(stage: Stage) -> Result<()> {
    let (cast, bundles, _agent) = raise(stage, "in-pod").await?;
    let pod = &cast.payments;
    let manifest = pod.manifest(NAMESPACE, "payments", Some("payments"));
    let (early, _) = manifest.split_once("status:").context("a status")?;
    cast.manifests.write("pod-payments.yaml", early)?;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    let asked = curl::token(pod, VAULT_RESOURCE, "").await?;
    let claims = asked.claims().with_context(|| format!("{asked:?}"))?;
    ensure!(claims.oid == cast.world.identity("payments")?.principal_id);
    // Another one, to which nothing is granted.
    bundles.add("two", &cast.stranger)?;
    until_status(&cast.stranger, 400).await?;
    let leaks = cast.leaks(0).await?;
    ensure!(leaks.is_empty(), "{leaks:#?}");
    Ok(())
}

/// By its address a pod that is served inside is nobody, whoever has the address.
pub async fn an_address_is_not_believed_where_pods_are_served_inside(stage: Stage) -> Result<()> {
    let (cast, bundles, _agent) = raise(stage, "in-pod").await?;
    // Its manifest tells its address; there is no listener yet.
    until_status(&cast.payments, 503).await?;
    let request = Get::token(VAULT_RESOURCE);
    let reply = cast.payments.namespace().get(IMDS, &request).await?;
    ensure!(reply.body.contains("from outside"), "{reply:?}");
    bundles.add("one", &cast.payments)?;
    until_status(&cast.payments, 200).await?;
    // It takes the address of its own metadata service away: what it asks then comes from outside.
    cast.payments
        .namespace()
        .ip("addr del 169.254.169.254/32 dev lo\n")
        .await?;
    until_status(&cast.payments, 503).await
}

pub async fn a_mixed_node_serves_each_pod_in_its_own_way(stage: Stage) -> Result<()> {
    let (cast, bundles, _agent) = raise(stage, "mixed").await?;
    bundles.add("one", &cast.payments)?;
    bundles.add("two", &cast.reports)?;
    let manifest = cast
        .payments
        .manifest(NAMESPACE, "payments", Some("payments"));
    let annotated = manifest.replace("annotations: {", "annotations: {lanyard.dev/mode: in-pod, ");
    ensure!(annotated != manifest);
    cast.manifests.write("pod-payments.yaml", &annotated)?;
    until(
        WAIT,
        "the one that asks for it to be served inside",
        async || is_inside(&cast.payments).await && status(&cast.payments).await == 200,
    )
    .await?;
    until_status(&cast.reports, 200).await?;
    ensure!(
        !is_inside(&cast.reports).await,
        "the other one is left alone"
    );
    Ok(())
}

/// Whether curl's output is the extension's error: both fields and no other, then the status.
fn is_refusal(answer: &str, (status, code): (u16, &str), words: &str) -> Result<()> {
    let (body, said) = answer.rsplit_once(' ').context("a status")?;
    let body: serde_json::Value = serde_json::from_str(body).with_context(|| answer.to_owned())?;
    let described = body["error_description"].as_str();
    ensure!(
        said == status.to_string()
            && body["error"] == code
            && described.is_some_and(|text| !text.is_empty() && text.contains(words))
            && body.as_object().is_some_and(|fields| fields.len() == 2),
        "{code}, {words:?}: {answer}"
    );
    Ok(())
}

/// The virtual machine extension's endpoint, as programs from before IMDS ask it.
pub async fn the_extensions_endpoint_is_on_the_pods_own_loopback(stage: Stage) -> Result<()> {
    let (cast, bundles, _agent) = raise(stage, "in-pod").await?;
    let pod = &cast.payments;
    let manifest = pod.manifest(NAMESPACE, "payments", Some("payments"));
    let asks = manifest.replace(
        "annotations: {",
        "annotations: {lanyard.dev/vm-extension-endpoint: \"true\", ",
    );
    cast.manifests.write("pod-payments.yaml", &asks)?;
    bundles.add("one", pod)?;
    bundles.add("two", &cast.reports)?;
    until_status(pod, 200).await?;
    until_status(&cast.reports, 200).await?;
    let identity = cast.world.identity("payments")?;
    let resource = format!("resource={VAULT_RESOURCE}");
    let client = format!("client_id={}", identity.client_id);
    let curl = async |pod: &Pod, host: &str, more: &[&str]| {
        let url = format!("http://{host}:50342/oauth2/token");
        let args = [
            &["-s", "-g", "-m", "10", "-w", " %{http_code}"],
            more,
            &[&url],
        ]
        .concat();
        pod.namespace().output("curl", &args).await
    };
    let header = "Metadata: true";
    until(WAIT, "the endpoint", async || {
        let asked = curl(pod, "127.0.0.1", &["-H", header, "-d", &resource]).await;
        asked.is_ok_and(|answer| answer.ends_with(" 200"))
    })
    .await?;
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        for more in [
            &["-H", header, "-d", &resource][..],
            &["-H", header, "-G", "-d", &resource],
            &["-H", header, "-d", &resource, "-d", &client],
        ] {
            let answer = curl(pod, host, more).await?;
            let right = answer.ends_with(" 200") && answer.contains(&identity.client_id);
            ensure!(right, "{host} {more:?}: {answer}");
        }
    }
    let another = "client_id=12345678-0000-4000-8000-000000000000";
    let long = format!("resource={}", "x".repeat(20_000));
    let invalid = (400, "invalid_request");
    for (more, refusal, words) in [
        (&["-d", &resource][..], invalid, "metadata header"),
        (&["-H", header], invalid, "'resource' is missing"),
        (
            &["-H", header, "-d", &resource, "-d", another],
            invalid,
            "Identity not found",
        ),
        (
            &["-H", header, "-X", "DELETE"],
            (405, "method_not_allowed"),
            "Only GET and POST",
        ),
        (&["-H", header, "-d", &long], invalid, ""),
    ] {
        let answer = curl(pod, "127.0.0.1", more).await?;
        is_refusal(&answer, refusal, words)?;
    }
    // Whoever did not ask for it has nothing there.
    ensure!(
        curl(&cast.reports, "127.0.0.1", &["-H", header])
            .await
            .is_err()
    );
    Ok(())
}

/// Programs written for App Service: the secret of the pod's own spec besides the pod's own listener.
pub async fn app_services_dialects_are_spoken_inside(stage: Stage) -> Result<()> {
    let (cast, bundles, _agent) = raise(stage, "in-pod").await?;
    let ask = async |pod: &Pod, header: &str, url: &str| {
        let asked = curl::curl(pod, &["-H", header, url], None).await?;
        let status = asked.status.unwrap_or_default();
        let body = asked.body;
        anyhow::Ok(Said { status, body })
    };
    for (pod, account, secret) in [
        (&cast.payments, "payments", SECRET),
        (&cast.reports, "default", ANOTHER),
    ] {
        let manifest = pod.manifest(NAMESPACE, account, Some(pod.name()));
        let manifest = app_service::with_secret(&manifest, secret);
        let file = format!("pod-{}.yaml", pod.name());
        cast.manifests.write(&file, &manifest)?;
        bundles.add(pod.name(), pod)?;
        let own = format!("X-IDENTITY-HEADER: {secret}");
        until(WAIT, "a token for its own secret", async || {
            let said = ask(pod, &own, URL).await;
            said.is_ok_and(|said| said.status == 200)
        })
        .await?;
    }
    let client_id = &cast.world.identity("payments")?.client_id;
    let own = async |header: &str, url: &str| ask(&cast.payments, header, url).await;
    app_service::is_spoken(client_id, own).await?;
    let anothers = format!("X-IDENTITY-HEADER: {SECRET}");
    app_service::is_refusal(&ask(&cast.reports, &anothers, URL).await?)?;
    let leaks = cast.leaks(0).await?;
    ensure!(leaks.is_empty(), "{leaks:#?}");
    Ok(())
}

/// Two agents listen beside each other: none of a pod's requests fails when the older one goes. When the newer one dies the
/// older one, whose listener never went, answers on, and cares for pods again.
pub async fn an_agent_takes_over_without_a_failed_request(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let bundles = Bundles::new(&cast.lab)?;
    bundles.add("one", &cast.payments)?;
    let setup = cast
        .agent(&stage.backend)
        .flag("--mode", "in-pod")
        .flag("--runtime-state", &bundles.path().display().to_string());
    let mut first = cast.lab.agent(&setup).await?;
    until_status(&cast.payments, 200).await?;
    let request = Get::token(VAULT_RESOURCE).within(WAIT);
    let knocking = cast.payments.namespace().knock(IMDS, request);
    let served = async |many: u64| {
        let before = knocking.tally().status(200);
        let more = async || knocking.tally().status(200) > before + many;
        until(WAIT, "more tokens", more).await
    };
    let listeners = async |wanted: usize| {
        let sockets = cast.payments.namespace().output("ss", &["-Hltn"]).await;
        sockets.is_ok_and(|text| text.matches("169.254.169.254%lo:").count() == wanted)
    };
    served(20).await?;
    let _second = cast
        .lab
        .agent(&setup.clone().second("second", 9465))
        .await?;
    until(WAIT, "two listeners", async || listeners(2).await).await?;
    first.process.term();
    let status = first.process.wait_exit(WAIT).await?;
    ensure!(status.success(), "{status}");
    served(20).await?;
    let tally = knocking.tally();
    ensure!(tally.attempts() == tally.status(200), "{tally:?}");
    // A bad upgrade.
    let mut third = cast.lab.agent(&setup.second("third", 9466)).await?;
    until(WAIT, "two listeners", async || listeners(2).await).await?;
    third.process.kill9().await?;
    ensure!(listeners(1).await);
    served(20).await?;
    let tally = knocking.stop().await?;
    // The dead one may have had one in hand.
    let others = tally.attempts() - tally.status(200);
    ensure!(others == tally.failures() && others <= 1, "{tally:?}");
    bundles.add("late", &cast.reports)?;
    until_status(&cast.reports, 200).await
}

/// A pod changes its mind, and the whole agent goes: pods are as before.
pub async fn what_was_laid_in_a_pod_goes_with_the_mode_and_with_lanyard(
    stage: Stage,
) -> Result<()> {
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    let (one, other) = (&cast.payments, &cast.reports);
    bundles.add("one", one)?;
    bundles.add("two", other)?;
    until(WAIT, "both inside", async || {
        is_inside(one).await && is_inside(other).await
    })
    .await?;
    let manifest = one.manifest(NAMESPACE, "payments", Some("payments"));
    let annotated = manifest.replace(
        "annotations: {",
        "annotations: {lanyard.dev/mode: redirect, ",
    );
    cast.manifests.write("pod-payments.yaml", &annotated)?;
    until(WAIT, "the first one as before", async || {
        !is_inside(one).await && status(one).await == 200
    })
    .await?;
    ensure!(is_inside(other).await && status(other).await == 200);
    drop(agent);
    let folder = bundles.path().display().to_string();
    let said = cast
        .lab
        .uninstall(cast.lab.node(), &["--runtime-state", &folder])
        .await?;
    ensure!(said.contains("from 1 pods"), "{said}");
    ensure!(!is_inside(other).await);
    // Nothing of ours stands between the pod and the node's IMDS any more.
    until_status(other, 400).await
}

/// What the pod has itself it keeps; what it takes away of ours it gets again.
pub async fn a_pod_keeps_what_is_its_own(stage: Stage) -> Result<()> {
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    let own = &cast.stranger;
    own.namespace()
        .ip("addr add 169.254.169.254/32 dev lo\n")
        .await?;
    bundles.add("own", own)?;
    until(WAIT, "an attempt", async || {
        sample(&agent, "lanyard_inside_failures_total{reason=\"taken\"}").await >= Some(2)
    })
    .await?;
    ensure!(is_inside(own).await, "its address is taken away");
    let answered = own.namespace().run(async || {
        let listener = tokio::net::TcpListener::bind("169.254.169.254:80").await?;
        let client = tokio::net::TcpStream::connect("169.254.169.254:80").await?;
        let (_, peer) = listener.accept().await?;
        std::io::Result::Ok(peer == client.local_addr()?)
    });
    ensure!(answered.await??, "its own metadata service is not reached");
    // As soon as it gives the address up it is served.
    own.namespace()
        .ip("addr del 169.254.169.254/32 dev lo\n")
        .await?;
    until_status(own, 400).await?;
    let pod = &cast.payments;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    ensure!(sample(&agent, "lanyard_inside_pods").await == Some(2));
    // All rules, and then the address, too.
    for theft in [
        "nft delete table ip lanyard",
        "ip addr del 169.254.169.254/32 dev lo",
    ] {
        let before = sample(&agent, "lanyard_inside_mended_total").await;
        pod.namespace().output("sh", &["-c", theft]).await?;
        until(Duration::from_mins(1), "what was laid again", async || {
            sample(&agent, "lanyard_inside_mended_total").await > before && status(pod).await == 200
        })
        .await?;
    }
    Ok(())
}

/// An agent that starts on a full node.
pub async fn an_agent_takes_care_of_two_hundred_and_fifty_pods(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let bundles = Bundles::new(&cast.lab)?;
    let mut pods = Vec::new();
    for number in 0..250 {
        let pod = cast
            .lab
            .node()
            .add_pod(&format!("many-{number}"), Style::Ptp)
            .await?;
        bundles.add(pod.name(), &pod)?;
        pods.push(pod);
    }
    let setup = cast
        .agent(&stage.backend)
        .flag("--mode", "in-pod")
        .flag("--pod-wait", "0s")
        .flag("--runtime-state", &bundles.path().display().to_string());
    let agent = cast.lab.agent(&setup).await?;
    until(WAIT, "all of them served", async || {
        sample(&agent, "lanyard_inside_pods").await == Some(250)
    })
    .await?;
    // Nobody told of them: each is told to try again, by its own listener.
    for pod in &pods {
        let reply = pod
            .namespace()
            .get(IMDS, &Get::token(VAULT_RESOURCE))
            .await?;
        let known = reply.status == 503 && reply.body.contains("not known");
        ensure!(known, "{}: {reply:?}", pod.name());
    }
    Ok(())
}

/// Two hundred times a pod comes and goes: as many file descriptors as before, and no namespace is held.
pub async fn pods_that_come_and_go_leave_nothing(stage: Stage) -> Result<()> {
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    bundles.add("first", &cast.payments)?;
    until_status(&cast.payments, 200).await?;
    let before = agent.process.descriptors()?;
    for round in 0..10 {
        let mut pods = Vec::new();
        for number in 0..20 {
            let pod = cast
                .lab
                .node()
                .add_pod(&format!("p{round}-{number}"), Style::Ptp)
                .await?;
            bundles.add(pod.name(), &pod)?;
            pods.push(pod);
        }
        for pod in &pods {
            let listening = async || {
                let sockets = pod.namespace().output("ss", &["-Hltn"]).await;
                sockets.is_ok_and(|text| text.contains("169.254.169.254%lo:"))
            };
            until(WAIT, "its listener", listening).await?;
        }
        for pod in pods {
            bundles.remove(pod.name())?;
            pod.remove().await?;
        }
    }
    until(WAIT, "no descriptor more than before", async || {
        agent.process.descriptors().is_ok_and(|now| now <= before)
    })
    .await?;
    ensure!(status(&cast.payments).await == 200);
    Ok(())
}
