//! The demo's chapter about the controller: it assigns, the agent waits and serves, and what nobody
//! needs any more is taken back.
//!
//! In: the cast, with a running agent. Out: who did what when, by Azure's own journal. Every wait is
//! bounded. Invariant: controller and agent meet only in the folder that stands for the API server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;

use super::Play;
use super::cast::{NAMESPACE, VAULT_RESOURCE};
use super::curl::{self, Asked};
use crate::lab::{Pod, Process, Style, VAULT, until};
use crate::sim::Entry;
use crate::sim::arm::{Operations, ShownIdentity};
use crate::sim::control::Client;
use crate::sim::journal::Listener;

/// How long the simulated Azure takes for a change of the machine.
const OPERATION: Duration = Duration::from_millis(1500);
/// How long an identity stays after its last pod, here; usually 15 minutes.
const GRACE: &str = "3s";
const WAIT: Duration = Duration::from_secs(30);
/// How long a pod asks before what it got is told.
const SOON: Duration = Duration::from_secs(15);
/// The machine's name in the world.
const MACHINE: &str = "node-1";
const ORDERS: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";
/// Hosts of Azure that the controller asks, as anywhere.
const HOSTS: [&str; 2] = ["login.microsoftonline.com", "management.azure.com"];

/// An `AzureAssignment`, as far as it is told here.
#[derive(Debug, Deserialize)]
struct Assignment {
    status: Option<Reported>,
}

#[derive(Debug, Deserialize)]
struct Reported {
    #[serde(default)]
    identities: Vec<OneReported>,
}

#[derive(Debug, Deserialize)]
struct OneReported {
    #[serde(rename = "resourceID")]
    resource_id: String,
    state: String,
}

impl Play {
    pub(super) async fn the_controller_starts(&mut self) -> Result<()> {
        self.story
            .step("The controller starts: nobody assigns identities by hand any more");
        for host in HOSTS {
            self.cast.lab.add_host(host, *VAULT.ip())?;
        }
        let before = self.cast.now().await?;
        let machine = self.machine().await?;
        self.cast.manifests.write(
            "node.yaml",
            &format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {MACHINE}}}\nspec: {{providerID: 'azure://{machine}'}}\n"
            ),
        )?;
        self.controller = Some(self.start_controller()?);
        for name in ["payments", "reports"] {
            let id = self.cast.world.identity(name)?.resource_id.clone();
            self.until_state(&id, Some("Assigned")).await?;
        }
        self.story.say(
            "It reads the same manifests, asks Azure Resource Manager what the node's VM has, and writes\n\
             that into an AzureAssignment. Agents with --assignments=required wait for its word.",
        );
        let patches = self.patches(before).await?;
        self.story.expect(
            patches.is_empty(),
            "payments and reports are there already: Assigned, and not one PATCH was sent",
        );
        let agent = self.agent()?;
        agent.process.term();
        agent.process.wait_exit(WAIT).await?;
        let setup = self
            .cast
            .agent(&self.backend)
            .flag("--assignments", "required")
            .flag("--compute-id", &machine);
        self.agent = Some(self.cast.lab.start_agent(&setup)?);
        self.agent()?.ready(Duration::from_secs(20)).await?;
        let asked = curl::token(&self.cast.payments, VAULT_RESOURCE, "").await?;
        self.story.asked("payments", &asked);
        let oid = self.cast.world.identity("payments")?.principal_id.clone();
        self.expect_token(&asked, &oid, "payments");
        Ok(())
    }

    pub(super) async fn an_identity_is_assigned(&mut self) -> Result<()> {
        self.story.step(
            "An identity that the VM does not have: the controller assigns, the agent serves",
        );
        let azure = self.azure();
        let milliseconds = u64::try_from(OPERATION.as_millis())?;
        let pace = Operations::Take { milliseconds };
        azure.set_operations(MACHINE, pace).await?;
        azure.put_identity(ORDERS, Some("orders")).await?;
        let orders = self.orders().await?;
        self.story.say(format!(
            "Somebody made the identity orders in Azure; a team binds its new pod to it. This Azure takes\n\
             {:.1} s to change a VM (the real one often longer). The pod asks at once:",
            OPERATION.as_secs_f64()
        ));
        let pod = self.cast.lab.node().add_pod("orders", Style::Ptp).await?;
        self.cast.manifests.pod(&pod, "orders", Some("orders"))?;
        let before = self.cast.now().await?;
        let (start, clock) = (Timestamp::now(), Instant::now());
        let tenant = self.cast.world.tenant.id.clone();
        let manifests = identity_and_binding(&orders, &tenant);
        self.cast.manifests.write("orders.yaml", &manifests)?;
        let (asked, assigned) = tokio::join!(ask_until_served(&pod), async {
            self.until_state(ORDERS, Some("Assigned")).await?;
            anyhow::Ok(clock.elapsed())
        });
        let ((asked, tries), assigned) = (asked?, assigned?);
        let served = clock.elapsed();
        self.story.asked("orders", &asked);
        self.expect_token(&asked, &orders.principal_id, "orders");
        let patches = self.patches(before).await?;
        let lines: Vec<String> = patches.iter().map(|one| summary(one, start)).collect();
        self.story
            .say("Azure's journal, by the time since the binding was written:");
        self.story.quote(lines.join("\n"));
        self.story.quote(format!(
            "{:>6.0} ms  AzureAssignment: orders Assigned\n{:>6.0} ms  the pod has its token ({tries} request{})",
            assigned.as_secs_f64() * 1000.0,
            served.as_secs_f64() * 1000.0,
            if tries == 1 { "" } else { "s" },
        ));
        self.story.expect(
            matches!(&patches[..], [one] if changes(one).0 == [ORDERS] && changes(one).1.is_empty()),
            "one PATCH, which adds orders and touches nothing else",
        );
        let patch = patches.first().map_or(u64::MAX, |one| one.seq);
        let journal = self.cast.journal(before).await?;
        let asks: Vec<&Entry> = journal
            .iter()
            .filter(|one| {
                one.listener == Listener::Imds && one.identity.as_deref() == Some("orders")
            })
            .collect();
        self.story.expect(
            asks.first().is_some_and(|one| one.seq > patch)
                && asks.iter().all(|one| one.status == Some(200)),
            "IMDS was asked for orders only once it was assigned: no request in vain",
        );
        self.orders = Some(pod);
        Ok(())
    }

    pub(super) async fn an_identity_is_taken_back(&mut self) -> Result<()> {
        self.story
            .step("The binding goes: the pod loses it at once, the VM after a grace time");
        let pod = self.orders.clone().context("there is no pod orders")?;
        let before = self.cast.now().await?;
        let start = Timestamp::now();
        self.cast.manifests.remove("orders.yaml")?;
        let mut asked = None;
        let waited = until(SOON, "the pod to be refused", async || {
            asked = curl::token(&pod, VAULT_RESOURCE, "").await.ok();
            asked
                .as_ref()
                .is_some_and(|asked| asked.status == Some(400))
        });
        let is_refused = waited.await.is_ok();
        let took = start.duration_until(Timestamp::now());
        if let Some(asked) = &asked {
            self.story.asked("orders", asked);
        }
        self.story.expect(
            is_refused,
            format!(
                "refused {:.0} ms after the binding went",
                took.as_secs_f64() * 1000.0
            ),
        );
        self.until_state(ORDERS, None).await?;
        let patches = self.patches(before).await?;
        let lines: Vec<String> = patches.iter().map(|one| summary(one, start)).collect();
        self.story.say(format!(
            "The grace time is {GRACE} here and 15 minutes usually: putting an identity back takes Azure\n\
             minutes. Its journal, by the time since the binding went:"
        ));
        self.story.quote(lines.join("\n"));
        self.story.expect(
            matches!(&patches[..], [one] if changes(one).0.is_empty() && changes(one).1 == [ORDERS]),
            "one PATCH, which removes orders and nothing else",
        );
        let azure = self.azure().resources().await?;
        let machine = azure.computes.iter().find(|one| one.name == MACHINE);
        let left = machine.map_or(0, |machine| machine.identities.len());
        self.story.expect(
            left == 2,
            "payments and reports, which Lanyard did not add, stay on the VM",
        );
        Ok(())
    }

    /// `lanyard controller`, as in a pod of the host's network; only its folder, grace time and CA differ.
    fn start_controller(&self) -> Result<Process> {
        let lab = &self.cast.lab;
        let credential = lab.dir("controller-credential")?;
        let application = &self.cast.world.application("lanyard-controller")?;
        let secret = application.secrets.first().context("it has no secret")?;
        std::fs::write(credential.join("clientSecret"), secret)?;
        let mut command = lab.node().namespace().command(lab.program());
        command.arg("controller");
        command.arg("--manifests").arg(self.cast.manifests.dir());
        command.arg("--azure-ca-file").arg(&self.cast.simulator.ca);
        command.arg("--auth=secret");
        command.arg("--credential-dir").arg(&credential);
        command.args(["--client-id", &application.client_id]);
        command.args(["--tenant-id", &self.cast.world.tenant.id]);
        command.args(["--removal-grace", GRACE]);
        command.args(["--metrics-address", "127.0.0.1:9465"]);
        let log = lab.logs().join("controller.log");
        Ok(Process::start("controller", command, &log)?)
    }

    fn azure(&self) -> Client {
        Client::new(&self.cast.simulator.control)
    }

    /// ARM id of the node's machine.
    async fn machine(&self) -> Result<String> {
        let all = self.azure().resources().await?.computes;
        let found = all.into_iter().find(|one| one.name == MACHINE);
        Ok(found.context("the world has no such machine")?.id)
    }

    async fn orders(&self) -> Result<ShownIdentity> {
        let all = self.azure().resources().await?.identities;
        let found = all.into_iter().find(|one| one.id == ORDERS);
        found.context("the identity was not made")
    }

    /// The `PATCH`es that ARM got.
    async fn patches(&self, since: u64) -> Result<Vec<Entry>> {
        let mut entries = self.cast.journal(since).await?;
        entries.retain(|one| one.listener == Listener::Arm && one.method == "PATCH");
        Ok(entries)
    }

    /// Waits until the `AzureAssignment` says that of an identity; `None`: does not name it any more.
    async fn until_state(&self, resource_id: &str, state: Option<&str>) -> Result<()> {
        let what = format!("{resource_id} to be {}", state.unwrap_or("gone"));
        let waited = until(WAIT, what, async || {
            self.reported(resource_id)
                .is_ok_and(|now| now.as_deref() == state)
        });
        let log = || {
            self.controller
                .as_ref()
                .map(Process::tail)
                .unwrap_or_default()
        };
        let waited = waited.await;
        waited.with_context(|| format!("the controller's last words:\n{}", log()))
    }

    fn reported(&self, resource_id: &str) -> Result<Option<String>> {
        let text = std::fs::read_to_string(self.assignment()?)?;
        let assignment: Assignment = serde_saphyr::from_str(&text)?;
        let all = assignment.status.map(|status| status.identities);
        let mut all = all.into_iter().flatten();
        let one = all.find(|one| one.resource_id.eq_ignore_ascii_case(resource_id));
        Ok(one.map(|one| one.state))
    }

    /// The one file that the controller wrote.
    fn assignment(&self) -> Result<PathBuf> {
        let files = std::fs::read_dir(self.cast.manifests.dir())?.flatten();
        let mut files = files.map(|entry| entry.path());
        let found = files.find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("azureassignment-"))
        });
        found.context("there is no AzureAssignment")
    }
}

/// Asks as an SDK does: again, where it is told to. The last answer, and how many there were.
async fn ask_until_served(pod: &Pod) -> Result<(Asked, u32)> {
    let (mut last, mut tries) = (None, 0);
    let waited = until(SOON, "the pod's token", async || {
        tries += 1;
        last = curl::token(pod, VAULT_RESOURCE, "").await.ok();
        last.as_ref().is_some_and(|asked| asked.status == Some(200))
    });
    // In vain: what came instead is told, and held against what should have.
    let _ = waited.await;
    Ok((last.context("curl did not start")?, tries))
}

/// What a PATCH adds and removes.
fn changes(patch: &Entry) -> (&[String], &[String]) {
    let call = patch.arm.as_ref();
    call.map_or((&[], &[]), |call| (&call.added, &call.removed))
}

/// A PATCH in one line.
fn summary(patch: &Entry, start: Timestamp) -> String {
    let name = |id: &String| id.rsplit('/').next().unwrap_or_default().to_owned();
    let names = |ids: &[String]| ids.iter().map(name).collect::<Vec<_>>().join(", ");
    let (added, removed) = changes(patch);
    let call = patch.arm.as_ref();
    format!(
        "{:>6.0} ms  PATCH {} {}: {}, adds [{}], removes [{}] → {}",
        start.duration_until(patch.time).as_secs_f64() * 1000.0,
        call.map_or("", |call| &call.kind),
        call.map_or("", |call| &call.name),
        call.and_then(|call| call.identity_type.as_deref())
            .unwrap_or("no type"),
        names(added),
        names(removed),
        patch
            .status
            .map_or_else(|| "no answer".to_owned(), |status| status.to_string()),
    )
}

/// What the team of the pod writes.
fn identity_and_binding(identity: &ShownIdentity, tenant: &str) -> String {
    let ShownIdentity {
        id,
        client_id,
        principal_id,
        ..
    } = identity;
    format!(
        "apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentity
metadata: {{name: orders, namespace: {NAMESPACE}}}
spec:
  clientID: {client_id}
  tenantID: {tenant}
  objectID: {principal_id}
  resourceID: {id}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityBinding
metadata: {{name: orders, namespace: {NAMESPACE}}}
spec:
  identity: orders
  subjects:
    - podSelector: {{matchLabels: {{app: orders}}}}
      serviceAccounts: [orders]
"
    )
}
