//! Azure Resource Manager as the world file says it: scale sets, who may do what, how it behaves as a whole.
//!
//! In: YAML of the world file, JSON of the control socket. Out: plain values with Azure's own defaults. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use jiff::fmt::serde::unsigned_duration::friendly::compact as friendly;
use serde::{Deserialize, Serialize};

use super::SystemAssigned;

/// A virtual machine scale set: its instances share the identities that it carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleSet {
    /// Name by which the rest of the file and the commands speak of it.
    pub name: String,
    /// ARM resource id; made up from the name where absent.
    #[serde(default, rename = "resourceID")]
    pub resource_id: Option<String>,
    /// Azure region.
    #[serde(default = "super::default_location")]
    pub location: String,
    /// Names of the user-assigned identities it carries.
    #[serde(default)]
    pub identities: Vec<String>,
    /// Its system-assigned identity, if it has one.
    #[serde(default)]
    pub system_assigned: Option<SystemAssigned>,
    /// Its machines.
    #[serde(default)]
    pub instances: Vec<Instance>,
    /// Networks whose addresses are machines of it that are not listed; they share one of IMDS's limits.
    #[serde(default)]
    pub sources: Vec<IpNet>,
}

/// A machine of a scale set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Instance {
    /// Name, as `compute.name` says it.
    pub name: String,
    /// Networks whose addresses are this machine.
    #[serde(default)]
    pub sources: Vec<IpNet>,
}

/// That somebody may do something: a role, or the actions of a role of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleAssignment {
    /// Name of an identity or application, or an object id.
    pub principal: String,
    /// Name of one of Azure's own roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Actions of a custom role, `*` for any run of characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// Resource id of a subscription, resource group or resource; what is below it counts, too.
    pub scope: String,
}

/// Azure's own roles, as far as they concern what is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything but granting.
    Contributor,
    /// Reads everything.
    Reader,
    /// Reads and assigns user-assigned identities.
    #[serde(rename = "Managed Identity Operator")]
    ManagedIdentityOperator,
    /// Makes, reads and deletes user-assigned identities, and their federated credentials; does not assign them.
    #[serde(rename = "Managed Identity Contributor")]
    ManagedIdentityContributor,
    /// Reads and writes machines and scale sets.
    #[serde(rename = "Virtual Machine Contributor")]
    VirtualMachineContributor,
}

/// How Azure Resource Manager behaves as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arm {
    /// Host names (and addresses) under which the TLS listener is ARM, besides Azure's own.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Time that a write to a machine or scale set takes; zero is answered 200 at once.
    #[serde(default, with = "friendly::required")]
    pub operation_duration: Duration,
    /// Azure's token buckets for each subscription and each resource; false switches them off.
    #[serde(default = "super::yes")]
    pub throttle: bool,
    /// Time each request takes.
    #[serde(default, with = "friendly::required")]
    pub latency: Duration,
    /// Time that a write of a federated credential takes; another to the same identity meanwhile is refused.
    #[serde(default = "tenth", with = "friendly::required")]
    pub federated_latency: Duration,
    /// Time after which Entra and IMDS know an identity that was made.
    #[serde(default, with = "friendly::required")]
    pub principal_delay: Duration,
    /// How answers spell resource ids.
    #[serde(default)]
    pub id_case: IdCase,
    /// Resource groups that exist besides those that hold something, by their resource ids.
    #[serde(default)]
    pub resource_groups: Vec<String>,
    /// Subscriptions of other tenants: subscription id → tenant id.
    #[serde(default)]
    pub foreign_subscriptions: BTreeMap<String, String>,
}

/// How ARM spells resource ids: it compares them without letter case, and does not keep to one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdCase {
    /// As they were written.
    #[default]
    AsWritten,
    /// In lower case throughout.
    Lower,
    /// `resourcegroups` in lower case and the group's name in upper case, as Compute is known to do.
    UpperGroups,
}

impl Default for Arm {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            operation_duration: Duration::ZERO,
            throttle: true,
            latency: Duration::ZERO,
            federated_latency: tenth(),
            principal_delay: Duration::ZERO,
            id_case: IdCase::AsWritten,
            resource_groups: Vec::new(),
            foreign_subscriptions: BTreeMap::new(),
        }
    }
}

impl ScaleSet {
    /// A set of no name and no machine.
    pub(in crate::sim) fn nameless() -> Self {
        Self {
            name: String::new(),
            resource_id: None,
            location: super::default_location(),
            identities: Vec::new(),
            system_assigned: None,
            instances: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Its ARM resource id, made up where the file has none.
    pub fn arm_id(&self) -> String {
        self.resource_id.clone().unwrap_or_else(|| {
            format!(
                "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/simulated\
                 /providers/Microsoft.Compute/virtualMachineScaleSets/{}",
                self.name
            )
        })
    }
}

fn tenth() -> Duration {
    Duration::from_millis(100)
}
