//! `AzureIdentityBinding`: a grant. Written by teams, in the identity's namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::selector::label_selector;
use crate::model::facts::{BindingFacts, Subject};
use crate::model::ids::ObjectName;

/// Grants an identity of the same namespace to pods.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureIdentityBinding",
    namespaced
)]
#[kube(
    plural = "azureidentitybindings",
    shortname = "azidb",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureIdentityBindingSpec {
    /// Name of the `AzureIdentity`, in this namespace.
    pub identity: String,
    /// Who gets it. A pod that fits any entry is granted; inside an entry everything given must fit.
    pub subjects: Vec<BindingSubject>,
    /// Whether this identity answers a request that names none, where a pod is granted several and
    /// its annotation does not decide.
    #[serde(default)]
    pub default: bool,
}

/// Some pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingSubject {
    /// Labels of the pod.
    pub pod_selector: Option<LabelSelector>,
    /// Names of service accounts.
    pub service_accounts: Option<Vec<String>>,
    /// Labels of the pod's namespace. Absent: this binding's own namespace. Pods of another
    /// namespace get the identity only where their annotation names it as `NAMESPACE/NAME`.
    pub namespace_selector: Option<LabelSelector>,
}

impl AzureIdentityBinding {
    /// The facts that selection works with.
    pub fn facts(&self, name: ObjectName) -> Result<BindingFacts, Malformed> {
        if self.spec.subjects.is_empty() {
            return Err(Malformed::at(
                "spec.subjects",
                "is empty: name the pods that get the identity",
            ));
        }
        let subjects = self.spec.subjects.iter().enumerate();
        Ok(BindingFacts {
            name,
            identity: self.spec.identity.as_str().into(),
            subjects: subjects
                .map(|(at, subject)| subject.facts(at))
                .collect::<Result<_, _>>()?,
            default: self.spec.default,
        })
    }
}

impl BindingSubject {
    fn facts(&self, at: usize) -> Result<Subject, Malformed> {
        let field = format!("spec.subjects[{at}]");
        if *self == Self::default() {
            return Err(Malformed::at(
                field,
                "names nobody; `podSelector: {}` grants to every pod of the namespace",
            ));
        }
        if self.service_accounts.as_ref().is_some_and(Vec::is_empty) {
            return Err(Malformed::at(
                format!("{field}.serviceAccounts"),
                "is empty; leave it out for any",
            ));
        }
        let selector = |name: &str, selector: &Option<LabelSelector>| {
            selector
                .as_ref()
                .map(|selector| label_selector(&format!("{field}.{name}"), selector))
                .transpose()
        };
        Ok(Subject {
            pod_selector: selector("podSelector", &self.pod_selector)?,
            service_accounts: self.service_accounts.clone().unwrap_or_default(),
            namespace_selector: selector("namespaceSelector", &self.namespace_selector)?,
        })
    }
}
