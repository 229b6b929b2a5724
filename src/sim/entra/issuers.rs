//! The published keys of issuers of federated tokens, fetched as Entra fetches them.
//!
//! In: an issuer and a key id. Out: the key. The discovery document and the keys are fetched by HTTP or HTTPS and kept
//! for some minutes; a key id that is not among them is looked for once more. Waits for the issuer, at most
//! [`PATIENCE`](super::fetch::PATIENCE) for each document. Source: `OpenID` Connect Discovery 1.0 section 4; RFC 7517.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::JwkSet;
use parking_lot::Mutex;
use serde::Deserialize;

use super::fetch::{self, FetchError};
use super::registry::authorities;
use crate::sim::world::Issuer;

/// How long keys are taken for current.
const KEPT: Duration = Duration::from_mins(5);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    /// Nothing came from there.
    #[error("{url}: {source}.")]
    Unreachable {
        url: String,
        #[source]
        source: FetchError,
    },
    /// What came is no discovery document, or not this issuer's, or no set of keys.
    #[error("{url}: {problem}.")]
    Malformed { url: String, problem: String },
    /// Its keys are known, and this is none of them.
    #[error("no such key")]
    NoKey,
}

/// Keys by issuer, and how issuers are reached.
pub(super) struct Issuers {
    known: Mutex<HashMap<String, (Arc<JwkSet>, Instant)>>,
    listed: Mutex<Vec<Issuer>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    pub fn new(listed: Vec<Issuer>) -> Self {
        Self {
            known: Mutex::default(),
            listed: Mutex::new(listed),
        }
    }

    /// Reaches that issuer so from now on, and forgets what was fetched.
    pub fn trust(&self, issuer: Issuer) {
        let mut listed = self.listed.lock();
        listed.retain(|other| other.issuer != issuer.issuer);
        listed.push(issuer);
        self.known.lock().clear();
    }

    /// The issuer's key with that id.
    pub async fn key(&self, issuer: &str, kid: &str) -> Result<DecodingKey, KeysError> {
        if let Some(key) = self.current(issuer).and_then(|keys| find(&keys, kid)) {
            return Ok(key);
        }
        let listed = self.listed(issuer);
        let keys = Arc::new(fetch_keys(issuer, listed.as_ref()).await?);
        let entry = (keys.clone(), Instant::now());
        self.known.lock().insert(issuer.to_owned(), entry);
        find(&keys, kid).ok_or(KeysError::NoKey)
    }

    fn listed(&self, issuer: &str) -> Option<Issuer> {
        let listed = self.listed.lock();
        listed.iter().find(|one| one.issuer == issuer).cloned()
    }

    fn current(&self, issuer: &str) -> Option<Arc<JwkSet>> {
        let known = self.known.lock();
        let (keys, since) = known.get(issuer)?;
        (since.elapsed() < KEPT).then(|| keys.clone())
    }
}

fn find(keys: &JwkSet, kid: &str) -> Option<DecodingKey> {
    DecodingKey::from_jwk(keys.find(kid)?).ok()
}

async fn fetch_keys(issuer: &str, listed: Option<&Issuer>) -> Result<JwkSet, KeysError> {
    let roots = listed
        .and_then(|one| one.ca_pem.as_deref())
        .and_then(|pem| authorities(pem).ok());
    let get = async |url: &str| {
        let got = fetch::get(url, roots.clone()).await;
        got.map_err(|source| KeysError::Unreachable {
            url: url.to_owned(),
            source,
        })
    };
    let malformed = |url: &str, problem: String| KeysError::Malformed {
        url: url.to_owned(),
        problem,
    };
    let keys = if let Some(url) = listed.and_then(|one| one.keys.clone()) {
        url
    } else {
        let base = listed.and_then(|one| one.discovery.as_deref());
        let base = base.unwrap_or(issuer).trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let document: Discovery = serde_json::from_slice(&get(&url).await?)
            .map_err(|error| malformed(&url, error.to_string()))?;
        if document.issuer != issuer {
            let problem = format!("it is the document of {}", document.issuer);
            return Err(malformed(&url, problem));
        }
        document.jwks_uri
    };
    serde_json::from_slice(&get(&keys).await?).map_err(|error| malformed(&keys, error.to_string()))
}
