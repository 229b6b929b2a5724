//! `AzureAssignment`: which identities a virtual machine or scale set has or is getting. Written by
//! the controller only; the agent reads the one of its own compute resource.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::formats::{COMPUTE_ID, IDENTITY_ID};
use super::rules::{Keyed, List, Rule, Rules};
use super::{Malformed, parse_optional};
use crate::model::compute::Compute;
use crate::model::facts::{AssignedFacts, AssignmentFacts, Standing};

/// Which compute resource, and which identities the controller wants there.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureAssignment",
    plural = "azureassignments",
    shortname = "azas",
    category = "azure",
    category = "lanyard",
    status = "AzureAssignmentStatus",
    derive = "PartialEq",
    doc = "Which user-assigned identities one virtual machine or scale set has or is getting. Lanyard's controller writes it and nobody else; there is one for each compute resource, however many pods it runs."
)]
#[kube(
    printcolumn = r#"{"name": "Assigned", "type": "integer", "jsonPath": ".status.assigned", "description": "Identities that Azure has put on the compute resource."}"#,
    printcolumn = r#"{"name": "Pending", "type": "integer", "jsonPath": ".status.pending", "description": "Identities on their way."}"#,
    printcolumn = r#"{"name": "Failed", "type": "integer", "jsonPath": ".status.failed", "description": "Identities that Azure refused."}"#,
    printcolumn = r#"{"name": "Synced", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Synced\")].status", "description": "Whether Azure has what is wanted."}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Synced\")].reason", "description": "What keeps it from that."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Compute", "type": "string", "jsonPath": ".spec.computeID", "priority": 1, "description": "ARM id of the virtual machine or scale set."}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Synced\")].message", "priority": 1, "description": "What keeps it from that, and what to do about it."}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureAssignmentSpec {
    /// ARM id of the virtual machine or scale set, for example
    /// `/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool1`.
    #[serde(rename = "computeID")]
    #[schemars(transform = COMPUTE_ID.schema(), transform = Rules(&[COMPUTE_STAYS]))]
    pub compute_id: String,
    /// The identities that the controller wants there. It writes them down before it asks Azure, so
    /// that a crash forgets neither the intent nor who added what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = INTENDED.schema(), transform = Keyed("resourceID"))]
    pub identities: Vec<IntendedIdentity>,
}

/// One identity that the controller wants on the compute resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IntendedIdentity {
    /// ARM id of the identity.
    #[serde(rename = "resourceID")]
    #[schemars(transform = IDENTITY_ID.schema())]
    pub resource_id: String,
    /// Whether Lanyard added it. Only such an identity is ever removed again.
    #[serde(default)]
    pub owned: bool,
    /// Whether its `AzureIdentity` said `immutable`, which counts when that object is gone, too: it
    /// stays on the compute resource for ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
    /// No pod has needed it for a while: from then on it is removed, unless one comes back before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_after: Option<Time>,
}

/// What became of the intent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureAssignmentStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The identities one by one. One that is in the spec and not here is Pending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = Keyed("resourceID"))]
    pub identities: Vec<AssignedIdentity>,
    /// How many are Assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<i32>,
    /// How many are Pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<i32>,
    /// How many have Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<i32>,
    /// How many are being removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removing: Option<i32>,
    /// Where the compute resource as a whole stands. `Synced` is true when Azure has what the spec
    /// says; its reason and message say what keeps it from that otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = Keyed("type"))]
    pub conditions: Vec<Condition>,
}

/// One identity on the compute resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignedIdentity {
    /// ARM id of the identity.
    #[serde(rename = "resourceID")]
    pub resource_id: String,
    /// Client id of the identity, as Azure tells it once it is assigned.
    #[serde(rename = "clientID", default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Object (principal) id of the identity, as the compute resource has it. An identity that was
    /// deleted and created again has another one, and is assigned anew.
    #[serde(
        rename = "principalID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub principal_id: Option<String>,
    /// How far it is: `Pending` (wanted, not confirmed by Azure yet), `Assigned`, `Failed` (Azure refused)
    /// or `Removing` (not wanted any more, not confirmed yet).
    pub state: AssignmentState,
    /// Since when the identity is in this state.
    pub since: Time,
    /// Why, in one word, for example `LinkedAuthorizationFailed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in Azure's or Lanyard's words, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

const INTENDED: List = List::at_most(1000);
const COMPUTE_STAYS: Rule = Rule::new(
    "self == oldSelf",
    "computeID cannot change: the object's name is made from it",
);
/// A rule about the object as a whole: the metadata are not in the spec.
pub(super) const NAME: Rule = Rule::new(
    "self.metadata.name.matches(r'^(vm|vmss)-[a-z0-9-]*-[0-9a-f]{8}$') && self.metadata.name.startsWith('vmss-') == self.spec.computeID.matches(r'(?i)/virtualMachineScaleSets/[^/]+/?$')",
    "the name must be <vm or vmss>-<name>-<8 hex digits of the SHA-256 of the ARM id in lower case>: agents look for it by that name",
);

impl AzureAssignment {
    /// The facts that waiting for an assignment works with. An entry of the status that cannot be
    /// read is left out: its identity counts as Pending, and no other one suffers.
    pub fn facts(&self, name: &str) -> Result<AssignmentFacts, Malformed> {
        COMPUTE_ID.check("spec.computeID", &self.spec.compute_id)?;
        let compute: Compute = parse_optional("spec.computeID", Some(&self.spec.compute_id))?
            .ok_or_else(|| Malformed::at("spec.computeID", "is missing"))?;
        NAME.check(compute.assignment_name() == name, "metadata.name")?;
        INTENDED.check_size("spec.identities", self.spec.identities.len())?;
        for (at, intended) in self.spec.identities.iter().enumerate() {
            let field = format!("spec.identities[{at}].resourceID");
            IDENTITY_ID.check(field, &intended.resource_id)?;
        }
        let reported = self.status.iter().flat_map(|status| &status.identities);
        Ok(AssignmentFacts {
            name: name.into(),
            identities: reported.filter_map(AssignedIdentity::facts).collect(),
        })
    }
}

impl AssignedIdentity {
    fn facts(&self) -> Option<AssignedFacts> {
        let words = [&self.reason, &self.message];
        let why: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
        Some(AssignedFacts {
            resource_id: self.resource_id.parse().ok()?,
            client_id: self.client_id.as_ref().and_then(|id| id.parse().ok()),
            standing: match self.state {
                AssignmentState::Assigned => Standing::Assigned {
                    since: since_epoch(&self.since),
                },
                AssignmentState::Failed => Standing::Failed {
                    why: why.join(": ").into(),
                },
                // What is being removed may be wanted again in a moment: no refusal, no token.
                AssignmentState::Pending | AssignmentState::Removing => Standing::Pending,
            },
        })
    }
}

fn since_epoch(time: &Time) -> Duration {
    let seconds = u64::try_from(time.0.as_second()).unwrap_or_default();
    Duration::from_secs(seconds)
}

/// How far an identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AssignmentState {
    /// Wanted; Azure has not confirmed it yet.
    Pending,
    /// On the compute resource.
    Assigned,
    /// Azure refused; the reason says why.
    Failed,
    /// Not wanted any more; Azure has not confirmed its removal yet.
    Removing,
}
