//! What Entra publishes about itself: discovery documents and signing keys.
//!
//! In: the tenant, the address that the documents name, the published keys. Out: JSON. Pure.
//! Source: `OpenID` Connect Discovery 1.0 section 3; RFC 7517.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::sim::keys::SigningKey;
use crate::sim::token::issuer;

/// The published keys as a JWK set, with `x5t` as Entra has it.
pub(super) fn keys(published: &[Arc<SigningKey>]) -> Value {
    let keys = published.iter().map(|key| {
        let mut jwk = json!(key.jwk);
        jwk["x5t"] = json!(key.kid);
        jwk
    });
    json!({"keys": keys.collect::<Vec<Value>>()})
}

/// The discovery document of version 1 or 2.
pub(super) fn discovery(authority_host: &str, tenant: &str, v2: bool) -> Value {
    let base = format!("{}/{tenant}", authority_host.trim_end_matches('/'));
    let v = if v2 { "/v2.0" } else { "" };
    let issuer = if v2 {
        format!("{base}/v2.0")
    } else {
        issuer(tenant)
    };
    json!({
        "authorization_endpoint": format!("{base}/oauth2{v}/authorize"),
        "cloud_instance_name": "microsoftonline.com",
        "id_token_signing_alg_values_supported": ["RS256"],
        "issuer": issuer,
        "jwks_uri": format!("{base}/discovery{v}/keys"),
        "response_types_supported": ["code", "id_token"],
        "subject_types_supported": ["pairwise"],
        "token_endpoint": format!("{base}/oauth2{v}/token"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic"],
    })
}
