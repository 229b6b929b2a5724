//! Identities that are not the node's, with the real program, and a real API server where one matters:
//! Secrets by name and by right, tokens bound to pods, credentials that roll under load, Entra through a
//! proxy.
//!
//! In: a lab. Out: what pods get, what Entra saw, what owners are told.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::Manifests;
use lanyard::lab::{AgentSetup, Get, IMDS, Lab, Pod, Simulator, Style, VAULT, until};
use lanyard::sim::control::Client;
use lanyard::sim::journal::Listener;
use lanyard::sim::world::{Issuer, Secret};
use lanyard::sim::{Exchange, secret_id};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::apiserver::{self, ApiServer, token_status};
use crate::harness::Stage;

const WAIT: Duration = Duration::from_secs(30);
/// What is promised is a second for the Secret's change and two for the first token by it; a machine that
/// runs other tests beside this one gets some more.
const SOON: Duration = Duration::from_secs(4);
const ENTRA: &str = "login.microsoftonline.com";
const ISSUER: &str = "https://kubernetes.default.svc";
const RESOURCE: &str = "https://vault.azure.net";
const OLD: &str = "canary~first-client-secret";
const NEW: &str = "canary~second-client-secret";
const PROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 240, 1, 1), 3128);

const WORLD: &str = "
tenant: {id: 72f988bf-0000-4000-8000-00000000000a}
identities:
  - name: payments
    clientID: 11111111-1111-4111-8111-111111111111
    principalID: aaaaaaaa-1111-4111-8111-111111111111
    resourceID: /subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments
    federatedCredentials:
      - {name: cluster, issuer: 'https://kubernetes.default.svc', subject: 'system:serviceaccount:shop:payments'}
applications:
  - {name: app, clientID: 33333333-3333-4333-8333-333333333333, principalID: 33333333-0000-4333-8333-333333333333, secrets: [canary~first-client-secret]}
vms:
  - {name: node-1, sources: [10.0.0.0/8], location: westeurope, identities: [payments]}
";

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityPolicy
metadata: {name: shop}
spec:
  namespaces: {matchLabels: {team: shop}}
  resourceIDPrefixes: [/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop]
  clientIDs: [33333333-3333-4333-8333-333333333333]
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentity
metadata: {name: app, namespace: shop}
spec:
  clientID: 33333333-3333-4333-8333-333333333333
  tenantID: 72f988bf-0000-4000-8000-00000000000a
  tokenSources:
  - servicePrincipal: {secretRef: {name: app}}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentity
metadata: {name: payments, namespace: shop}
spec:
  clientID: 11111111-1111-4111-8111-111111111111
  tenantID: 72f988bf-0000-4000-8000-00000000000a
  resourceID: /subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments
  tokenSources:
  - federated: {}
  - imds: {}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityBinding
metadata: {name: app, namespace: shop}
spec:
  identity: app
  subjects: [{podSelector: {matchLabels: {app: app}}}]
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityBinding
metadata: {name: payments, namespace: shop}
spec:
  identity: payments
  subjects: [{podSelector: {matchLabels: {app: payments}}}]
";

/// What the chart renders for `agent.secrets: [{namespace: shop, names: [app]}]`.
const MAY_READ: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: lanyard-secrets, namespace: shop}
rules:
- {apiGroups: [''], resources: [secrets], resourceNames: [app], verbs: [get, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lanyard-secrets, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: lanyard-secrets}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: lanyard-agents}]
";

/// And for `agent.federated.namespaces: [shop]`; the second lets Entra read the issuer's keys.
const MAY_ASK: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: lanyard-federated, namespace: shop}
rules:
- {apiGroups: [''], resources: [serviceaccounts/token], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lanyard-federated, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: lanyard-federated}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: lanyard-agents}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: issuer-discovery}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:service-account-issuer-discovery'}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:unauthenticated'}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: payments, namespace: shop}
";

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

/// A pod that asks all the time; how often, and what was not a token.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    work: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    fn begin(pod: &Pod) -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted, namespace) = (stop.clone(), asked.clone(), pod.namespace().clone());
        let work = tokio::spawn(async move {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match namespace.get(IMDS, &Get::token(RESOURCE)).await {
                    Ok(reply) if reply.status == 200 => {}
                    other => failed.push(format!("{other:?}")),
                }
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            failed
        });
        Self { stop, asked, work }
    }

    async fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.work.await?;
        ensure!(
            failed.is_empty(),
            "{} failed: {:?}",
            failed.len(),
            failed[0]
        );
        Ok(self.asked.load(Ordering::Relaxed))
    }
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
    let asked = load.end().await?;
    ensure!(asked > 20, "{asked} requests are no load");
    Ok(())
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
    scene.gets(&scene.app, 200, Duration::from_secs(60)).await
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
/// word of the identity being unusable for good. Who needs no Secret is served.
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
    scene.gets(&scene.payments, 200, WAIT).await?;
    let reply = scene.app.namespace();
    let get = Get::token(RESOURCE).within(WAIT);
    let reply = reply.get(IMDS, &get).await?;
    ensure!(reply.status == 503, "{reply:?}");
    api.restart().await?;
    scene.gets(&scene.app, 200, WAIT).await
}

/// A proxy in the cloud; the first lines of what it was asked.
async fn proxy(lab: &Lab) -> Result<Arc<parking_lot::Mutex<Vec<String>>>> {
    let asked = Arc::<parking_lot::Mutex<Vec<String>>>::default();
    let seen = asked.clone();
    tokio::spawn(lab.cloud().run(async move || {
        let listener = TcpListener::bind(PROXY).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(tunnel(stream, seen.clone()));
        }
        #[allow(unreachable_code, reason = "the work's type")]
        Ok::<(), std::io::Error>(())
    }));
    let node = lab.node().namespace().clone();
    until(WAIT, "the proxy", async || {
        node.get(PROXY, &Get::new("/")).await.is_ok()
    })
    .await?;
    asked.lock().clear();
    Ok(asked)
}

async fn tunnel(stream: TcpStream, asked: Arc<parking_lot::Mutex<Vec<String>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await.ok()?;
    asked.lock().push(first.trim_end().to_owned());
    let mut line = String::from("-");
    while !line.trim_end().is_empty() {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
    }
    let Some(rest) = first.strip_prefix("CONNECT ") else {
        let refused = b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(refused).await.ok();
    };
    let mut onward = TcpStream::connect(rest.split(' ').next()?).await.ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    copy_bidirectional(&mut stream, &mut onward)
        .await
        .ok()
        .map(drop)
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
