//! Whose request it is: the bearer token, checked as ARM checks it.
//!
//! In: the `Authorization` header, the published keys, the tenant, the instant. Out: its claims, or a 401 with ARM's code
//! and a challenge. Messages never hold the token. Pure.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};

use super::refusal::Refusal;
use crate::sim::keys::SigningKey;
use crate::sim::token::{Claims, issuer};

/// Audiences of the public cloud and the sovereign ones; each with and without a slash at the end.
const AUDIENCES: [&str; 6] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://management.usgovcloudapi.net",
    "https://management.core.usgovcloudapi.net",
    "https://management.chinacloudapi.cn",
    "https://management.core.chinacloudapi.cn",
];

/// Clock difference that is forgiven, in seconds.
const SKEW: i64 = 300;

/// The claims of a token that passes every check.
pub(super) fn verify(
    headers: &HeaderMap,
    published: &[Arc<SigningKey>],
    tenant: &str,
    now: i64,
) -> Result<Claims, Refusal> {
    let refuse =
        |code: &str, message: &str| Refusal::unauthenticated(code, message.to_owned(), tenant);
    let Some(header) = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
    else {
        let message = "Authentication failed. The 'Authorization' header is missing.";
        return Err(refuse("AuthenticationFailed", message));
    };
    let bearer = header.split_once(' ');
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, jwt)) = bearer else {
        let message = "The authentication scheme of the 'Authorization' header is not supported.";
        return Err(refuse("AuthenticationFailedInvalidHeader", message));
    };
    let invalid = || refuse("InvalidAuthenticationToken", "The access token is invalid.");
    let kid = decode_header(jwt.trim()).map_err(|_| invalid())?.kid;
    let key = published.iter().find(|key| Some(&key.kid) == kid.as_ref());
    let key = key.ok_or_else(invalid)?;
    let mut validation = Validation::new(Algorithm::RS256);
    // Audience, issuer and times are checked below, so that each has a message of its own.
    validation.validate_aud = false;
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let decoded = decode::<Claims>(jwt.trim(), &key.public, &validation);
    let claims = decoded.map_err(|_| invalid())?.claims;
    if !AUDIENCES.contains(&claims.aud.trim_end_matches('/')) {
        let message = format!(
            "The access token has been obtained for wrong audience or resource '{}'. It should \
             exactly match with one of the allowed audiences 'https://management.core.windows.net/',\
             'https://management.core.windows.net','https://management.azure.com/',\
             'https://management.azure.com'.",
            claims.aud
        );
        return Err(refuse("InvalidAuthenticationTokenAudience", &message));
    }
    if claims.iss != issuer(tenant) || !claims.tid.eq_ignore_ascii_case(tenant) {
        let message = format!(
            "The access token is from the wrong issuer '{}'. It must match one of the tenants '{}' \
             associated with this subscription.",
            claims.iss,
            issuer(tenant)
        );
        return Err(refuse("InvalidAuthenticationTokenTenant", &message));
    }
    if claims.exp + SKEW < now {
        return Err(expired(claims.exp, now, tenant));
    }
    if claims.nbf - SKEW > now {
        let message = "The access token is not valid yet.";
        return Err(refuse("InvalidAuthenticationToken", message));
    }
    Ok(claims)
}

/// What a token that ended gets.
pub(super) fn expired(end: i64, now: i64, tenant: &str) -> Refusal {
    let time = |seconds: i64| {
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        time.strftime("%-m/%-d/%Y %-I:%M:%S %p").to_string()
    };
    let message = format!(
        "The access token expiry UTC time '{}' is earlier than current UTC time '{}'.",
        time(end),
        time(now)
    );
    Refusal::unauthenticated("ExpiredAuthenticationToken", message, tenant)
}
