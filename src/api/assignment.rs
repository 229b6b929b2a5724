//! `AzureAssignment`: which identities a virtual machine or scale set has or is getting. Written by
//! the controller only; the agent reads the one of its own compute resource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which user-assigned identities one virtual machine or scale set has or is getting. Written by
/// Lanyard's controller only; there is one object for each compute resource, never one for each pod.
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
    derive = "PartialEq"
)]
#[kube(
    printcolumn(
        name = "Assigned",
        type_ = "integer",
        json_path = ".status.assigned",
        description = "Identities that Azure has put on the compute resource."
    ),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.pending",
        description = "Identities on their way."
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.failed",
        description = "Identities that Azure refused."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Compute",
        type_ = "string",
        json_path = ".spec.computeID",
        priority = 1,
        description = "ARM id of the virtual machine or scale set."
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureAssignmentSpec {
    /// ARM id of the virtual machine or scale set, for example
    /// `/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool1`.
    #[serde(rename = "computeID")]
    pub compute_id: String,
    /// The identities that the controller wants there. It writes them down before it asks Azure, so
    /// that a crash forgets neither the intent nor who added what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<IntendedIdentity>,
}

/// One identity that the controller wants on the compute resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IntendedIdentity {
    /// ARM id of the identity.
    #[serde(rename = "resourceID")]
    pub resource_id: String,
    /// Whether Lanyard added it. Only such an identity is ever removed again.
    #[serde(default)]
    pub owned: bool,
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
    /// says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    /// Pending, Assigned, Failed or Removing.
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
