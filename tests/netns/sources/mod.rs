//! Identities that are not the node's, with the real program, and a real API server where one matters:
//! Secrets by name and by right, tokens bound to pods, credentials that roll under load, Entra through a
//! proxy.
//!
//! In: a lab. Out: what pods get, what Entra saw, what owners are told.

mod load;
mod objects;
mod proxy;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::Manifests;
use lanyard::lab::{AgentSetup, Get, IMDS, Lab, Pod, Simulator, Style, VAULT, until};
use lanyard::sim::control::Client;
use lanyard::sim::journal::Listener;
use lanyard::sim::world::{Issuer, Secret};
use lanyard::sim::{Exchange, secret_id};

use crate::apiserver::{self, ApiServer, token_status};
use crate::harness::Stage;
use load::Load;
use objects::{MAY_ASK, MAY_READ, OBJECTS, WORLD};
use proxy::{PROXY, proxy};

const WAIT: Duration = Duration::from_secs(30);
/// What is promised is a second for the Secret's change and two for the first token by it; a machine that
/// runs other tests beside this one gets some more.
const SOON: Duration = Duration::from_secs(4);
const ENTRA: &str = "login.microsoftonline.com";
const ISSUER: &str = "https://kubernetes.default.svc";
const RESOURCE: &str = "https://vault.azure.net";
const OLD: &str = "canary~first-client-secret";
const NEW: &str = "canary~second-client-secret";

fn secret(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: app, namespace: shop}}\nstringData: {{clientSecret: '{value}'}}\n"
    )
}

/// Lab, simulator and two pods; no agent yet.
struct Scene {
    lab: Lab,
    simulator: Simulator,
    app: Pod,
    payments: Pod,
    backend: String,
}

impl Scene {
    async fn raise(stage: Stage) -> Result<Self> {
        let lab = stage.lab;
        lab.add_host(ENTRA, *VAULT.ip())?;
        let simulator = lab.simulator(WORLD, &[]).await?;
        let app = lab.node().add_pod("app", Style::Ptp).await?;
        let payments = lab.node().add_pod("payments", Style::Ptp).await?;
        Ok(Self {
            lab,
            simulator,
            app,
            payments,
            backend: stage.backend,
        })
    }

    /// The same with an API server that has all objects but Secrets and rights.
    async fn with_api(stage: Stage) -> Result<(Self, ApiServer)> {
        let logs = stage.logs.clone();
        let scene = Self::raise(stage).await?;
        let api = ApiServer::start(&scene.lab, &logs).await?;
        api.apply(OBJECTS).await?;
        for pod in [&scene.app, &scene.payments] {
            let manifest = pod.manifest("shop", pod.name(), None);
            let lines = manifest.lines().filter(|line| !line.starts_with("  uid:"));
            api.apply(&lines.collect::<Vec<_>>().join("\n")).await?;
        }
        Ok((scene, api))
    }

    fn setup(&self, source: AgentSetup) -> AgentSetup {
        let ca = self.simulator.ca.display().to_string();
        source
            .flag("--iptables-backend", &self.backend)
            .flag("--azure-ca-file", &ca)
            .flag("--pod-wait", "2s")
            .flag("--log-level", "debug")
    }

    fn azure(&self) -> Client {
        Client::new(&self.simulator.control)
    }

    /// What Entra's token endpoint was asked, in order.
    async fn exchanges(&self) -> Result<Vec<Exchange>> {
        let all = self.azure().journal(0).await?.into_iter();
        let entra = all.filter(|entry| entry.listener != Listener::Imds);
        Ok(entra.filter_map(|entry| entry.exchange).collect())
    }

    async fn used(&self, credential: &str) -> bool {
        let all = self.exchanges().await.unwrap_or_default();
        all.iter()
            .any(|one| one.credential.as_deref() == Some(credential))
    }

    async fn gets(&self, pod: &Pod, status: u16, within: Duration) -> Result<()> {
        let what = format!("{} to get {status}", pod.name());
        let waited = until(
            within,
            what,
            async || matches!(token_status(pod, RESOURCE).await, Ok(got) if got == status),
        );
        Ok(waited.await?)
    }
}

fn by_secret(value: &str) -> String {
    format!("secret:{}", secret_id(value))
}

fn rolled(value: &str) -> Secret {
    Secret {
        value: value.to_owned(),
        expires: None,
    }
}

/// The story of a secret that rolls while a pod asks, `write` being how the new one is written.
async fn rolls(scene: &Scene, write: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    scene.gets(&scene.app, 200, WAIT).await?;
    ensure!(scene.used(&by_secret(OLD)).await, "by the first secret");
    let load = Load::begin(&scene.app);
    scene.azure().add_secret("app", &rolled(NEW)).await?;
    let begun = Instant::now();
    write().await?;
    until(WAIT, "a token by the new secret", async || {
        scene.used(&by_secret(NEW)).await
    })
    .await?;
    let took = begun.elapsed();
    ensure!(
        took < SOON,
        "the first token by the new secret took {took:?}"
    );
    scene.azure().revoke_secret("app", &secret_id(OLD)).await?;
    for n in 0..5 {
        let status = token_status(&scene.app, &format!("https://{n}.example")).await?;
        ensure!(status == 200, "{n}: {status}");
    }
    until(WAIT, "a load", async || load.asked() > 30).await?;
    load.end().await
}

/// A Secret of the API server is replaced and the old one revoked: no request fails.
pub async fn a_secret_of_the_api_server_rolls_under_load(stage: Stage) -> Result<()> {
    let (scene, api) = Scene::with_api(stage).await?;
    api.apply(MAY_READ).await?;
    api.apply(&secret(OLD)).await?;
    let source = AgentSetup::of_cluster(scene.lab.node(), &api.kubeconfig());
    let agent = scene.lab.agent(&scene.setup(source)).await?;
    rolls(&scene, async || api.apply(&secret(NEW)).await).await?;
    let shown = agent.process.log() + &agent.metrics().await?;
    ensure!(!shown.contains("canary~"), "a secret shows:\n{shown}");
    Ok(())
}

/// The same with a Secret in a folder.
pub async fn a_secret_of_a_folder_rolls_under_load(stage: Stage) -> Result<()> {
    let scene = Scene::raise(stage).await?;
    let (manifests, setup) = folder(&scene)?;
    let agent = scene.lab.agent(&setup).await?;
    rolls(&scene, async || {
        manifests.write("secret.yaml", &secret(NEW))
    })
    .await?;
    let shown = agent.process.log() + &agent.metrics().await?;
    ensure!(!shown.contains("canary~"), "a secret shows:\n{shown}");
    Ok(())
}

fn folder(scene: &Scene) -> Result<(Manifests, AgentSetup)> {
    let manifests = Manifests::new(&scene.lab, "manifests")?;
    manifests.write("objects.yaml", OBJECTS)?;
    manifests.write("secret.yaml", &secret(OLD))?;
    for pod in [&scene.app, &scene.payments] {
        manifests.pod(pod, pod.name(), None)?;
    }
    let source = AgentSetup::new(scene.lab.node(), manifests.dir());
    let setup = scene.setup(source);
    Ok((manifests, setup))
}

/// Without the right the owner is told which value of the chart gives it; with it the Secret is read.
pub async fn a_secret_that_may_not_be_read_is_told_on_the_identity(stage: Stage) -> Result<()> {
    let (scene, api) = Scene::with_api(stage).await?;
    api.apply(&secret(OLD)).await?;
    let source = AgentSetup::of_cluster(scene.lab.node(), &api.kubeconfig());
    let _agent = scene.lab.agent(&scene.setup(source)).await?;
    scene.gets(&scene.app, 400, WAIT).await?;
    let events = ["-n", "shop", "get", "events", "-o", "json"];
    until(WAIT, "an Event on the identity", async || {
        let all = api.kubectl(&events, "").await.unwrap_or_default();
        ["CredentialUnusable", "AzureIdentity", "agent.secrets"]
            .iter()
            .all(|word| all.contains(word))
    })
    .await?;
    ensure!(scene.exchanges().await?.is_empty(), "Entra was asked");
    api.apply(MAY_READ).await?;
    scene.gets(&scene.app, 200, Duration::from_mins(1)).await
}

/// A pod gets a token for its own service account's, bound to it; without the right the next source
/// serves it.
pub async fn a_pods_own_token_is_exchanged(stage: Stage) -> Result<()> {
    let (scene, api) = Scene::with_api(stage).await?;
    let source = AgentSetup::of_cluster(scene.lab.node(), &api.kubeconfig());
    let agent = scene.lab.agent(&scene.setup(source)).await?;
    scene.gets(&scene.payments, 200, WAIT).await?;
    ensure!(scene.exchanges().await?.is_empty(), "by IMDS");
    let authority = std::fs::read_to_string(scene.lab.dir("apiserver")?.join("cert.pem"))?;
    let server = format!("https://{}:6443", apiserver::ADDRESS);
    let issuer = Issuer {
        issuer: ISSUER.to_owned(),
        keys: Some(format!("{server}/openid/v1/jwks")),
        discovery: None,
        ca_file: None,
        ca_pem: Some(authority),
    };
    scene.azure().trust_issuer(&issuer).await?;
    api.apply(MAY_ASK).await?;
    let begun = Instant::now();
    let mut n = 0;
    while !scene.used("federated:cluster").await {
        let status = token_status(&scene.payments, &format!("https://{n}.example")).await?;
        ensure!(status == 200, "{status}");
        ensure!(begun.elapsed() < WAIT, "IMDS still");
        n += 1;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let shown = agent.process.log() + &agent.metrics().await?;
    ensure!(!shown.contains("eyJ"), "a token shows:\n{shown}");
    Ok(())
}

/// After a restart without the API server there is no key on disk to go on with: "try again", and no
/// word of the identity being unusable for good; likewise where the API server gives no token.
pub async fn an_agent_that_restarts_without_the_api_server_has_no_secret(
    stage: Stage,
) -> Result<()> {
    let (scene, mut api) = Scene::with_api(stage).await?;
    api.apply(MAY_READ).await?;
    api.apply(&secret(OLD)).await?;
    let source = AgentSetup::of_cluster(scene.lab.node(), &api.kubeconfig());
    let setup = scene.setup(source);
    let mut agent = scene.lab.agent(&setup).await?;
    scene.gets(&scene.app, 200, WAIT).await?;
    let file = scene.lab.node().state_dir().join("checkpoint");
    let (app, payments) = (scene.app.address(), scene.payments.address());
    until(WAIT, "the checkpoint", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        [app, payments]
            .iter()
            .all(|ip| text.contains(&format!("{ip}\"")))
    })
    .await?;
    ensure!(
        !std::fs::read_to_string(&file)?.contains("canary"),
        "a secret on disk"
    );
    api.kill().await?;
    scene.gets(&scene.app, 200, WAIT).await?;
    agent.process.kill9().await?;
    let _agent = scene.lab.agent(&setup).await?;
    for pod in [&scene.app, &scene.payments] {
        let get = Get::token(RESOURCE).within(WAIT);
        let reply = pod.namespace().get(IMDS, &get).await?;
        ensure!(reply.status == 503, "{reply:?}");
    }
    api.restart().await?;
    scene.gets(&scene.app, 200, WAIT).await?;
    scene.gets(&scene.payments, 200, WAIT).await
}

/// With every proxy variable set: Entra through the proxy, IMDS straight; and all straight where
/// `NO_PROXY` says so.
pub async fn the_environments_proxy_is_for_entra_alone(stage: Stage) -> Result<()> {
    let scene = Scene::raise(stage).await?;
    let asked = proxy(&scene.lab).await?;
    let (_manifests, mut setup) = folder(&scene)?;
    let url = format!("http://{PROXY}");
    for name in [
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "https_proxy",
        "http_proxy",
    ] {
        setup = setup.variable(name, &url);
    }
    let mut agent = scene.lab.agent(&setup).await?;
    scene.gets(&scene.payments, 200, WAIT).await?;
    ensure!(
        asked.lock().is_empty(),
        "IMDS by a proxy: {:?}",
        asked.lock()
    );
    scene.gets(&scene.app, 200, WAIT).await?;
    let lines = asked.lock().clone();
    ensure!(
        !lines.is_empty()
            && lines
                .iter()
                .all(|line| line == &format!("CONNECT {ENTRA}:443 HTTP/1.1")),
        "{lines:?}"
    );
    agent.process.kill9().await.context("the first agent")?;
    asked.lock().clear();
    let _agent = scene
        .lab
        .agent(&setup.variable("NO_PROXY", ".microsoftonline.com"))
        .await?;
    scene.gets(&scene.app, 200, WAIT).await?;
    ensure!(asked.lock().is_empty(), "{:?}", asked.lock());
    ensure!(scene.exchanges().await?.len() == 2);
    Ok(())
}
