//! Whether a token request is granted: `client_credentials` with one of an application's secrets.
//!
//! In: the form of a token request and the world. Out: who gets a token for which resource, or the refusal with
//! Entra's `AADSTS…` code. Form of requests and answers: RFC 6749 section 4.4, and "Client credentials flow" of
//! the Microsoft identity platform. Pure.

use serde_json::{Map, Value, json};

use crate::sim::imds::decode;
use crate::sim::token::{Principal, Token};
use crate::sim::world::World;

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub error: &'static str,
    pub code: u32,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, error: &'static str, code: u32, message: &str) -> Self {
        Self {
            status,
            error,
            code,
            message: format!("AADSTS{code}: {message}"),
        }
    }
}

/// A decoded form.
pub(super) fn form(body: &str) -> Vec<(String, String)> {
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decode(name, true), decode(value, true)))
        .collect()
}

/// The field of a form.
pub(super) fn field<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    form.iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value.as_str())
}

/// Who gets a token for which resource. `v2` asks by `scope`, version 1 by `resource`.
pub(super) fn decide(
    world: &World,
    form: &[(String, String)],
    v2: bool,
) -> Result<(Principal, String), Refusal> {
    let need = |name: &str| {
        field(form, name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                let message =
                    format!("The request body must contain the following parameter: '{name}'.");
                Refusal::new(400, "invalid_request", 900_144, &message)
            })
    };
    let grant = need("grant_type")?;
    if grant != "client_credentials" {
        let message = format!("The app requested an unsupported grant type '{grant}'.");
        return Err(Refusal::new(
            400,
            "unsupported_grant_type",
            70_003,
            &message,
        ));
    }
    let client = need("client_id")?;
    let known = |id: &&crate::sim::world::Application| id.client_id.eq_ignore_ascii_case(client);
    let Some(application) = world.applications.iter().find(known) else {
        let message =
            format!("Application with identifier '{client}' was not found in the directory.");
        return Err(Refusal::new(400, "unauthorized_client", 700_016, &message));
    };
    match field(form, "client_secret") {
        None => {
            let message = "The request body must contain the following parameter: \
                           'client_assertion' or 'client_secret'.";
            return Err(Refusal::new(401, "invalid_client", 7_000_218, message));
        }
        Some(secret) if !application.secrets.iter().any(|other| other == secret) => {
            let message = format!("Invalid client secret provided for app '{client}'.");
            return Err(Refusal::new(401, "invalid_client", 7_000_215, &message));
        }
        Some(_) => {}
    }
    let resource = if v2 {
        let scope = need("scope")?;
        scope.strip_suffix("/.default").ok_or_else(|| {
            let message = format!("The provided value for scope {scope} is not valid.");
            Refusal::new(400, "invalid_scope", 1_002_012, &message)
        })?
    } else {
        need("resource")?
    };
    let who = Principal {
        name: application.name.clone(),
        client_id: application.client_id.clone(),
        object_id: application.principal_id.clone(),
        resource_id: None,
    };
    Ok((who, resource.to_owned()))
}

/// The answer's fields: numbers in version 2, strings and more of them in version 1.
pub(super) fn body(token: &Token, resource: &str, v2: bool, now: i64) -> Map<String, Value> {
    let left = token.expires_on - now;
    let fields = if v2 {
        json!({
            "access_token": &*token.jwt,
            "expires_in": left,
            "ext_expires_in": left,
            "token_type": "Bearer",
        })
    } else {
        json!({
            "access_token": &*token.jwt,
            "expires_in": left.to_string(),
            "expires_on": token.expires_on.to_string(),
            "ext_expires_in": left.to_string(),
            "not_before": token.not_before.to_string(),
            "resource": resource,
            "token_type": "Bearer",
        })
    };
    fields.as_object().cloned().unwrap_or_default()
}
