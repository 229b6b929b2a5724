//! Flags of `lanyard explain`, and where it reads the objects from: the cluster or a folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use kube::api::ListParams;
use serde_json::Value;

use super::output::{Output, print};
use crate::api::account;
use crate::explain::{self, Explanation, Found, Question, Verdict};
use crate::kubernetes::folder::documents_of;
use crate::kubernetes::{self, CallError, Cluster, Kind};
use crate::model::ids::{ArmId, Guid, ObjectName};
use crate::model::query::Selector;

/// Flags of `lanyard explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 the pod gets a token, 1 it is refused, 2 cannot tell.\n\n\
Needs to read pods, nodes, namespaces, service accounts and the kinds of lanyard.dev; what may not be read is named."
)]
pub struct Args {
    /// The pod.
    #[arg(value_name = "POD")]
    pod: String,

    /// Its namespace; absent: the kubeconfig's current one.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// The client id that its program names.
    #[arg(long, value_name = "GUID", group = "selector")]
    client_id: Option<Guid>,

    /// The object id (principal id) that its program names.
    #[arg(long, value_name = "GUID", group = "selector")]
    object_id: Option<Guid>,

    /// The ARM id that its program names.
    #[arg(long, value_name = "ARM_ID", group = "selector")]
    resource_id: Option<ArmId>,

    /// The audience that its program asks for, such as `https://vault.azure.net`; absent: any.
    #[arg(long, value_name = "URL")]
    resource: Option<String>,

    /// Read a folder of YAML manifests instead of a cluster.
    #[arg(long, env = "LANYARD_MANIFESTS", value_name = "DIR")]
    manifests: Option<PathBuf>,

    /// Kubeconfig; absent: as kubectl finds it.
    #[arg(long, env = "LANYARD_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Args {
    /// Explains.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let explanation = match self.explanation() {
            Ok(explanation) => explanation,
            Err(error) => {
                // Not 1: that would say "refused".
                eprintln!("lanyard: cannot tell: {error:#}");
                return Ok(ExitCode::from(Verdict::Unclear.exit_code()));
            }
        };
        let text = match self.output {
            Output::Text => explain::text(&explanation),
            Output::Json => format!("{:#}\n", explain::json(&explanation)),
        };
        print(&text);
        Ok(ExitCode::from(explanation.verdict.exit_code()))
    }

    fn explanation(&self) -> anyhow::Result<Explanation> {
        Ok(match &self.manifests {
            Some(folder) => {
                let question = self.question("default");
                explain::explain(&in_folder(folder)?, &question)
            }
            None => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")?
                .block_on(self.in_cluster())?,
        })
    }

    fn question(&self, current: &str) -> Question {
        let pod = self.pod.as_str();
        let pod = ["pod/", "pods/", "po/"]
            .iter()
            .find_map(|kind| pod.strip_prefix(kind))
            .unwrap_or(pod);
        let namespace = self.namespace.as_deref().unwrap_or(current);
        let selector = match (self.client_id, self.object_id, &self.resource_id) {
            (Some(id), _, _) => Selector::ClientId(id),
            (_, Some(id), _) => Selector::ObjectId(id),
            (_, _, Some(id)) => Selector::ResourceId(id.clone()),
            _ => Selector::Default,
        };
        Question {
            pod: ObjectName::new(namespace, pod),
            selector,
            resource: self.resource.clone(),
        }
    }

    async fn in_cluster(&self) -> anyhow::Result<Explanation> {
        let cluster = kubernetes::connect(self.kubeconfig.as_deref()).await?;
        let question = self.question(cluster.client.default_namespace());
        let found = gather(&cluster, &question.pod).await?;
        Ok(explain::explain(&found, &question))
    }
}

fn in_folder(folder: &Path) -> anyhow::Result<Found> {
    let documents =
        documents_of(folder).with_context(|| format!("--manifests {}", folder.display()))?;
    let mut found = Found::default();
    for document in documents {
        match document {
            Ok(document) => found.take(document),
            Err(problem) => found.unreadable.push(problem),
        }
    }
    Ok(found)
}

/// Everything that decides about the pod.
async fn gather(cluster: &Cluster, name: &ObjectName) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let pod = cluster
        .get(Kind::POD, Some(&name.namespace), &name.name)
        .await;
    let pod = pod.with_context(|| format!("cannot read pod {name}"))?;
    let Some(pod) = pod else {
        // For the near names only.
        let everywhere = cluster.list(Kind::POD, None, &ListParams::default()).await;
        let pods = match everywhere {
            Ok(pods) => pods,
            Err(_) => cluster
                .list(Kind::POD, Some(&name.namespace), &ListParams::default())
                .await
                .unwrap_or_default(),
        };
        found.take_all(pods);
        return Ok(found);
    };
    if let Some(node) = pod.pointer("/spec/nodeName").and_then(Value::as_str) {
        on_node(cluster, node, &mut found).await;
        if found.needs_assignments(node) {
            list(cluster, Kind::ASSIGNMENT, &mut found).await;
            found.count_assignments(node);
        }
    }
    found.take(pod);
    for kind in Kind::OURS.into_iter().chain([Kind::NAMESPACE]) {
        list(cluster, kind, &mut found).await;
    }
    service_account(cluster, name, &mut found).await;
    prepared(cluster, name, &mut found).await;
    Ok(found)
}

/// The pod's service account: its annotations may name an identity.
async fn service_account(cluster: &Cluster, name: &ObjectName, found: &mut Found) {
    let Some(pod) = found.pods.get(name) else {
        return;
    };
    let (account, kind) = (account::of_pod(&pod.facts), Kind::SERVICE_ACCOUNT);
    let asked = account::is_asked_for(&pod.facts);
    match cluster
        .get(kind, Some(&account.namespace), &account.name)
        .await
    {
        Ok(account) => found.take_all(account),
        // Whoever does not ask for its identity gets none of it.
        Err(error) if asked => found.unreadable.push(unreadable(kind, &error)),
        Err(error) => tracing::debug!(%error, "the service account cannot be read"),
    }
}

/// What must be prepared for the sources of the pod's identities. What cannot be read of it decides
/// nothing, and is told where it would stand.
async fn prepared(cluster: &Cluster, name: &ObjectName, found: &mut Found) {
    let needs = explain::needs(found, name);
    for namespace in &needs.roles {
        let all = ListParams::default();
        match cluster.list(Kind::ROLE, Some(namespace), &all).await {
            Ok(roles) => found.rights.take(namespace, &roles),
            Err(error) => tracing::debug!(%error, namespace, "roles cannot be listed"),
        }
    }
    if needs.issuer {
        match cluster.issuer().await {
            Ok(issuer) => found.issuer = issuer,
            Err(error) => tracing::debug!(%error, "the issuer of tokens cannot be read"),
        }
    }
}

async fn list(cluster: &Cluster, kind: Kind, found: &mut Found) {
    match cluster.list(kind, None, &ListParams::default()).await {
        Ok(objects) => found.take_all(objects),
        Err(error) => found.unreadable.push(unreadable(kind, &error)),
    }
}

/// The node, and who else is on it: the agent, and pods that may claim the same address.
async fn on_node(cluster: &Cluster, node: &str, found: &mut Found) {
    match cluster.get(Kind::NODE, None, node).await {
        Ok(Some(node)) => found.take(node),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "the node cannot be read"),
    }
    let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
    match cluster.list(Kind::POD, None, &here).await {
        Ok(pods) => {
            found.take_agents(&pods);
            found.take_all(pods);
        }
        Err(error) => found.unreadable.push(unreadable(Kind::POD, &error)),
    }
}

fn unreadable(kind: Kind, error: &CallError) -> String {
    if error.status() == Some(404) {
        format!(
            "the kind {} is not installed (`lanyard crds | kubectl apply -f -`, or the chart)",
            kind.kind
        )
    } else {
        format!("{} cannot be listed: {error}", kind.plural)
    }
}
