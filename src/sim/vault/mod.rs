//! Key Vaults that check who comes: signature, audience, issuer, life, and the access list.
//!
//! In: requests over TLS, told apart by `Host`; those for Entra's and ARM's host names are passed on. Out: the real
//! service's challenge (401), refusals (403, 404) and secrets. Verification is by the published keys, as a
//! real resource does it. Waits only for a fault's latency.

mod access;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::arm::{self, Arm};
use super::azure::Azure;
use super::broken::{self, perform};
use super::entra::{self, Entra};
use super::faults::{Facts, Target};
use super::http::{Reply, Service, Sni, json};
use super::imds::decode;
use super::journal::{Findings, Listener};
use super::keys::random_guid;
use super::token::Claims;
use super::world::Vault;

/// The one version each secret has.
const VERSION: &str = "5ec7e7000000400080000000000000a1";

/// All vaults of the world, and Entra beside them, behind one TLS listener.
pub(super) struct Vaults {
    pub azure: Arc<Azure>,
    pub entra: Entra,
    pub arm: Arm,
}

/// Every name the TLS certificate must vouch for.
pub(super) fn hosts(azure: &Azure) -> Vec<String> {
    let vaults = azure.world.vaults.iter();
    let own = vaults.flat_map(|vault| [host(vault)].into_iter().chain(vault.hosts.iter().cloned()));
    let fixed = ["localhost", "127.0.0.1"]
        .into_iter()
        .chain(entra::hosts(&azure.world))
        .chain(arm::hosts(&azure.world))
        .map(str::to_owned);
    let names: BTreeSet<String> = own.chain(fixed).collect();
    names.into_iter().collect()
}

fn host(vault: &Vault) -> String {
    format!("{}.vault.azure.net", vault.name)
}

impl Service for Vaults {
    async fn answer(&self, request: Request<Incoming>, source: SocketAddr) -> Reply {
        let asked = asked_host(&request);
        // A token endpoint behind an address has its name in the handshake only.
        let handshake = request.extensions().get::<Sni>();
        let handshake = handshake.map(|Sni(name)| name.to_string());
        let mut entra = entra::hosts(&self.azure.world);
        let named =
            |host: &str| asked.eq_ignore_ascii_case(host) || handshake.as_deref() == Some(host);
        if entra.any(named) {
            return self.entra.answer(request, source).await;
        }
        if arm::hosts(&self.azure.world).any(named) {
            return self.arm.answer(request, source).await;
        }
        let azure = &*self.azure;
        let seq = azure.arrive(Listener::Vault, source, None, &request);
        let claims = self.claims(&request);
        let name = claims
            .as_ref()
            .ok()
            .map(|claims| azure.name_of(&claims.oid));
        let path = request.uri().path();
        let facts = Facts {
            client_id: claims.as_ref().ok().map(|claims| claims.appid.as_str()),
            path,
            method: request.method().as_str(),
            ..Facts::default()
        };
        let strike = azure.strike(Target::Vault, &facts);
        let mut findings = Findings {
            identity: name,
            fault: strike.name(),
            ..Findings::default()
        };
        azure.journal.answer(seq, findings.clone());
        let right = match self.vault(&asked) {
            Some(vault) => self.respond(vault, &request, claims),
            None => error(
                StatusCode::NOT_FOUND,
                "VaultNotFound",
                &format!("No vault is {asked}"),
            ),
        };
        let (reply, status) = perform(|| signed(right), strike, broken::RESOURCE).await;
        findings.status = status;
        azure.journal.answer(seq, findings);
        reply
    }
}

fn asked_host<B>(request: &Request<B>) -> String {
    let header = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let authority = request.uri().host().or(header).unwrap_or_default();
    let name = authority
        .rsplit_once(':')
        .map_or(authority, |(name, _)| name);
    name.to_ascii_lowercase()
}

impl Vaults {
    /// The vault of that host name; a lone vault also answers on the loopback names.
    fn vault(&self, asked: &str) -> Option<&Vault> {
        let vaults = &self.azure.world.vaults;
        let named = vaults.iter().find(|vault| {
            host(vault).eq_ignore_ascii_case(asked)
                || vault
                    .hosts
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(asked))
        });
        let lone = || {
            (vaults.len() == 1 && matches!(asked, "localhost" | "127.0.0.1")).then(|| &vaults[0])
        };
        named.or_else(lone)
    }

    fn claims<B>(&self, request: &Request<B>) -> Result<Claims, String> {
        let header = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let bearer = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(bearer) = bearer else {
            return Err("AKV10000: Request is missing a Bearer or PoP token.".to_owned());
        };
        let keys = self.azure.keys.published();
        access::verify(bearer, &keys, &self.azure.world.tenant.id, self.azure.now())
    }

    fn respond<B>(
        &self,
        vault: &Vault,
        request: &Request<B>,
        claims: Result<Claims, String>,
    ) -> Response<Bytes> {
        let claims = match claims {
            Ok(claims) => claims,
            Err(why) => return self.challenge(&why),
        };
        let query = request.uri().query().unwrap_or_default();
        // Decoded: the SDK for JavaScript writes `api%2Dversion`.
        let versioned = |pair: &str| decode(pair, true).starts_with("api-version=");
        if !query.split('&').any(versioned) {
            let message = "api-version must be specified";
            return error(StatusCode::BAD_REQUEST, "BadParameter", message);
        }
        let path = decode(request.uri().path(), false);
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (action, secret) = match segments.as_slice() {
            ["secrets"] => ("list", None),
            ["secrets", name] | ["secrets", name, VERSION] => ("get", Some(*name)),
            ["secrets", name, other] => return missing(&format!("{name}/{other}")),
            _ => {
                return error(
                    StatusCode::NOT_FOUND,
                    "NotFound",
                    "Only secrets are simulated",
                );
            }
        };
        if request.method() != Method::GET {
            let message = "Only GET is simulated";
            return error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        }
        if !access::allowed(&self.azure.world, vault, action, &claims.oid) {
            return forbidden(vault, action, &claims);
        }
        let Some(name) = secret else {
            let all = vault
                .secrets
                .keys()
                .map(|name| item(vault, name))
                .collect::<Vec<_>>();
            return json(StatusCode::OK, &json!({"nextLink": null, "value": all}));
        };
        // Names are compared without letter case, as Key Vault compares them.
        match vault
            .secrets
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
        {
            Some((name, value)) => {
                let mut body = item(vault, name);
                body["id"] = json!(format!("https://{}/secrets/{name}/{VERSION}", host(vault)));
                body["value"] = json!(value);
                json(StatusCode::OK, &body)
            }
            None => missing(name),
        }
    }

    fn challenge(&self, why: &str) -> Response<Bytes> {
        let tenant = &self.azure.world.tenant.id;
        let challenge = format!(
            "Bearer authorization=\"https://login.microsoftonline.com/{tenant}\", \
             resource=\"https://vault.azure.net\""
        );
        let mut response = error(StatusCode::UNAUTHORIZED, "Unauthorized", why);
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response
    }
}

fn item(vault: &Vault, name: &str) -> Value {
    json!({
        "attributes": {
            "created": 1_700_000_000,
            "enabled": true,
            "recoverableDays": 90,
            "recoveryLevel": "Recoverable+Purgeable",
            "updated": 1_700_000_000,
        },
        "id": format!("https://{}/secrets/{name}", host(vault)),
        "tags": {},
    })
}

fn missing(name: &str) -> Response<Bytes> {
    let message = format!(
        "A secret with (name/id) {name} was not found in this key vault. If you recently deleted \
         this secret you may be able to recover it using the correct recovery command."
    );
    error(StatusCode::NOT_FOUND, "SecretNotFound", &message)
}

fn forbidden(vault: &Vault, action: &str, claims: &Claims) -> Response<Bytes> {
    let message = format!(
        "The user, group or application 'appid={};oid={};iss={}' does not have secrets {action} \
         permission on key vault '{}'.",
        claims.appid, claims.oid, claims.iss, vault.name
    );
    let body = json!({"error": {
        "code": "Forbidden",
        "innererror": {"code": "AccessDenied"},
        "message": message,
    }});
    json(StatusCode::FORBIDDEN, &body)
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    json(
        status,
        &json!({"error": {"code": code, "message": message}}),
    )
}

fn signed(mut response: Response<Bytes>) -> Response<Bytes> {
    let headers = response.headers_mut();
    let fixed = [
        ("x-ms-keyvault-service-version", "1.9.2"),
        ("x-ms-keyvault-region", "westeurope"),
    ];
    for (name, value) in fixed {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    if let Ok(id) = HeaderValue::from_str(&random_guid()) {
        headers.insert(HeaderName::from_static("x-ms-request-id"), id);
    }
    response
}
