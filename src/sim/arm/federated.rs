//! Federated credentials of identities: at most 20 each, written one at a time.
//!
//! In: a call whose caller is known. Out: what Entra's registry holds, changed there at once. A write takes the world's
//! time for it; another to the same identity meanwhile is refused, as Azure refuses it.

use std::time::Instant;

use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::call::{Call, Outcome};
use super::computes::spelled;
use super::estate::{Identity, fold};
use super::identities::exists;
use super::path::Place;
use super::refusal::Refusal;
use crate::sim::azure::Azure;
use crate::sim::http::json;
use crate::sim::world::FederatedCredential;

/// Federated credentials of one identity.
const MOST: usize = 20;

/// What a PUT says.
#[derive(serde::Deserialize)]
struct Wanted {
    properties: Properties,
}

#[derive(serde::Deserialize)]
struct Properties {
    issuer: String,
    subject: String,
    audiences: Vec<String>,
}

/// Marks an identity as being written until it is dropped.
struct Writing<'a> {
    azure: &'a Azure,
    key: String,
}

impl<'a> Writing<'a> {
    fn begin(azure: &'a Azure, identity: &Identity) -> Result<Self, Refusal> {
        let key = fold(&identity.id);
        let begun = azure.arm.estate.look(Instant::now(), |holdings| {
            let identity = holdings.identities.get_mut(&key);
            identity.is_none_or(|one| !std::mem::replace(&mut one.writing, true))
        });
        if begun {
            return Ok(Self { azure, key });
        }
        let message = format!(
            "Too many Federated Identity Credentials are written concurrently for the managed identity \
             '{key}'. Concurrent Federated Identity Credentials writes under the same managed identity are \
             not supported."
        );
        let code = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity";
        Err(Refusal::conflict(code, message))
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.azure.arm.estate.look(Instant::now(), |holdings| {
            if let Some(identity) = holdings.identities.get_mut(&self.key) {
                identity.writing = false;
            }
        });
    }
}

/// The list, or (with a name) one credential: GET, PUT, DELETE.
pub(super) async fn answer(
    azure: &Azure,
    call: &Call,
    place: &Place,
    name: Option<&str>,
) -> Outcome {
    let verb = match (&call.method, name) {
        (&Method::GET, _) => "read",
        (&Method::PUT, Some(_)) => "write",
        (&Method::DELETE, Some(_)) => "delete",
        _ => return Err(Refusal::method(call.method.as_str())),
    };
    call.authorize(azure, &place.action(verb), &place.scope())?;
    let look = |holdings: &mut super::Holdings| exists(holdings, place).cloned();
    let identity = azure.arm.estate.look(Instant::now(), look)?;
    match (verb, name) {
        ("write", Some(name)) => put(azure, call, (&identity, place), name).await,
        ("delete", Some(name)) => delete(azure, &identity, name).await,
        (_, Some(name)) => {
            let all = credentials(azure, &identity);
            let one = all.iter().find(|one| one.name.eq_ignore_ascii_case(name));
            let one = one.ok_or_else(|| absent(place, name))?;
            Ok(json(StatusCode::OK, &shown(azure, &identity, one)))
        }
        (_, None) => {
            let all = credentials(azure, &identity);
            let all: Vec<Value> = all.iter().map(|one| shown(azure, &identity, one)).collect();
            Ok(json(StatusCode::OK, &json!({"value": all})))
        }
    }
}

fn credentials(azure: &Azure, identity: &Identity) -> Vec<FederatedCredential> {
    let client = azure.entra.registry.named(&identity.name);
    client
        .map(|client| client.federated.clone())
        .unwrap_or_default()
}

async fn put(
    azure: &Azure,
    call: &Call,
    (identity, place): (&Identity, &Place),
    name: &str,
) -> Outcome {
    let Wanted { properties } = serde_json::from_slice(&call.body).map_err(|error| {
        let message =
            format!("The request content was invalid and could not be deserialized: '{error}'.");
        Refusal::bad("InvalidRequestContent", message)
    })?;
    if properties.audiences.is_empty() || !(3..=120).contains(&name.len()) {
        let message =
            "A federated identity credential has a name of 3 to 120 characters and an audience.";
        return Err(Refusal::bad("BadRequest", message.to_owned()));
    }
    let _writing = Writing::begin(azure, identity)?;
    tokio::time::sleep(azure.world.arm.federated_latency).await;
    let others = credentials(azure, identity);
    let known = others
        .iter()
        .find(|one| one.name.eq_ignore_ascii_case(name));
    let twin = others.iter().any(|one| {
        let other = !one.name.eq_ignore_ascii_case(name);
        other && one.issuer == properties.issuer && one.subject == properties.subject
    });
    if twin {
        let message = "Issuer and subject combination already exists for this Managed Identity.";
        return Err(Refusal::conflict("Conflict", message.to_owned()));
    }
    if known.is_none() && others.len() >= MOST {
        let message = format!(
            "Too many Federated Identity Credentials: a managed identity has at most {MOST} of them."
        );
        return Err(Refusal::bad("BadRequest", message));
    }
    let credential = FederatedCredential {
        name: known.map_or(name, |one| &one.name).to_owned(),
        issuer: properties.issuer,
        subject: properties.subject,
        audiences: properties.audiences,
    };
    let status = if known.is_some() {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let body = shown(azure, identity, &credential);
    let added = azure
        .entra
        .registry
        .add_federated(&identity.name, credential);
    // It was deleted while this was being written.
    added.map_err(|_| absent(place, name))?;
    Ok(json(status, &body))
}

async fn delete(azure: &Azure, identity: &Identity, name: &str) -> Outcome {
    let _writing = Writing::begin(azure, identity)?;
    tokio::time::sleep(azure.world.arm.federated_latency).await;
    let all = credentials(azure, identity);
    let known = all.iter().find(|one| one.name.eq_ignore_ascii_case(name));
    let registry = &azure.entra.registry;
    let removed =
        known.is_some_and(|one| registry.remove_federated(&identity.name, &one.name).is_ok());
    let mut response = Response::default();
    if !removed {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    Ok(response)
}

fn absent(place: &Place, name: &str) -> Refusal {
    let what = format!(
        "Microsoft.ManagedIdentity/userAssignedIdentities/{}/federatedIdentityCredentials/{name}",
        place.name
    );
    Refusal::no_resource(&what, &place.group)
}

fn shown(azure: &Azure, identity: &Identity, credential: &FederatedCredential) -> Value {
    let id = spelled(azure, &identity.id);
    json!({
        "id": format!("{id}/federatedIdentityCredentials/{}", credential.name),
        "name": credential.name,
        "properties": {
            "audiences": credential.audiences,
            "issuer": credential.issuer,
            "subject": credential.subject,
        },
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
    })
}
