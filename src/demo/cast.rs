//! The usual cast: a simulated Azure, one node, three pods and their manifests.
//!
//! In: a fresh lab. Out: everything of the demo but the agent, which its callers start, kill and
//! start again. Blocks until the simulator listens. The network tests use the same cast, so that
//! what the demo shows is what the tests prove.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::lab::{AgentSetup, Lab, Pod, Simulator, Style};
use crate::sim::Entry;
use crate::sim::control::Client;

/// The demo's Azure.
pub const WORLD: &str = include_str!("../../deploy/demo/world.yaml");
/// The demo's manifests, without the pods.
pub const MANIFESTS: &str = include_str!("../../deploy/demo/manifests.yaml");
/// The pods' Kubernetes namespace.
pub const NAMESPACE: &str = "shop";
/// The resource of a Key Vault.
pub const VAULT_RESOURCE: &str = "https://vault.azure.net";

/// A world file's identities: enough to write manifests for them.
#[derive(Clone, Debug, Deserialize)]
pub struct KnownWorld {
    /// Its one tenant.
    pub tenant: KnownTenant,
    /// Its user-assigned identities.
    #[serde(default)]
    pub identities: Vec<KnownIdentity>,
    /// Its applications.
    #[serde(default)]
    pub applications: Vec<KnownApplication>,
}

/// A world file's tenant.
#[derive(Clone, Debug, Deserialize)]
pub struct KnownTenant {
    /// GUID.
    pub id: String,
}

/// An application of a world file that proves itself by a secret.
#[derive(Clone, Debug, Deserialize)]
pub struct KnownApplication {
    /// Its name in the world file.
    pub name: String,
    /// Client id, a GUID.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Its secrets, simulated ones.
    #[serde(default)]
    pub secrets: Vec<String>,
}

/// An identity of a world file.
#[derive(Clone, Debug, Deserialize)]
pub struct KnownIdentity {
    /// Its name in the world file.
    pub name: String,
    /// Client id, a GUID: a token's `appid`.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Principal id, a GUID: a token's `oid`.
    #[serde(rename = "principalID")]
    pub principal_id: String,
    /// ARM id: a token's `xms_mirid`.
    #[serde(rename = "resourceID")]
    pub resource_id: String,
}

impl KnownWorld {
    /// Reads a world file's text.
    pub fn parse(text: &str) -> Result<Self> {
        serde_saphyr::from_str(text).context("the world file's tenant or identities")
    }

    /// The application of that name.
    pub fn application(&self, name: &str) -> Result<&KnownApplication> {
        let mut all = self.applications.iter();
        let found = all.find(|application| application.name == name);
        found.with_context(|| format!("the world has no application `{name}`"))
    }

    /// The identity of that name.
    pub fn identity(&self, name: &str) -> Result<&KnownIdentity> {
        let names = || {
            self.identities
                .iter()
                .map(|i| i.name.as_str())
                .collect::<Vec<_>>()
        };
        let found = self
            .identities
            .iter()
            .find(|identity| identity.name == name);
        found.with_context(|| format!("the world has no identity `{name}`; it has {:?}", names()))
    }
}

/// A folder of manifests that an agent watches. Files appear whole.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// A new, empty folder of the lab.
    pub fn new(lab: &Lab, name: &str) -> Result<Self> {
        Ok(Self {
            dir: lab.dir(name)?,
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes or replaces a file in one step.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let unfinished = self.dir.join(format!(".{file}.new"));
        std::fs::write(&unfinished, text)?;
        Ok(std::fs::rename(unfinished, self.dir.join(file))?)
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.dir.join(file))?)
    }

    /// Writes a pod's manifest as `pod-<name>.yaml`.
    pub fn pod(&self, pod: &Pod, account: &str, identity: Option<&str>) -> Result<()> {
        let text = pod.manifest(NAMESPACE, account, identity);
        self.write(&format!("pod-{}.yaml", pod.name()), &text)
    }
}

/// Lab, simulator, manifests and pods; no agent yet.
#[derive(Debug)]
pub struct Cast {
    /// The namespaces.
    pub lab: Lab,
    /// The simulated Azure.
    pub simulator: Simulator,
    /// What the agent is to watch.
    pub manifests: Manifests,
    /// The world's identities.
    pub world: KnownWorld,
    /// Granted `payments`, whom the vault lets in.
    pub payments: Pod,
    /// Granted `reports`, whom the vault refuses.
    pub reports: Pod,
    /// Asks for `payments` by annotation; no binding grants it.
    pub stranger: Pod,
}

impl Cast {
    /// Raises it in a fresh lab; `simulator_flags` go to `lanyard simulate`.
    pub async fn raise(lab: Lab, simulator_flags: &[&str]) -> Result<Self> {
        let simulator = lab.simulator(WORLD, simulator_flags).await?;
        let manifests = Manifests::new(&lab, "manifests")?;
        manifests.write("shop.yaml", MANIFESTS)?;
        let node = lab.node();
        let payments = node.add_pod("payments", Style::Ptp).await?;
        let reports = node.add_pod("reports", Style::Ptp).await?;
        let stranger = node.add_pod("stranger", Style::Bridge).await?;
        manifests.pod(&payments, "payments", Some("payments"))?;
        manifests.pod(&reports, "default", Some("reports"))?;
        manifests.pod(&stranger, "default", Some("payments"))?;
        let world = KnownWorld::parse(WORLD)?;
        Ok(Self {
            lab,
            simulator,
            manifests,
            world,
            payments,
            reports,
            stranger,
        })
    }

    /// How to start this cast's agent.
    #[must_use]
    pub fn agent(&self, backend: &str) -> AgentSetup {
        AgentSetup::new(self.lab.node(), self.manifests.dir()).flag("--iptables-backend", backend)
    }

    /// All three pods.
    #[must_use]
    pub fn pods(&self) -> [&Pod; 3] {
        [&self.payments, &self.reports, &self.stranger]
    }

    /// The simulator's journal above a sequence number.
    pub async fn journal(&self, since: u64) -> Result<Vec<Entry>> {
        Ok(Client::new(&self.simulator.control).journal(since).await?)
    }

    /// What reached the simulated Azure's node-local services (IMDS, wire server) from an address
    /// of pods, not of nodes: with an agent in place, a leak.
    pub async fn leaks(&self, since: u64) -> Result<Vec<Entry>> {
        let mut entries = self.journal(since).await?;
        entries.retain(|entry| is_pods(entry) && is_local_service(entry));
        Ok(entries)
    }

    /// The journal's last sequence number.
    pub async fn now(&self) -> Result<u64> {
        Ok(self.journal(0).await?.last().map_or(0, |entry| entry.seq))
    }
}

fn is_pods(entry: &Entry) -> bool {
    entry.source.starts_with("10.244.")
}

fn is_local_service(entry: &Entry) -> bool {
    use crate::sim::journal::Listener;
    matches!(entry.listener, Listener::Imds | Listener::Wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_manifests_name_the_demo_worlds_identities() {
        let world = KnownWorld::parse(WORLD).unwrap();
        for identity in &world.identities {
            for part in [
                &identity.client_id,
                &identity.principal_id,
                &identity.resource_id,
            ] {
                assert!(
                    MANIFESTS.contains(part.as_str()),
                    "{} lacks {part}",
                    identity.name
                );
            }
        }
        assert!(MANIFESTS.contains(&world.tenant.id));
        let error = world.identity("nobody").unwrap_err().to_string();
        assert!(
            error.contains("nobody") && error.contains("payments"),
            "{error}"
        );
    }
}
