//! `AzureIdentityBinding`: a grant. Written by teams, in the identity's namespace; the status is the
//! controller's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::formats::OBJECT_NAME;
use super::rules::{Format, Keyed, List, Rule, Rules};
use super::selector::{Selector, label_selector};
use crate::model::facts::{BindingFacts, Subject};
use crate::model::ids::ObjectName;

/// Which identity, and which pods get it.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureIdentityBinding",
    plural = "azureidentitybindings",
    shortname = "azidb",
    category = "azure",
    category = "lanyard",
    namespaced,
    status = "AzureIdentityBindingStatus",
    derive = "PartialEq",
    doc = "A grant: gives an AzureIdentity of this namespace to pods. A pod chooses among what it was granted with the annotation lanyard.dev/identity; the annotation alone grants nothing."
)]
#[kube(
    printcolumn = r#"{"name": "Identity", "type": "string", "jsonPath": ".spec.identity", "description": "The AzureIdentity that is granted."}"#,
    printcolumn = r#"{"name": "Default", "type": "boolean", "jsonPath": ".spec.default", "description": "Whether it answers requests that name no identity."}"#,
    printcolumn = r#"{"name": "Pods", "type": "integer", "jsonPath": ".status.matchedPods", "description": "How many pods the subjects match, as far as the controller knows."}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "description": "Whether the grant is in force, as far as the controller knows."}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "description": "Why it is or is not in force."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1, "description": "What is missing, and what to do about it."}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureIdentityBindingSpec {
    /// Name of the `AzureIdentity`, in this namespace, for example `payments`.
    #[schemars(transform = IDENTITY.schema())]
    pub identity: String,
    /// Which pods get it. A pod that fits any entry is granted the identity; inside an entry everything
    /// given must fit. For example `[{podSelector: {matchLabels: {app: payments}}, serviceAccounts:
    /// [payments]}]`.
    #[schemars(transform = SUBJECTS.schema())]
    pub subjects: Vec<BindingSubject>,
    /// Whether this identity answers a request that names none, where a pod is granted several and has
    /// no annotation. With one grant nothing needs to be said.
    #[serde(default)]
    pub default: bool,
}

/// Some pods: everything given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = Rules(&[NAMES_NOBODY]))]
pub struct BindingSubject {
    /// Labels of the pod, for example `{matchLabels: {app: payments}}`. `{}` is every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// Names of service accounts that the pod may run as, for example `[payments]`. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = ACCOUNTS.schema())]
    pub service_accounts: Option<Vec<String>>,
    /// Labels of the pod's namespace, for example `{matchLabels: {team: shop}}`. Left out: the binding's
    /// own namespace. Pods of another namespace get the identity only where their annotation names it
    /// as `NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
}

/// What the controller found out about the grant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureIdentityBindingStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many pods the subjects match. Counted at most every ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_pods: Option<i32>,
    /// Where the grant stands. `Ready` is true when the identity exists, a policy admits it and it is on
    /// the nodes of the pods; its reason and message say what is missing otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = Keyed("type"))]
    pub conditions: Vec<Condition>,
}

const IDENTITY: Format = OBJECT_NAME.with_message(
    "must be the name of an AzureIdentity of this namespace, as in payments; a binding grants its own namespace's only",
);
const SUBJECTS: List = List::at_most(64).not_empty("is empty: name the pods that get the identity");
const ACCOUNTS: List = List::at_most(64)
    .of(OBJECT_NAME.with_message(
        "must be the name of a service account, without its namespace, as in payments",
    ))
    .not_empty("is empty: leave it out for any service account");

const NAMES_NOBODY: Rule = Rule::new(
    "has(self.podSelector) || has(self.serviceAccounts) || has(self.namespaceSelector)",
    "names nobody: state podSelector, serviceAccounts or namespaceSelector; `podSelector: {}` is every pod of the namespace",
);

impl AzureIdentityBinding {
    /// The facts that selection works with.
    pub fn facts(&self, name: ObjectName) -> Result<BindingFacts, Malformed> {
        IDENTITY.check("spec.identity", &self.spec.identity)?;
        SUBJECTS.check_size("spec.subjects", self.spec.subjects.len())?;
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
        NAMES_NOBODY.check(*self != Self::default(), field.as_str())?;
        if let Some(accounts) = &self.service_accounts {
            ACCOUNTS.check(&format!("{field}.serviceAccounts"), accounts)?;
        }
        let selector = |name: &str, selector: &Option<Selector>| {
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
