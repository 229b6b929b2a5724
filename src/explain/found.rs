//! What was found in a cluster or a folder: documents come in, the [`World`] that the agent decides
//! with goes out, beside what only a person wants to know (phases, nodes, agents, broken objects).
//!
//! Lenient: a document that cannot be used is kept as [`Broken`], with the field named.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::rights::Rights;
use crate::agent::touched::Touched;
use crate::agent::world::{Change, World};
use crate::api::STARTUP_TAINT;
use crate::api::object::{self, Object};
use crate::model::account::AccountFacts;
use crate::model::compute::Compute;
use crate::model::facts::PodFacts;
use crate::model::ids::ObjectName;

/// Everything found.
#[derive(Debug, Default)]
pub struct Found {
    /// The objects that decide.
    pub world: World,
    /// Pods, with what selection does not look at.
    pub pods: BTreeMap<ObjectName, PodView>,
    /// Nodes by name.
    pub nodes: HashMap<String, NodeView>,
    /// Lanyard's agents; `None`: not looked for, as in a folder.
    pub agents: Option<Vec<AgentView>>,
    /// Objects that cannot be used.
    pub broken: Vec<Broken>,
    /// Service accounts that name an identity, and that the agents do not look at.
    pub ignored_accounts: Vec<AccountFacts>,
    /// What agents may do in namespaces.
    pub rights: Rights,
    /// Who issues service accounts' tokens; `None`: not known.
    pub issuer: Option<String>,
    /// What could not be read at all, in sentences.
    pub unreadable: Vec<String>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// As selection sees it.
    pub facts: Arc<PodFacts>,
    /// `status.phase`.
    pub phase: String,
    /// The node it runs on.
    pub node: Option<String>,
    /// `metadata.annotations`: a slip in a key is looked for there.
    pub annotations: BTreeMap<String, String>,
    /// Who makes it.
    pub owner: Option<Owner>,
}

/// What makes pods from a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `Deployment`, `StatefulSet`, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Whether [`STARTUP_TAINT`] is on it.
    pub tainted: bool,
    /// The name of its `AzureAssignment`; `None` outside Azure.
    pub assignment: Option<String>,
}

/// An agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "five answers of its own each"
)]
pub struct AgentView {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its node.
    pub node: String,
    /// Running and ready.
    pub ready: bool,
    /// Its phase, for the case that it is not.
    pub phase: String,
    /// Whether it only observes.
    pub observes: bool,
    /// Whether it tells host-network pods apart.
    pub tells_hosts_apart: bool,
    /// Its own service account.
    pub account: String,
    /// Whether it looks at annotations of service accounts.
    pub looks_at_accounts: bool,
    /// Whether it waits for identities to be assigned to its node.
    pub needs_assignments: bool,
}

/// An object that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The kind.
    pub kind: String,
    /// Namespace (empty where it has none) and name.
    pub name: ObjectName,
    /// What is wrong, with the field.
    pub problem: String,
}

impl Found {
    /// Takes a document in: as the API server or a folder has it, with `apiVersion` and `kind`.
    pub fn take(&mut self, document: Value) {
        let text = |field: &str| {
            document
                .pointer(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (kind, version) = (text("/kind"), text("/metadata/resourceVersion"));
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let pod = (kind == "Pod").then(|| PodParts::of(&document));
        if kind == "Node" {
            self.nodes.insert(name, node(&document));
            return;
        }
        match object::read(document, &version) {
            Ok(Some(Object::ServiceAccount(facts))) if self.ignores_accounts() => {
                self.ignored_accounts.push(facts);
            }
            Ok(Some(object)) => {
                if let (Object::Pod(facts), Some(parts)) = (&object, pod) {
                    self.pods.insert(facts.name.clone(), parts.view(facts));
                }
                self.change(Change::Apply(object));
            }
            Ok(None) => {}
            Err(malformed) => self.broken.push(Broken {
                kind,
                name: ObjectName::new(namespace, name),
                problem: malformed.to_string(),
            }),
        }
    }

    /// Takes documents in.
    pub fn take_all(&mut self, documents: impl IntoIterator<Item = Value>) {
        for document in documents {
            self.take(document);
        }
    }

    /// Looks for agents among the pods taken in so far and `others`.
    pub fn take_agents<'a>(&mut self, pods: impl IntoIterator<Item = &'a Value>) {
        let agents = pods.into_iter().filter_map(agent);
        self.agents = Some(agents.collect());
    }

    /// Whether service accounts do not count: no agent that was found looks at them.
    fn ignores_accounts(&self) -> bool {
        let mut agents = self.agents.iter().flatten().peekable();
        agents.peek().is_some() && !agents.any(|agent| agent.looks_at_accounts)
    }

    fn change(&mut self, change: Change) {
        self.world
            .change(change, Duration::ZERO, &mut Touched::default());
    }

    /// Whether an agent on this node waits for assignments.
    pub fn needs_assignments(&self, node: &str) -> bool {
        let mut agents = self.agents.iter().flatten();
        agents.any(|agent| agent.node == node && agent.needs_assignments)
    }

    /// Whether an agent on this pod's node tells it apart from the node, where it shares that one's network.
    pub fn is_told_apart(&self, pod: &PodView) -> bool {
        let mut agents = self.agents.iter().flatten();
        !pod.facts.host_network
            || agents.any(|agent| pod.node.as_ref() == Some(&agent.node) && agent.tells_hosts_apart)
    }

    /// From here on the node's `AzureAssignment` counts, as it does to such an agent.
    pub fn count_assignments(&mut self, node: &str) {
        if let Some(name) = self
            .nodes
            .get(node)
            .and_then(|node| node.assignment.clone())
        {
            self.change(Change::Compute(name.into()));
        }
    }

    /// The broken object of a kind and name.
    pub fn broken(&self, kind: &str, name: &ObjectName) -> Option<&Broken> {
        self.broken
            .iter()
            .find(|broken| broken.kind == kind && broken.name == *name)
    }
}

/// What of a pod's document selection does not look at.
struct PodParts {
    phase: String,
    node: Option<String>,
    annotations: BTreeMap<String, String>,
    owner: Option<Owner>,
}

impl PodParts {
    fn of(document: &Value) -> Self {
        let text = |field: &str| {
            document
                .pointer(field)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let annotations = document
            .pointer("/metadata/annotations")
            .and_then(Value::as_object);
        let annotations = annotations
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        Self {
            phase: text("/status/phase").unwrap_or_else(|| "Unknown".to_owned()),
            node: text("/spec/nodeName"),
            annotations: annotations.collect(),
            owner: owner(document),
        }
    }

    fn view(self, facts: &PodFacts) -> PodView {
        PodView {
            facts: Arc::new(facts.clone()),
            phase: self.phase,
            node: self.node,
            annotations: self.annotations,
            owner: self.owner,
        }
    }
}

/// Who makes the pod: of a `ReplicaSet` that a `Deployment` made, that one.
fn owner(document: &Value) -> Option<Owner> {
    let owners = document.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let (kind, name) = (owner["kind"].as_str()?, owner["name"].as_str()?);
    let hash = document
        .pointer("/metadata/labels/pod-template-hash")
        .and_then(Value::as_str);
    let deployment = hash
        .filter(|_| kind == "ReplicaSet")
        .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    Some(match deployment {
        Some(deployment) => Owner {
            kind: "Deployment".to_owned(),
            name: deployment.to_owned(),
        },
        None => Owner {
            kind: kind.to_owned(),
            name: name.to_owned(),
        },
    })
}

fn node(document: &Value) -> NodeView {
    let taints = document.pointer("/spec/taints").and_then(Value::as_array);
    NodeView {
        tainted: taints
            .into_iter()
            .flatten()
            .any(|taint| taint["key"] == STARTUP_TAINT),
        assignment: assignment_of(document),
    }
}

fn assignment_of(node: &Value) -> Option<String> {
    let id = node.pointer("/spec/providerID")?.as_str()?;
    let compute: Compute = id.parse().ok()?;
    Some(compute.assignment_name())
}

fn agent(document: &Value) -> Option<AgentView> {
    let text = |field: &str| document.pointer(field).and_then(Value::as_str);
    let label = |name: &str| document.pointer("/metadata/labels")?.get(name)?.as_str();
    let is_agent = label("app.kubernetes.io/name") == Some("lanyard")
        && label("app.kubernetes.io/component") == Some("agent");
    if !is_agent {
        return None;
    }
    let conditions = document
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let phase = text("/status/phase").unwrap_or("Unknown").to_owned();
    Some(AgentView {
        name: ObjectName::new(text("/metadata/namespace")?, text("/metadata/name")?),
        node: text("/spec/nodeName").unwrap_or_default().to_owned(),
        ready: ready && phase == "Running",
        phase,
        observes: is_told(document, "enforcement", "observe"),
        tells_hosts_apart: is_told(document, "host-network-pods", "true"),
        account: text("/spec/serviceAccountName")
            .unwrap_or("default")
            .to_owned(),
        looks_at_accounts: is_told(document, "workload-identity", "true"),
        needs_assignments: is_told(document, "assignments", "required"),
    })
}

/// Whether the agent was told so, by flag or by variable.
fn is_told(document: &Value, flag: &str, value: &str) -> bool {
    let containers = document
        .pointer("/spec/containers")
        .and_then(Value::as_array);
    let (long, variable) = (
        format!("--{flag}"),
        format!("LANYARD_{}", flag.to_ascii_uppercase().replace('-', "_")),
    );
    containers.into_iter().flatten().any(|container| {
        let arguments: Vec<&str> = ["command", "args"]
            .iter()
            .filter_map(|field| container[*field].as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let by_flag = arguments.contains(&format!("{long}={value}").as_str())
            || arguments
                .windows(2)
                .any(|pair| pair == [long.as_str(), value]);
        let mut variables = container["env"].as_array().into_iter().flatten();
        by_flag || variables.any(|set| set["name"] == variable.as_str() && set["value"] == value)
    })
}

impl PodView {
    /// Its first address.
    pub fn address(&self) -> Option<IpAddr> {
        self.facts.ips.first().copied()
    }
}
