//! What may be shown of a token's answer: whose it is and how long it lasts, never the token.
//!
//! In: the body of IMDS's token answer. Out: [`Shown`]. Pure.
//! Invariant 4 (the token is the pod's only): no field of [`Shown`] comes from the signed part's bytes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The identity's client id, as the answer says.
    pub client_id: String,
    /// The identity's ARM resource id, as the token says (`xms_mirid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The tenant, as the token says (`tid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The audience, as the answer says.
    pub resource: String,
    /// When it ends, RFC 3339, UTC.
    pub expires: String,
}

#[derive(Deserialize)]
struct Body {
    access_token: String,
    client_id: String,
    resource: String,
    expires_on: String,
}

#[derive(Default, Deserialize)]
struct Claims {
    xms_mirid: Option<String>,
    tid: Option<String>,
}

impl Shown {
    /// Reads a body; `None` when it is no token's answer.
    #[must_use]
    pub fn read(body: &str) -> Option<Self> {
        let body: Body = serde_json::from_str(body).ok()?;
        let ends = jiff::Timestamp::from_second(body.expires_on.parse().ok()?).ok()?;
        let claims = claims(&body.access_token).unwrap_or_default();
        Some(Self {
            client_id: body.client_id,
            identity: claims.xms_mirid,
            tenant: claims.tid,
            resource: body.resource,
            expires: ends.to_string(),
        })
    }
}

/// The claims, unverified: they are shown to a person, nothing is decided by them.
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_whose_it_is_and_nothing_of_the_token() {
        let payload =
            URL_SAFE_NO_PAD.encode(r#"{"xms_mirid":"/subscriptions/s","tid":"t","oid":"o"}"#);
        let token = format!("HEAD.{payload}.SIGNATURE");
        let body = format!(
            r#"{{"access_token":"{token}","client_id":"c","resource":"https://r","expires_on":"1795304591"}}"#
        );
        let shown = Shown::read(&body).unwrap();
        assert_eq!(shown.identity.as_deref(), Some("/subscriptions/s"));
        assert_eq!(shown.expires, "2026-11-21T23:43:11Z");
        let text = serde_json::to_string(&shown).unwrap();
        for secret in ["HEAD", "SIGNATURE", &payload] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(Shown::read("{}"), None);
    }
}
