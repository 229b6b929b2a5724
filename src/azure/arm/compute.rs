//! A virtual machine or scale set as ARM shows it, and the PATCH that changes its identities. Pure.
//!
//! Source: Microsoft.Compute, api-version 2024-11-01 (`virtualMachines`, `virtualMachineScaleSets`, their
//! `identity`). Ids compare without case: ARM spells them as it likes. Holds that a change never takes
//! the system-assigned identity away, nor user-assigned ones that it does not name.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::model::ids::{ArmId, Guid};

/// The most identities that one PATCH may name.
pub const MOST_IDENTITIES: usize = 150;

/// A user-assigned identity in the directory. Both absent: ARM did not fill it in yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// Its client id (application id).
    pub client_id: Option<Guid>,
    /// Its principal id (object id of its service principal). Another one under the same ARM id: the
    /// identity was deleted and created again, and what is assigned is dead.
    pub principal_id: Option<Guid>,
}

/// `properties.provisioningState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisioningState {
    /// At rest.
    Succeeded,
    /// An operation runs.
    Updating,
    /// The last operation failed; the resource may be changed nevertheless.
    Failed,
    /// The last operation was canceled.
    Canceled,
    /// It is being deleted: not to be changed any more.
    Deleting,
    /// ARM said nothing, or a word that is not known here.
    Unknown,
}

/// A compute resource, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputeShown {
    /// For `If-Match`: which version was read.
    pub etag: Option<String>,
    /// Its region.
    pub location: Option<String>,
    /// Whether it has a system-assigned identity.
    pub system_assigned: bool,
    /// Its user-assigned identities.
    pub identities: BTreeMap<ArmId, Principal>,
    /// Entries of the same map that are no ids: something is left whatever is removed.
    pub unreadable: usize,
    /// What it is doing.
    pub state: ProvisioningState,
    /// The tenant of its system-assigned identity, where it has one.
    pub tenant: Option<Guid>,
}

/// One PATCH of identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityPatch {
    /// To be assigned. Together with `remove` at most [`MOST_IDENTITIES`].
    pub add: Vec<ArmId>,
    /// To be removed.
    pub remove: Vec<ArmId>,
    /// Whether the resource has a system-assigned identity: it stays.
    pub system_assigned: bool,
    /// Whether a user-assigned one is left afterwards, whoever assigned it: decides the `type`.
    pub left: bool,
    /// The version that this was planned from.
    pub etag: Option<String>,
}

impl IdentityPatch {
    /// The PATCH that adds and removes these on what was shown.
    #[must_use]
    pub fn of(shown: &ComputeShown, add: Vec<ArmId>, remove: Vec<ArmId>) -> Self {
        let stays = |id: &ArmId| !remove.contains(id);
        let left =
            shown.unreadable > 0 || add.iter().any(stays) || shown.identities.keys().any(stays);
        Self {
            add,
            remove,
            system_assigned: shown.system_assigned,
            left,
            etag: shown.etag.clone(),
        }
    }

    /// `identity.type` afterwards.
    #[must_use]
    pub const fn identity_type(&self) -> &'static str {
        match (self.system_assigned, self.left) {
            (true, true) => "SystemAssigned, UserAssigned",
            (false, true) => "UserAssigned",
            (true, false) => "SystemAssigned",
            (false, false) => "None",
        }
    }

    /// The request's body (JSON merge patch). Where none is left, the type alone says it: ARM takes no
    /// map beside `None` and `SystemAssigned`.
    pub(super) fn body(&self) -> Value {
        let mut identity = Map::new();
        identity.insert("type".to_owned(), json!(self.identity_type()));
        if self.left {
            let removed = self.remove.iter().map(|id| (id, Value::Null));
            let added = self.add.iter().map(|id| (id, json!({})));
            let map: Map<String, Value> = removed
                .chain(added)
                .map(|(id, value)| (id.as_written().to_owned(), value))
                .collect();
            identity.insert("userAssignedIdentities".to_owned(), Value::Object(map));
        }
        json!({ "identity": identity })
    }
}

/// Reads a virtual machine or scale set; `header` is the answer's own `ETag`. The error says in words
/// what is wrong.
pub(super) fn read(body: &Value, header: Option<&str>) -> Result<ComputeShown, String> {
    let fields = body.as_object().ok_or("no JSON object")?;
    // Every resource has an id; an error page in JSON has none.
    if !fields.get("id").is_some_and(Value::is_string) {
        return Err("no id".to_owned());
    }
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let etag = text("etag").or(header).filter(|etag| !etag.is_empty());
    let identity = fields.get("identity").and_then(Value::as_object);
    let of_identity = |name: &str| identity.and_then(|identity| identity.get(name));
    let kind = of_identity("type").and_then(Value::as_str);
    let mut shown = ComputeShown {
        etag: etag.map(str::to_owned),
        location: text("location").map(str::to_owned),
        system_assigned: kind
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("systemassigned")),
        identities: BTreeMap::new(),
        unreadable: 0,
        state: state(fields.get("properties")),
        tenant: of_identity("tenantId").and_then(guid),
    };
    let map = of_identity("userAssignedIdentities").and_then(Value::as_object);
    for (id, value) in map.into_iter().flatten() {
        let Ok(id) = id.parse::<ArmId>() else {
            shown.unreadable += 1;
            continue;
        };
        let principal = Principal {
            client_id: value.get("clientId").and_then(guid),
            principal_id: value.get("principalId").and_then(guid),
        };
        shown.identities.insert(id, principal);
    }
    Ok(shown)
}

fn state(properties: Option<&Value>) -> ProvisioningState {
    let word = properties.and_then(|properties| properties.get("provisioningState")?.as_str());
    match word.unwrap_or_default().to_ascii_lowercase().as_str() {
        "succeeded" => ProvisioningState::Succeeded,
        "updating" | "creating" | "migrating" | "running" | "accepted" => {
            ProvisioningState::Updating
        }
        "failed" => ProvisioningState::Failed,
        "canceled" | "cancelled" => ProvisioningState::Canceled,
        "deleting" => ProvisioningState::Deleting,
        _ => ProvisioningState::Unknown,
    }
}

pub(super) fn guid(value: &Value) -> Option<Guid> {
    value.as_str()?.parse().ok()
}
