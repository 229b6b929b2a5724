//! Whether a token is good, and whether its bearer may.
//!
//! In: a JWT, the published keys, the tenant, the instant. Out: its claims or why it is refused. The message
//! names the broken check, as Key Vault's `AKV100xx` errors do, and never the token. Pure.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};

use crate::sim::keys::SigningKey;
use crate::sim::token::{Claims, issuer};
use crate::sim::world::{Vault, World};

/// Audiences that mean Key Vault: its address, and its application id.
const AUDIENCES: [&str; 3] = [
    "https://vault.azure.net",
    "https://vault.azure.net/",
    "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
];

/// Clock difference that is forgiven, in seconds.
const SKEW: i64 = 5;

/// The claims of a token that passes every check.
pub(super) fn verify(
    jwt: &str,
    published: &[Arc<SigningKey>],
    tenant: &str,
    now: i64,
) -> Result<Claims, String> {
    let refuse = |what: &str| format!("AKV10022: Invalid token: {what}.");
    let header = decode_header(jwt).map_err(|_| refuse("it is not a JWT"))?;
    let kid = header.kid.unwrap_or_default();
    let key = published
        .iter()
        .find(|key| key.kid == kid)
        .ok_or_else(|| refuse("its signing key is not among the published ones"))?;
    let mut validation = Validation::new(Algorithm::RS256);
    // Audience, issuer and times are checked below, so that each has a message of its own.
    validation.validate_aud = false;
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let claims: Claims = decode(jwt, &key.public, &validation)
        .map_err(|_| refuse("its signature or its claims are wrong"))?
        .claims;
    if !AUDIENCES.contains(&claims.aud.as_str()) {
        return Err(refuse(&format!("its audience is {}", claims.aud)));
    }
    if claims.iss != issuer(tenant) || !claims.tid.eq_ignore_ascii_case(tenant) {
        return Err(refuse(&format!("its issuer is {}", claims.iss)));
    }
    if claims.exp + SKEW < now {
        return Err(refuse("it has expired"));
    }
    if claims.nbf - SKEW > now {
        return Err(refuse("it is not valid yet"));
    }
    Ok(claims)
}

/// Whether the vault lets this object id do that. Entries name an identity, are an object id, or `*`.
pub(super) fn allowed(world: &World, vault: &Vault, action: &str, oid: &str) -> bool {
    let entries = match (action, &vault.allow.list) {
        ("list", Some(list)) => list,
        _ => &vault.allow.get,
    };
    entries.iter().any(|entry| {
        let named = world.principal_id(entry).unwrap_or(entry);
        entry == "*" || named.eq_ignore_ascii_case(oid)
    })
}
