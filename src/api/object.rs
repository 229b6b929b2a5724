//! One manifest document → one fact, whatever its kind. Kinds that do not concern us are skipped,
//! so that a folder may hold whole applications.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::assignment::AzureAssignment;
use super::binding::AzureIdentityBinding;
use super::exception::AzureMetadataException;
use super::identity::AzureIdentity;
use super::kind::Kind;
use super::policy::AzureIdentityPolicy;
use super::{API_VERSION, Malformed, account, pod};
use crate::model::account::AccountFacts;
use crate::model::facts::{
    AssignmentFacts, BindingFacts, ExceptionFacts, IdentityFacts, Labels, PodFacts, PolicyFacts,
};
use crate::model::ids::ObjectName;

/// An object that the agent works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A pod.
    Pod(PodFacts),
    /// A namespace: its name and labels.
    Namespace(String, Labels),
    /// An identity.
    Identity(IdentityFacts),
    /// A grant.
    Binding(BindingFacts),
    /// What an operator allows.
    Policy(PolicyFacts),
    /// Metadata paths that are forwarded.
    Exception(ExceptionFacts),
    /// The identities of a compute resource.
    Assignment(AssignmentFacts),
    /// A service account that is set up for Azure Workload Identity.
    ServiceAccount(AccountFacts),
}

/// What an object is called: unique among all objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// Namespace (empty for cluster kinds) and name.
    pub name: ObjectName,
}

impl Object {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let cluster = |name: &str| ObjectName::new("", name);
        let (kind, name) = match self {
            Self::Pod(pod) => (Kind::Pods, pod.name.clone()),
            Self::Namespace(name, _) => (Kind::Namespaces, cluster(name)),
            Self::Identity(identity) => (Kind::Identities, identity.name.clone()),
            Self::Binding(binding) => (Kind::Bindings, binding.name.clone()),
            Self::Policy(policy) => (Kind::Policies, cluster(&policy.name)),
            Self::Exception(exception) => (Kind::Exceptions, cluster(&exception.name)),
            Self::Assignment(assignment) => (Kind::Assignments, cluster(&assignment.name)),
            Self::ServiceAccount(account) => (Kind::ServiceAccounts, account.name.clone()),
        };
        ObjectKey { kind, name }
    }
}

/// Reads one document. `None` for what does not concern us: other kinds, and service accounts that
/// name no client id. `version` stands in for a missing
/// `resourceVersion` (a hash of the document, say).
pub fn read(document: Value, version: &str) -> Result<Option<Object>, Malformed> {
    let text = |field: &str| {
        document
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() {
        return Err(Malformed::at("kind", "is missing"));
    }
    let metadata = |field: &str| {
        document
            .pointer(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let name = metadata("/metadata/name");
    let namespace = Some(metadata("/metadata/namespace"))
        .filter(|ns| !ns.is_empty())
        .unwrap_or("default".into());
    let namespaced = ObjectName::new(namespace, name.as_str());
    let ours = api_version == API_VERSION;
    if (ours || matches!(kind.as_str(), "Pod" | "Namespace")) && name.is_empty() {
        return Err(Malformed::at("metadata.name", "is missing"));
    }
    // The API server takes no such name; in a folder it would pass for a service account's identity.
    if ours && name.contains(':') {
        return Err(Malformed::at(
            "metadata.name",
            "has a `:`, which no name has",
        ));
    }
    Ok(Some(match (api_version.as_str(), kind.as_str()) {
        ("v1", "Pod") => Object::Pod(pod::facts(&typed::<Pod>(document)?, namespaced, version)),
        ("v1", "Namespace") => {
            let mut labels = typed::<Namespace>(document)?
                .metadata
                .labels
                .unwrap_or_default();
            // The API server sets this label on every namespace; manifests seldom spell it out.
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
            Object::Namespace(name, labels)
        }
        ("v1", "ServiceAccount") => {
            let facts = account::facts(&document, namespaced)?;
            return Ok(facts.map(Object::ServiceAccount));
        }
        (_, "AzureIdentity") if ours => {
            Object::Identity(typed::<AzureIdentity>(document)?.facts(namespaced)?)
        }
        (_, "AzureIdentityBinding") if ours => {
            Object::Binding(typed::<AzureIdentityBinding>(document)?.facts(namespaced)?)
        }
        (_, "AzureIdentityPolicy") if ours => {
            Object::Policy(typed::<AzureIdentityPolicy>(document)?.facts(&name)?)
        }
        (_, "AzureMetadataException") if ours => {
            Object::Exception(typed::<AzureMetadataException>(document)?.facts(&name)?)
        }
        (_, "AzureAssignment") if ours => {
            Object::Assignment(typed::<AzureAssignment>(document)?.facts(&name)?)
        }
        _ if ours => {
            return Err(Malformed::at(
                "kind",
                format!("{API_VERSION} has no kind `{kind}`"),
            ));
        }
        _ => return Ok(None),
    }))
}

fn typed<T: DeserializeOwned>(document: Value) -> Result<T, Malformed> {
    serde_json::from_value(document).map_err(|error| Malformed::at("object", error))
}

#[cfg(test)]
mod tests;
