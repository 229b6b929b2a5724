//! What selection may know of pods, identities, bindings, policies and exceptions: plain values,
//! whatever they were read from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{ArmId, Guid, ObjectName};
use super::path::PlainPath;
use super::presented::SecretDigest;

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// How far a pod's life is, as far as its address is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodLife {
    /// Pending or Running (also while terminating: a program that shuts down still needs tokens).
    Live,
    /// Succeeded or Failed: its address may already be somebody else's.
    Ended,
}

/// How a pod's requests come to the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// The node's netfilter redirects them.
    #[default]
    Redirect,
    /// The agent listens inside the pod's network namespace.
    InPod,
}

impl Mode {
    /// As annotations and flags say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::InPod => "in-pod",
        }
    }

    /// The mode of this name; `None` for any other word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Redirect, Self::InPod]
            .into_iter()
            .find(|mode| mode.as_str() == word)
    }
}

/// A pod, as far as identity is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFacts {
    /// Namespace and name.
    pub name: ObjectName,
    /// The pod's UID (its name where manifests give none): another pod of the same name is another
    /// pod.
    pub uid: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The annotation `lanyard.dev/identity`, split at commas; `None` when absent.
    pub wanted: Option<Vec<String>>,
    /// `spec.serviceAccountName`.
    pub service_account: Arc<str>,
    /// `status.podIPs` (empty for host-network pods: their address is the node's).
    pub ips: Vec<IpAddr>,
    /// Whether it shares its node's network.
    #[serde(default)]
    pub host_network: bool,
    /// Whether its addresses are still its own.
    pub life: PodLife,
    /// The annotation `lanyard.dev/mode`, where it names one; else the agent's own holds.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// The annotation `lanyard.dev/vm-extension-endpoint`, where it says yes or no; else the agent's own word holds.
    #[serde(default)]
    pub vm_extension: Option<bool>,
    /// What its spec says that its requests in App Service's dialects show (`IDENTITY_HEADER`, `MSI_SECRET`).
    #[serde(default)]
    pub secrets: Vec<SecretDigest>,
    /// Changes with every new sandbox (where that is not told, with every new status); local evidence
    /// is bound to it.
    pub version: Arc<str>,
}

/// Where an identity's tokens come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceFacts {
    /// The node's IMDS, by client id.
    Imds,
    /// The pod's own service-account token, exchanged at Entra or at this endpoint.
    Federated(Option<Arc<EndpointFacts>>),
    /// An application's own credential.
    ServicePrincipal(Arc<CredentialFacts>),
}

impl SourceFacts {
    /// All metric labels that [`SourceFacts::as_str`] can give.
    pub const LABELS: [&'static str; 3] = ["imds", "federated", "service_principal"];

    /// Metric label and part of the cache key.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Imds => Self::LABELS[0],
            Self::Federated(_) => Self::LABELS[1],
            Self::ServicePrincipal(_) => Self::LABELS[2],
        }
    }
}

/// A token endpoint other than Entra's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointFacts {
    /// Its https URL.
    pub url: Arc<str>,
    /// Certificates, in PEM, that alone are trusted there; `None`: the public ones.
    pub ca_bundle: Option<Arc<str>>,
    /// Name in its certificate, where it is not the URL's host.
    pub sni: Option<Arc<str>>,
}

/// Where an application's credential is: a Secret of the identity's namespace and keys in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CredentialFacts {
    /// The Secret's name.
    pub secret: Arc<str>,
    /// What to read of it.
    pub form: CredentialForm,
}

/// What a credential is made of; the texts are keys of the Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CredentialForm {
    /// A client secret.
    Secret {
        /// The client secret.
        key: Arc<str>,
    },
    /// Certificates and their private keys in PEM.
    Pem {
        /// The certificates.
        certificate: Arc<str>,
        /// The private keys.
        private_key: Arc<str>,
        /// Whether the chain goes into each assertion (`x5c`).
        send_chain: bool,
    },
    /// A certificate and its key in a PKCS#12 store.
    Pkcs12 {
        /// The store.
        store: Arc<str>,
        /// Its password; `None`: it has an empty one.
        password: Option<Arc<str>>,
        /// Whether the chain goes into each assertion (`x5c`).
        send_chain: bool,
    },
}

/// An `AzureIdentity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityFacts {
    /// Namespace and name.
    pub name: ObjectName,
    /// Object UID, empty where the manifests give none.
    pub uid: Arc<str>,
    /// `metadata.generation`, 0 where the manifests give none.
    pub generation: i64,
    /// The identity's client id (application id).
    pub client_id: Guid,
    /// Its tenant, when stated.
    pub tenant_id: Option<Guid>,
    /// Its object (principal) id, when stated.
    pub object_id: Option<Guid>,
    /// Its ARM id, when stated.
    pub resource_id: Option<ArmId>,
    /// Sources in the order to try.
    pub sources: Vec<SourceFacts>,
    /// Audiences it may be used for; empty = any.
    pub allowed_resources: Vec<String>,
    /// Where Entra ID is, as in `https://login.microsoftonline.us`; `None`: that of the agent's cloud.
    #[serde(default)]
    pub authority_host: Option<Arc<str>>,
}

/// Requirements on labels. All must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelSelector {
    /// Labels with exactly these values.
    pub match_labels: Labels,
    /// Set-based requirements.
    pub expressions: Vec<Requirement>,
}

/// One set-based requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The relation to `values`.
    pub operator: Operator,
    /// The values; empty for `Exists` and `DoesNotExist`.
    pub values: Vec<String>,
}

/// Kubernetes' set operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// The label is there with one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether labels satisfy every requirement. An empty selector matches everything, as in Kubernetes.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.unmet(labels).next().is_none()
    }

    /// The requirements that labels do not satisfy.
    pub fn unmet<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = UnmetLabel<'a>> {
        let values = self.match_labels.iter().map(|(key, value)| UnmetLabel {
            key,
            operator: Operator::In,
            values: std::slice::from_ref(value),
            found: labels.get(key).map(String::as_str),
        });
        let expressions = self.expressions.iter().map(|requirement| UnmetLabel {
            key: &requirement.key,
            operator: requirement.operator,
            values: &requirement.values,
            found: labels.get(&requirement.key).map(String::as_str),
        });
        values.chain(expressions).filter(|label| !label.holds())
    }
}

/// A requirement that labels do not satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmetLabel<'a> {
    /// The label's key.
    pub key: &'a str,
    /// The relation to `values`.
    pub operator: Operator,
    /// The values; empty for `Exists` and `DoesNotExist`.
    pub values: &'a [String],
    /// The value that was found.
    pub found: Option<&'a str>,
}

impl UnmetLabel<'_> {
    fn holds(&self) -> bool {
        let listed = |value: &str| self.values.iter().any(|wanted| wanted == value);
        match self.operator {
            Operator::In => self.found.is_some_and(listed),
            Operator::NotIn => !self.found.is_some_and(listed),
            Operator::Exists => self.found.is_some(),
            Operator::DoesNotExist => self.found.is_none(),
        }
    }
}

impl std::fmt::Display for UnmetLabel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, values) = (self.key, self.values.join(" or "));
        match (self.operator, self.found) {
            (Operator::In, Some(found)) => write!(f, "label {key} is {found}, not {values}"),
            (Operator::In, None) => write!(f, "label {key}={values} is missing"),
            (Operator::NotIn | Operator::DoesNotExist, found) => {
                write!(
                    f,
                    "label {key}={} is there, and must not be",
                    found.unwrap_or_default()
                )
            }
            (Operator::Exists, _) => write!(f, "label {key} is missing"),
        }
    }
}

/// One entry of a binding's `subjects`: everything given must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The pod's labels.
    pub pod_selector: Option<LabelSelector>,
    /// The pod's service account is one of these.
    pub service_accounts: Vec<String>,
    /// The pod's namespace's labels; absent = the binding's own namespace.
    pub namespace_selector: Option<LabelSelector>,
}

/// An `AzureIdentityBinding`: a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingFacts {
    /// Namespace and name.
    pub name: ObjectName,
    /// Name of the identity, in the same namespace.
    pub identity: Arc<str>,
    /// Who gets it: entries are OR-ed.
    pub subjects: Vec<Subject>,
    /// Whether it decides when several are granted and nothing else does.
    pub default: bool,
}

/// An `AzureIdentityPolicy`: what the operator lets namespaces use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFacts {
    /// The object's name.
    pub name: Arc<str>,
    /// Which namespaces.
    pub namespaces: LabelSelector,
    /// What their identities may be.
    pub scope: Arc<PolicyScope>,
}

/// The limits that one policy sets to identities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyScope {
    /// ARM id prefixes, compared at segment borders. Empty allows none.
    pub resource_id_prefixes: Vec<String>,
    /// Tenants; empty = any.
    pub tenant_ids: Vec<Guid>,
    /// Applications, by client id: they have no ARM id.
    #[serde(default)]
    pub client_ids: Vec<Guid>,
    /// Entra IDs beside the agent's cloud's, as in `https://login.microsoftonline.us`.
    #[serde(default)]
    pub authority_hosts: Vec<String>,
    /// Token endpoints, as URLs.
    #[serde(default)]
    pub token_endpoints: Vec<String>,
    /// Whether annotations of Azure Workload Identity on service accounts count.
    #[serde(default)]
    pub workload_identity: bool,
    /// Resource groups in which the controller may create and remove identities of theirs.
    #[serde(default)]
    pub managed_groups: Vec<ArmId>,
}

/// An `AzureMetadataException`: metadata paths that are forwarded for some pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionFacts {
    /// The object's name.
    pub name: Arc<str>,
    /// The pods' namespace.
    pub namespace: Arc<str>,
    /// The pods' service accounts.
    pub service_accounts: Vec<String>,
    /// Exact metadata paths.
    pub paths: Vec<PlainPath>,
    /// Whether `userData` and `customData` are open, too.
    pub allow_node_identity: bool,
}

/// An `AzureAssignment`: what a virtual machine or scale set has or is getting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentFacts {
    /// The object's name, made from the compute resource's ARM id.
    pub name: Arc<str>,
    /// Its identities; what is not here is not there yet.
    pub identities: Vec<AssignedFacts>,
}

/// One identity of an `AzureAssignment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedFacts {
    /// ARM id of the identity.
    pub resource_id: ArmId,
    /// Its client id, once Azure told it.
    pub client_id: Option<Guid>,
    /// How far it is.
    pub standing: Standing,
}

/// How far an identity's assignment to a compute resource is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// On its way.
    Pending,
    /// There.
    Assigned {
        /// Since when (since the epoch).
        since: Duration,
    },
    /// Azure refused.
    Failed {
        /// Why, in Azure's words.
        why: Arc<str>,
    },
}

/// What is known of the assignments to this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodeAssignments {
    /// They do not count: there is no controller.
    #[default]
    Ignored,
    /// They count; the `AzureAssignment` of this node's compute resource, if there is one.
    Required(Option<Arc<AssignmentFacts>>),
}

impl NodeAssignments {
    /// How far an identity is; `None` where that does not count.
    #[must_use]
    pub fn standing(&self, identity: &IdentityFacts) -> Option<Standing> {
        let Self::Required(own) = self else {
            return None;
        };
        let known = own.as_ref().map(|own| own.standing(identity));
        Some(known.unwrap_or(Standing::Pending))
    }
}

impl AssignmentFacts {
    /// How far an identity is: by its ARM id, or by its client id where it states no ARM id.
    #[must_use]
    pub fn standing(&self, identity: &IdentityFacts) -> Standing {
        let is = |entry: &&AssignedFacts| match &identity.resource_id {
            Some(id) => entry.resource_id == *id,
            None => entry.client_id == Some(identity.client_id),
        };
        let entry = self.identities.iter().find(is);
        entry.map_or(Standing::Pending, |entry| entry.standing.clone())
    }
}
