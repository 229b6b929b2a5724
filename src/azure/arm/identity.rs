//! User-assigned identities and their federated credentials as ARM shows and takes them. Pure.
//!
//! Source: Microsoft.ManagedIdentity, api-version 2023-01-31 (`userAssignedIdentities`,
//! `federatedIdentityCredentials`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compute::guid;
use crate::model::ids::{ArmId, Guid};

/// The most federated credentials that one identity may have.
pub const MOST_CREDENTIALS: usize = 20;

/// A user-assigned identity, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityShown {
    /// Its id, as ARM spells it.
    pub id: ArmId,
    /// Its client id (application id).
    pub client_id: Option<Guid>,
    /// Its principal id (object id of its service principal).
    pub principal_id: Option<Guid>,
    /// The tenant of its service principal.
    pub tenant_id: Option<Guid>,
    /// Its region.
    pub location: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// What a user-assigned identity is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityWanted {
    /// Its region. Cannot be changed later.
    pub location: String,
    /// All of its tags: what is there and not here goes.
    pub tags: BTreeMap<String, String>,
}

/// A federated credential: whose tokens the identity takes for its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedCredential {
    /// Its name (3 to 120 characters: letters, digits, `-`, `_`).
    pub name: String,
    /// The issuer of the tokens, an `https` URL.
    pub issuer: String,
    /// Their subject, as `system:serviceaccount:NAMESPACE:NAME`. With the issuer unique in an identity.
    pub subject: String,
    /// Their audience; Azure takes exactly one.
    pub audiences: Vec<String>,
}

impl IdentityWanted {
    pub(super) fn body(&self) -> Value {
        json!({ "location": self.location, "tags": self.tags })
    }
}

impl FederatedCredential {
    pub(super) fn body(&self) -> Value {
        let Self {
            issuer,
            subject,
            audiences,
            ..
        } = self;
        json!({ "properties": { "issuer": issuer, "subject": subject, "audiences": audiences } })
    }
}

/// Reads a user-assigned identity. The error says in words what is wrong.
pub(super) fn read(body: &Value) -> Result<IdentityShown, String> {
    let id = body.get("id").and_then(Value::as_str).ok_or("no id")?;
    let property = |name: &str| body.get("properties")?.get(name);
    let tags = body.get("tags").and_then(Value::as_object);
    let tags = tags.into_iter().flatten();
    Ok(IdentityShown {
        id: id.parse().map_err(|_| "an id that is none")?,
        client_id: property("clientId").and_then(guid),
        principal_id: property("principalId").and_then(guid),
        tenant_id: property("tenantId").and_then(guid),
        location: body
            .get("location")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        tags: tags
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
    })
}

/// Reads one page of federated credentials, and where the next one is.
pub(super) fn read_credentials(
    body: &Value,
) -> Result<(Vec<FederatedCredential>, Option<String>), String> {
    let items = body.get("value").and_then(Value::as_array);
    let read = items.ok_or("no list")?.iter().map(read_credential);
    let next = body.get("nextLink").and_then(Value::as_str);
    let next = next.filter(|next| !next.is_empty()).map(str::to_owned);
    Ok((read.collect::<Result<_, _>>()?, next))
}

fn read_credential(item: &Value) -> Result<FederatedCredential, String> {
    let properties = item.get("properties").ok_or("an item without properties")?;
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let audiences = properties.get("audiences").and_then(Value::as_array);
    let audiences = audiences.into_iter().flatten();
    Ok(FederatedCredential {
        name: text(item, "name").ok_or("an item without a name")?,
        issuer: text(properties, "issuer").unwrap_or_default(),
        subject: text(properties, "subject").unwrap_or_default(),
        audiences: audiences
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect(),
    })
}
