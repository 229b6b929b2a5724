//! The agent with a real API server as its source.
//!
//! In: the usual cast, its manifests written to the API server. Out: what pods get, how fast a
//! binding's change of mind takes effect, and what holds while the API server is away.

use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::demo::cast::{Cast, MANIFESTS, NAMESPACE, VAULT_RESOURCE};
use lanyard::lab::{AgentSetup, Pod, until};

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
