//! The agent with a real API server as its source.
//!
//! In: the usual cast, its manifests written to the API server. Out: what pods get, how fast a
//! binding's change of mind takes effect, and what holds while the API server is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use lanyard::api::binding::AzureIdentityBinding;
use lanyard::demo::cast::{Cast, MANIFESTS, NAMESPACE, VAULT_RESOURCE};
use lanyard::lab::{Agent, AgentSetup, Get, IMDS, Pod, Style, until};
use serde_json::json;

use crate::apiserver::{ApiServer, token_status};
use crate::harness::Stage;

const WAIT: Duration = Duration::from_secs(30);

struct Scene {
    cast: Cast,
    api: ApiServer,
    backend: String,
}

impl Scene {
    async fn raise(stage: Stage) -> Result<Self> {
        let cast = Cast::raise(stage.lab, &[]).await?;
        let api = ApiServer::start(&cast.lab, &stage.logs).await?;
        api.apply(MANIFESTS).await?;
        let scene = Self {
            cast,
            api,
            backend: stage.backend,
        };
        scene
            .pod(&scene.cast.payments, "payments", Some("payments"))
            .await?;
        scene
            .pod(&scene.cast.reports, "default", Some("reports"))
            .await?;
        scene
            .pod(&scene.cast.stranger, "default", Some("payments"))
            .await?;
        Ok(scene)
    }

    async fn pod(&self, pod: &Pod, account: &str, identity: Option<&str>) -> Result<()> {
        // The API server gives UIDs by itself.
        let manifest = pod.manifest(NAMESPACE, account, identity);
        let lines = manifest.lines().filter(|line| !line.starts_with("  uid:"));
        let lines: Vec<_> = lines.collect();
        self.api.apply(&lines.join("\n")).await
    }

    fn setup(&self) -> AgentSetup {
        AgentSetup::of_cluster(self.cast.lab.node(), &self.api.kubeconfig())
            .flag("--iptables-backend", &self.backend)
            .flag("--pod-wait", "2s")
    }

    async fn shows(&self, agent: &Agent, line: &str) -> Result<()> {
        let waited = until(WAIT, line, async || {
            let shown = agent.metrics().await.unwrap_or_default();
            shown.lines().any(|shown| shown == line)
        });
        Ok(waited.await?)
    }

    /// The file that a restarted agent goes on with holds this pod's address, and its link.
    async fn kept(&self, pod: &Pod) -> Result<()> {
        let file = self.cast.lab.node().state_dir().join("checkpoint");
        let holds = || {
            let text = std::fs::read_to_string(&file).ok()?;
            let body: serde_json::Value = serde_json::from_str(text.split_once('\n')?.1).ok()?;
            let mut addresses = body["content"]["addresses"].as_array()?.iter();
            let ip = pod.address().to_string();
            addresses.find(|kept| kept["ip"] == ip && kept["link"].is_u64())?;
            Some(())
        };
        let what = format!("{} in the checkpoint", pod.name());
        Ok(until(WAIT, what, async || holds().is_some()).await?)
    }

    async fn gets(&self, pod: &Pod, status: u16) -> Result<()> {
        let what = format!("{} to get {status}", pod.name());
        let waited = until(
            WAIT,
            what,
            async || matches!(token_status(pod, VAULT_RESOURCE).await, Ok(got) if got == status),
        );
        Ok(waited.await?)
    }
}

/// Who is granted gets a token, who is not is refused, and a binding's change of mind counts.
pub async fn the_api_servers_bindings_decide(stage: Stage) -> Result<()> {
    let scene = Scene::raise(stage).await?;
    let _agent = scene.cast.lab.agent(&scene.setup()).await?;
    let cast = &scene.cast;
    for (pod, expected) in [
        (&cast.payments, 200),
        (&cast.reports, 200),
        (&cast.stranger, 400),
    ] {
        let got = token_status(pod, VAULT_RESOURCE).await?;
        ensure!(got == expected, "{}: {got}", pod.name());
    }
    let binding = ["-n", NAMESPACE, "delete", "azureidentitybinding", "--all"];
    scene.api.kubectl(&binding, "").await?;
    scene.gets(&cast.payments, 400).await?;
    scene.api.apply(MANIFESTS).await?;
    scene.gets(&cast.payments, 200).await
}

/// The API server is out of reach, and the agent starts anew: known pods are served, unknown ones are
/// not, and what was deleted meanwhile is gone when it is back.
pub async fn an_agent_that_restarts_without_the_api_server_serves_whom_it_knew(
    stage: Stage,
) -> Result<()> {
    let scene = Scene::raise(stage).await?;
    let (cast, api) = (&scene.cast, &scene.api);
    let node = cast.lab.node();
    let mut agent = cast.lab.agent(&scene.setup()).await?;
    for (pod, status) in [
        (&cast.payments, 200),
        (&cast.reports, 200),
        (&cast.stranger, 400),
    ] {
        // Who has never said a word on the bridge has left no evidence of where it is.
        scene.gets(pod, status).await?;
        scene.kept(pod).await?;
    }
    api.swallow(node.name(), true).await?;
    agent.process.kill9().await?;
    let delete = ["-n", NAMESPACE, "delete", "azureidentitybinding", "reports"];
    api.kubectl(&delete, "").await?;
    let late = node.add_pod("late", Style::Ptp).await?;
    scene.pod(&late, "payments", Some("payments")).await?;

    let begun = Instant::now();
    let agent = cast.lab.agent(&scene.setup()).await?;
    println!("ready without the API server after {:?}", begun.elapsed());
    for (pod, expected) in [
        (&cast.payments, 200),
        (&cast.reports, 200),
        (&cast.stranger, 400),
        (&late, 503),
    ] {
        let got = token_status(pod, VAULT_RESOURCE).await?;
        ensure!(
            got == expected,
            "{} without the API server: {got}",
            pod.name()
        );
    }
    scene
        .shows(&agent, "lanyard_degraded{reason=\"api_unreachable\"} 1")
        .await?;

    api.swallow(node.name(), false).await?;
    let begun = Instant::now();
    scene.gets(&cast.reports, 400).await?;
    println!("fresh {:?} after the API server was back", begun.elapsed());
    scene.gets(&cast.payments, 200).await?;
    scene
        .shows(&agent, "lanyard_degraded{reason=\"api_unreachable\"} 0")
        .await
}

async fn heir(stage: Stage, style: Style) -> Result<()> {
    let scene = Scene::raise(stage).await?;
    let (cast, api) = (&scene.cast, &scene.api);
    let node = cast.lab.node();
    let mut agent = cast.lab.agent(&scene.setup()).await?;
    let owner = node.add_pod("owner", style).await?;
    let manifest = owner.manifest(NAMESPACE, "payments", Some("payments"));
    let manifest = manifest.replace("app: owner", "app: payments");
    let lines = manifest.lines().filter(|line| !line.starts_with("  uid:"));
    let lines: Vec<_> = lines.collect();
    api.apply(&lines.join("\n")).await?;
    scene.gets(&owner, 200).await?;
    scene.kept(&owner).await?;
    api.swallow(node.name(), true).await?;
    agent.process.kill9().await?;
    let address = owner.address();
    owner.remove().await?;
    let heir = node.add_pod_at("heir", style, address).await?;
    let _agent = cast.lab.agent(&scene.setup()).await?;
    for _ in 0..3 {
        let got = token_status(&heir, VAULT_RESOURCE).await?;
        ensure!(got == 503, "the heir of an address is not its owner: {got}");
    }
    let got = token_status(&cast.payments, VAULT_RESOURCE).await?;
    ensure!(got == 200, "nobody else is concerned: {got}");
    Ok(())
}

/// An address that changed hands while no agent looked and no API server could tell is nobody's.
pub async fn a_routed_heir_of_the_time_without_an_agent_gets_nothing(stage: Stage) -> Result<()> {
    heir(stage, Style::Ptp).await
}

/// The same on a bridge.
pub async fn a_bridged_heir_of_the_time_without_an_agent_gets_nothing(stage: Stage) -> Result<()> {
    heir(stage, Style::Bridge).await
}

/// What is too old is not believed any more; when the API server is back it is.
pub async fn what_is_older_than_allowed_is_not_believed(stage: Stage) -> Result<()> {
    let mut scene = Scene::raise(stage).await?;
    let setup = scene.setup().flag("--max-staleness", "3s");
    let _agent = scene.cast.lab.agent(&setup).await?;
    scene.gets(&scene.cast.payments, 200).await?;
    scene.api.kill().await?;
    scene.gets(&scene.cast.payments, 503).await?;
    scene.api.restart().await?;
    scene.gets(&scene.cast.payments, 200).await
}

/// Asks without a pause, and keeps the last status.
async fn sample(pod: &Pod, last: Arc<AtomicU16>, stop: Arc<AtomicBool>) -> Result<()> {
    let asking = pod.namespace().run(async move || {
        while !stop.load(Ordering::Relaxed) {
            let get = Get::token(VAULT_RESOURCE).within(Duration::from_secs(5));
            let status = get.send(IMDS).await.map_or(0, |reply| reply.status);
            last.store(status, Ordering::Release);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    Ok(asking.await?)
}

/// A binding that comes or goes takes effect within 100 ms, measured from the call at the API server
/// to the first answer that it decides.
pub async fn a_bindings_change_of_mind_takes_effect_at_once(stage: Stage) -> Result<()> {
    const ROUNDS: usize = 40;
    let scene = Scene::raise(stage).await?;
    let _agent = scene.cast.lab.agent(&scene.setup()).await?;
    scene.gets(&scene.cast.payments, 200).await?;
    let (last, stop) = (
        Arc::new(AtomicU16::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let sampling = sample(&scene.cast.payments, last.clone(), stop.clone());
    let admin = scene.api.admin();
    let changing = scene.cast.lab.cloud().run(async move || {
        let bindings: Api<AzureIdentityBinding> = Api::namespaced(client(&admin).await?, NAMESPACE);
        let mut binding = bindings.get("payments").await?;
        binding.metadata.resource_version = None;
        binding.metadata.uid = None;
        let effect = async |status: u16, begun: Instant| {
            let waited = until(WAIT, format!("status {status}"), async || {
                last.load(Ordering::Acquire) == status
            });
            waited.await.map(|()| begun.elapsed())
        };
        let mut took = [Vec::new(), Vec::new()];
        effect(200, Instant::now()).await?;
        for _ in 0..ROUNDS {
            // Each round asks IMDS anew, and the agent stays below what IMDS allows the node.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let begun = Instant::now();
            bindings
                .delete("payments", &DeleteParams::default())
                .await?;
            took[0].push(effect(400, begun).await?);
            let begun = Instant::now();
            bindings.create(&PostParams::default(), &binding).await?;
            took[1].push(effect(200, begun).await?);
        }
        stop.store(true, Ordering::Relaxed);
        Ok::<_, anyhow::Error>(took)
    });
    let (sampled, took) = tokio::join!(sampling, changing);
    sampled?;
    for (what, mut took) in ["deleted", "created"].into_iter().zip(took??) {
        took.sort_unstable();
        let (median, worst) = (took[took.len() / 2], took.last().context("rounds")?);
        println!(
            "a binding {what}: median {median:?}, worst of {} {worst:?}",
            took.len()
        );
        ensure!(median < Duration::from_millis(100), "{what}: {median:?}");
    }
    Ok(())
}

/// Where most of a full cluster does not concern this node, its changes cost this node next to nothing.
pub async fn a_full_clusters_changes_cost_little(stage: Stage) -> Result<()> {
    const PODS: usize = 107;
    const BINDINGS: usize = 1000;
    const CHANGES: u32 = 300;
    let scene = Scene::raise(stage).await?;
    let node = scene.cast.lab.node().name().to_owned();
    let agent = scene.cast.lab.agent(&scene.setup()).await?;
    let pid = agent.process.pid();
    println!("with 3 pods: {}", resident(pid)?);
    let admin = scene.api.admin();
    let filled = scene.cast.lab.cloud().run(async move || {
        let client = client(&admin).await?;
        for number in 0..10 {
            let name = format!("team-{number}");
            create(&client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
        }
        for number in 0..PODS {
            let name = format!("filler-{number}");
            let ip = format!("10.99.0.{number}");
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "payments"},
                "annotations": {"note": "x".repeat(2000)}},
                "spec": {"nodeName": node, "serviceAccountName": "payments", "containers": [{"name": "main", "image": "none",
                    "env": (0..40).map(|n| json!({"name": format!("N{n}"), "value": "v".repeat(40)})).collect::<Vec<_>>()}]}});
            create(&client, &pod).await?;
            let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
            let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), NAMESPACE);
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        }
        for number in 0..BINDINGS {
            create(&client, &foreign(number)).await?;
        }
        anyhow::Ok(())
    });
    filled.await??;
    scene.shows(&agent, "lanyard_pods 110").await?;
    scene
        .shows(&agent, &format!("lanyard_bindings {}", BINDINGS + 2))
        .await?;
    println!("with 110 pods and {BINDINGS} bindings: {}", resident(pid)?);
    for namespace in ["team-1", NAMESPACE] {
        let (admin, before) = (scene.api.admin(), ticks(pid)?);
        let changed = scene.cast.lab.cloud().run(async move || {
            let bindings: Api<AzureIdentityBinding> =
                Api::namespaced(client(&admin).await?, namespace);
            let name = if namespace == NAMESPACE {
                "reports"
            } else {
                "b-1"
            };
            for number in 0..CHANGES {
                let change = json!({"spec": {"default": number % 2 == 0}});
                bindings
                    .patch(name, &PatchParams::default(), &Patch::Merge(&change))
                    .await?;
            }
            anyhow::Ok(())
        });
        changed.await??;
        let spent = Duration::from_millis((ticks(pid)? - before) * 10);
        let each = spent / CHANGES;
        println!("a binding's change in namespace {namespace}: {each:?} of processor time");
        ensure!(
            each < Duration::from_millis(20),
            "{namespace}: {each:?} for each change"
        );
    }
    println!("at the end: {}", resident(pid)?);
    scene.gets(&scene.cast.payments, 200).await
}

fn foreign(number: usize) -> serde_json::Value {
    json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding",
        "metadata": {"name": format!("b-{number}"), "namespace": format!("team-{}", number % 10)},
        "spec": {"identity": "id", "subjects": [{"podSelector": {"matchLabels": {"app": format!("a-{number}")}}}]}})
}

async fn client(kubeconfig: &std::path::Path) -> Result<kube::Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(kube::Client::try_from(config)?)
}

async fn create(client: &kube::Client, object: &serde_json::Value) -> Result<()> {
    let text = |field: &str| object.pointer(field).and_then(serde_json::Value::as_str);
    let kind = text("/kind").context("kind")?;
    let (prefix, plural) = match kind {
        "Namespace" => ("/api/v1", "namespaces"),
        "Pod" => ("/api/v1", "pods"),
        _ => ("/apis/lanyard.dev/v1alpha1", "azureidentitybindings"),
    };
    let place = text("/metadata/namespace").map_or(String::new(), |ns| format!("/namespaces/{ns}"));
    let request = hyper::Request::post(format!("{prefix}{place}/{plural}"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(object)?)?;
    client.request_text(request).await?;
    Ok(())
}

fn resident(pid: u32) -> Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let lines = status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("Rss"));
    Ok(lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", "))
}

/// Processor time of a process, in hundredths of a second.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .context("stat")?
        .split_whitespace()
        .collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
