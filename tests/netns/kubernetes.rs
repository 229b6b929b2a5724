//! The agent with a real API server as its source.
//!
//! In: the usual cast, its manifests written to the API server. Out: what pods get, how fast a
//! binding's change of mind takes effect, and what holds while the API server is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, DeleteParams, PostParams};
use lanyard::api::binding::AzureIdentityBinding;
use lanyard::demo::cast::{Cast, MANIFESTS, NAMESPACE, VAULT_RESOURCE};
use lanyard::lab::{Agent, AgentSetup, Get, IMDS, Pod, Style, until};

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
        let kubeconfig = kube::config::Kubeconfig::read_from(admin)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let bindings: Api<AzureIdentityBinding> =
            Api::namespaced(kube::Client::try_from(config)?, NAMESPACE);
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
