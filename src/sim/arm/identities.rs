//! User-assigned identities: made, shown, listed, deleted.
//!
//! In: a call whose caller is known. Out: the identity with the ids of its service principal. Making one makes a principal
//! in the tenant; deleting one kills it, and leaves it on the machines that carry it, dead. Never waits.

use std::collections::BTreeMap;
use std::time::Instant;

use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::call::{Call, Outcome};
use super::computes::{group_exists, spelled};
use super::estate::{Holdings, Identity, fold, group_of};
use super::path::Place;
use super::refusal::Refusal;
use crate::sim::azure::Azure;
use crate::sim::http::json;

/// What a PUT may say.
#[derive(serde::Deserialize)]
struct Wanted {
    location: Option<String>,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
}

/// One identity: GET, PUT, DELETE.
pub(super) fn answer(azure: &Azure, call: &Call, place: &Place) -> Outcome {
    let verb = match call.method {
        Method::GET => "read",
        Method::PUT => "write",
        Method::DELETE => "delete",
        _ => return Err(Refusal::method(call.method.as_str())),
    };
    call.authorize(azure, &place.action(verb), &place.scope())?;
    let now = Instant::now();
    match call.method {
        Method::GET => azure.arm.estate.look(now, |holdings| {
            let identity = exists(holdings, place)?;
            Ok(json(StatusCode::OK, &shown(azure, identity)))
        }),
        Method::PUT => put(azure, call, place, now),
        _ => delete(azure, place, now),
    }
}

/// The identity that a place names, or which part of its id leads nowhere.
pub(super) fn exists<'a>(holdings: &'a Holdings, place: &Place) -> Result<&'a Identity, Refusal> {
    if let Some(identity) = holdings.identities.get(&fold(&place.id)) {
        return Ok(identity);
    }
    group_exists(holdings, place)?;
    let what = format!(
        "Microsoft.ManagedIdentity/userAssignedIdentities/{}",
        place.name
    );
    Err(Refusal::no_resource(&what, &place.group))
}

/// All identities of a resource group or subscription.
pub(super) fn list(azure: &Azure, call: &Call, place: &Place) -> Outcome {
    if call.method != Method::GET {
        return Err(Refusal::method(call.method.as_str()));
    }
    call.authorize(azure, &place.action("read"), &place.scope())?;
    azure.arm.estate.look(Instant::now(), |holdings| {
        group_exists(holdings, place)?;
        let scope = format!("{}/", fold(&place.id));
        let all = holdings.identities.iter();
        let inside = all.filter(|(key, _)| key.starts_with(&scope));
        let value: Vec<Value> = inside.map(|(_, identity)| shown(azure, identity)).collect();
        Ok(json(StatusCode::OK, &json!({"value": value})))
    })
}

fn put(azure: &Azure, call: &Call, place: &Place, now: Instant) -> Outcome {
    let wanted: Wanted = serde_json::from_slice(&call.body).map_err(|error| {
        let message =
            format!("The request content was invalid and could not be deserialized: '{error}'.");
        Refusal::bad("InvalidRequestContent", message)
    })?;
    let location = wanted.location.ok_or_else(|| {
        let message = "The location property is required for this definition.";
        Refusal::bad("LocationRequired", message.to_owned())
    })?;
    check_name(&place.name)?;
    let tags = wanted.tags.unwrap_or_default();
    let known_from = now + azure.world.arm.principal_delay;
    let (identity, new) = azure.arm.estate.look(now, |holdings| {
        group_exists(holdings, place)?;
        if let Some(identity) = holdings.identities.get_mut(&fold(&place.id)) {
            if !identity.location.eq_ignore_ascii_case(&location) {
                let message = format!(
                    "The resource '{}' already exists in location '{}' in resource group '{}'. A resource \
                     with the same name cannot be created in location '{location}'. Please select a new \
                     resource name.",
                    place.name, identity.location, place.group
                );
                return Err(Refusal::conflict("InvalidResourceLocation", message));
            }
            identity.tags = tags;
            return Ok((identity.clone(), false));
        }
        Ok((holdings.create(&place.id, None, (location, tags), known_from), true))
    })?;
    if new {
        let registry = &azure.entra.registry;
        registry.add_managed(identity.principal(), known_from);
    }
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(json(status, &shown(azure, &identity)))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let first = name
        .as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric);
    if (3..=128).contains(&name.len()) && first && name.bytes().all(letters) {
        return Ok(());
    }
    let message = format!(
        "The resource name '{name}' is invalid: 3 to 128 letters, digits, hyphens and underscores, \
         beginning with a letter or digit."
    );
    Err(Refusal::bad("InvalidResourceName", message))
}

fn delete(azure: &Azure, place: &Place, now: Instant) -> Outcome {
    let gone = azure.arm.estate.look(now, |holdings| {
        group_exists(holdings, place)?;
        Ok(holdings.identities.remove(&fold(&place.id)))
    })?;
    let mut response = Response::default();
    match gone {
        Some(identity) => azure.entra.registry.remove(&identity.name),
        None => *response.status_mut() = StatusCode::NO_CONTENT,
    }
    Ok(response)
}

impl Holdings {
    /// Makes an identity with a new principal. Its name is the one given, else the last part of its id where that is
    /// nobody's, else the id.
    pub fn create(
        &mut self,
        id: &str,
        name: Option<&str>,
        (location, tags): (String, BTreeMap<String, String>),
        known_from: Instant,
    ) -> Identity {
        let last = id.rsplit('/').next().unwrap_or_default();
        let wanted = name.unwrap_or(last);
        let taken = self.identities.values().any(|one| one.name == wanted);
        let identity = Identity {
            id: id.to_owned(),
            name: if taken { id } else { wanted }.to_owned(),
            location,
            tags,
            client_id: crate::sim::keys::random_guid(),
            principal_id: crate::sim::keys::random_guid(),
            known_from,
            poison: None,
            writing: false,
        };
        self.groups.extend(group_of(id));
        self.identities.insert(fold(id), identity.clone());
        identity
    }
}

fn shown(azure: &Azure, identity: &Identity) -> Value {
    json!({
        "id": spelled(azure, &identity.id),
        "location": identity.location,
        "name": identity.id.rsplit('/').next(),
        "properties": {
            "clientId": identity.client_id,
            "isolationScope": "None",
            "principalId": identity.principal_id,
            "tenantId": azure.world.tenant.id,
        },
        "tags": identity.tags,
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
    })
}
