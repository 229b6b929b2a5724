//! Tokens as Entra issues them to managed identities: RS256 JWTs, version 1.
//!
//! In: who, for which resource, from when to when. Out: a signed token, and the same one again while
//! IMDS would hand out its cached one. Signing takes about a millisecond; cached answers none.
//! Claims as in "Access token claims reference" of the Microsoft identity platform.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, Header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::keys::{SigningKey, random_id};

/// Cached tokens kept; a load of made-up resources must not fill the memory.
const CACHED: usize = 10_000;

/// An identity, user- or system-assigned, as tokens see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    /// Name in the world file; `<vm>/system` for a system-assigned one.
    pub name: String,
    pub client_id: String,
    pub object_id: String,
    /// `xms_mirid`; applications have none.
    pub resource_id: Option<String>,
}

/// The claims of a managed identity's token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claims {
    pub aud: String,
    pub iss: String,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub appid: String,
    pub appidacr: String,
    pub idp: String,
    pub idtyp: String,
    pub oid: String,
    pub sub: String,
    pub tid: String,
    pub uti: String,
    pub ver: String,
    /// Capabilities of the client (`cp1`: it understands claims challenges).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xms_cc: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xms_mirid: Option<String>,
}

/// How a token came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nature {
    /// How the client proved itself: `1` by a secret, `2` by a certificate, a federated token or the machine.
    pub appidacr: &'static str,
    /// `xms_cc`.
    pub capabilities: Vec<String>,
}

impl Nature {
    /// IMDS proves itself by a certificate, and its clients ask for no capabilities.
    pub const MANAGED: Self = Self {
        appidacr: "2",
        capabilities: Vec::new(),
    };
}

/// A signed token with its times in epoch seconds.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub jwt: Arc<str>,
    pub not_before: i64,
    pub expires_on: i64,
}

/// Entra's issuer name for tokens of version 1.
pub(super) fn issuer(tenant: &str) -> String {
    format!("https://sts.windows.net/{tenant}/")
}

/// Signs a token for `principal`, valid from `not_before` to `expires_on`.
pub(super) fn sign(
    key: &SigningKey,
    tenant: &str,
    principal: &Principal,
    resource: &str,
    (not_before, expires_on): (i64, i64),
    nature: &Nature,
) -> Result<Token, jsonwebtoken::errors::Error> {
    let claims = Claims {
        aud: resource.to_owned(),
        iss: issuer(tenant),
        iat: not_before,
        nbf: not_before,
        exp: expires_on,
        appid: principal.client_id.clone(),
        appidacr: nature.appidacr.to_owned(),
        idp: issuer(tenant),
        idtyp: "app".to_owned(),
        oid: principal.object_id.clone(),
        sub: principal.object_id.clone(),
        tid: tenant.to_owned(),
        uti: random_id(),
        ver: "1.0".to_owned(),
        xms_cc: nature.capabilities.clone(),
        xms_mirid: principal.resource_id.clone(),
    };
    let header = Header {
        kid: Some(key.kid.clone()),
        x5t: Some(key.kid.clone()),
        ..Header::new(Algorithm::RS256)
    };
    let jwt = jsonwebtoken::encode(&header, &claims, &key.private)?.into();
    Ok(Token {
        jwt,
        not_before,
        expires_on,
    })
}

/// IMDS's cache: one token for each (client id, resource).
#[derive(Debug, Default)]
pub(super) struct TokenCache(Mutex<HashMap<(String, String), Token>>);

impl TokenCache {
    /// The cached token with more than `renew_before` seconds left, or the one `make` makes.
    pub fn get_or<E>(
        &self,
        key: (String, String),
        (now, renew_before): (i64, i64),
        make: impl FnOnce() -> Result<Token, E>,
    ) -> Result<Token, E> {
        let mut tokens = self.0.lock();
        if let Some(token) = tokens.get(&key)
            && token.expires_on - now > renew_before
        {
            return Ok(token.clone());
        }
        let token = make()?;
        if tokens.len() >= CACHED {
            tokens.clear();
        }
        tokens.insert(key, token.clone());
        Ok(token)
    }

    /// Puts a token in place of the cached one.
    pub fn put(&self, key: (String, String), token: Token) {
        self.0.lock().insert(key, token);
    }

    /// Forgets all: after a key rollover the new key signs at once.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}
