//! The client's commands about what ARM holds.
//!
//! In: names and values. Out: typed answers. Waits for the simulator's answer.

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::client::{Client, Outcome};
use crate::sim::arm::{Failure, Operations, Poison, ProvisioningState, Resources, ShownIdentity};
use crate::sim::world::{Instance, RoleAssignment, ScaleSet, Vm};

/// The path of something below `/arm`.
fn path(parts: &[&str]) -> String {
    let encoded = parts
        .iter()
        .map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string());
    let encoded: Vec<String> = encoded.collect();
    // The fixed parts have hyphens, which need no encoding.
    format!("/arm/{}", encoded.join("/").replace("%2D", "-"))
}

impl Client {
    /// Everything that ARM holds, at this moment.
    pub async fn resources(&self) -> Outcome<Resources> {
        self.read("/arm").await
    }

    /// Adds a machine; one with the same resource id is replaced.
    pub async fn add_vm(&self, vm: &Vm) -> Outcome<()> {
        self.write(Method::PUT, "/arm/vms", vm).await
    }

    /// Adds a scale set; one with the same resource id is replaced.
    pub async fn add_scale_set(&self, set: &ScaleSet) -> Outcome<()> {
        self.write(Method::PUT, "/arm/scale-sets", set).await
    }

    /// Replaces the machines of a scale set.
    pub async fn scale(&self, name: &str, instances: &[Instance]) -> Outcome<()> {
        let path = path(&["scale-sets", name, "instances"]);
        self.write(Method::PUT, &path, &instances).await
    }

    /// Deletes a machine or scale set; an operation on it is canceled.
    pub async fn delete_compute(&self, name: &str) -> Outcome<()> {
        self.delete(&path(&["computes", name])).await
    }

    /// Deletes a resource group with all that is in it, by its resource id.
    pub async fn delete_group(&self, id: &str) -> Outcome<()> {
        self.write(Method::DELETE, "/arm/groups", &json!({"id": id}))
            .await
    }

    /// Sets how long writes to a machine or scale set take from now on.
    pub async fn set_operations(&self, name: &str, operations: Operations) -> Outcome<()> {
        let path = path(&["computes", name, "operations"]);
        self.write(Method::PUT, &path, &operations).await
    }

    /// Ends the operation that runs on it: well, or with that failure.
    pub async fn release(&self, name: &str, failure: Option<&Failure>) -> Outcome<()> {
        let path = path(&["computes", name, "release"]);
        self.write(Method::POST, &path, &failure).await
    }

    /// Sets its provisioning state: somebody else is at work on it, or was.
    pub async fn set_state(&self, name: &str, state: ProvisioningState) -> Outcome<()> {
        let path = path(&["computes", name, "state"]);
        self.write(Method::PUT, &path, &state).await
    }

    /// Takes an identity off a machine or scale set behind everybody's back.
    pub async fn unassign(&self, name: &str, identity: &str) -> Outcome<()> {
        self.delete(&path(&["computes", name, "identities", identity]))
            .await
    }

    /// Makes an identity with new ids. Returns its name.
    pub async fn put_identity(&self, resource_id: &str, name: Option<&str>) -> Outcome<String> {
        let mut identity = json!({"resourceID": resource_id});
        if let Some(name) = name {
            identity["name"] = Value::from(name);
        }
        self.add("/arm/identities", &identity).await
    }

    /// Deletes an identity; it stays on machines, dead.
    pub async fn delete_identity(&self, name: &str) -> Outcome<()> {
        self.delete(&path(&["identities", name])).await
    }

    /// Deletes an identity and makes one of the same name and resource id, with new ids.
    pub async fn recreate_identity(&self, name: &str) -> Outcome<ShownIdentity> {
        self.ask(Method::POST, &path(&["identities", name, "recreate"]))
            .await
    }

    /// Makes an identity one that cannot be assigned, or (none) one like all others.
    pub async fn poison(&self, name: &str, poison: Option<Poison>) -> Outcome<()> {
        let path = path(&["identities", name, "poison"]);
        self.write(Method::PUT, &path, &poison).await
    }

    /// Grants a role; from the first one on, ARM refuses what is not granted.
    pub async fn grant(&self, assignment: &RoleAssignment) -> Outcome<()> {
        self.write(Method::PUT, "/arm/roles", assignment).await
    }

    /// Takes a role away that was granted in the same words.
    pub async fn revoke(&self, assignment: &RoleAssignment) -> Outcome<()> {
        self.write(Method::DELETE, "/arm/roles", assignment).await
    }
}
