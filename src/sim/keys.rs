//! Entra's signing keys: made at the start, rolled over by command.
//!
//! In: nothing, or a PEM file's text. Out: the key that signs now, and all that are published as JWKS
//! (RFC 7517). After a roll the old keys stay published until they are dropped. Making a key takes
//! tens of milliseconds of processor time: callers do it off the event loop.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

/// Why a key cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system could not make an RSA key.
    #[error("could not make an RSA-2048 key")]
    Generate,
    /// The PEM given is not an RSA private key.
    #[error("not a signing key; give an RSA private key as PEM (`openssl genrsa 2048`)")]
    Parse(#[from] jsonwebtoken::errors::Error),
}

/// One RSA key pair.
pub(super) struct SigningKey {
    /// Key id: the JWK thumbprint, as Entra's are derived from the certificate.
    pub kid: String,
    pub private: EncodingKey,
    pub public: DecodingKey,
    pub jwk: Jwk,
}

impl SigningKey {
    /// Makes a new RSA-2048 key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
        let text = STANDARD.encode(der.as_ref());
        Self::from_pem(&format!(
            "-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"
        ))
    }

    /// Reads an RSA private key, PKCS#1 or PKCS#8.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let private = EncodingKey::from_rsa_pem(pem.as_bytes())?;
        let mut jwk = Jwk::from_encoding_key(&private, Algorithm::RS256)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let public = DecodingKey::from_jwk(&jwk)?;
        Ok(Self {
            kid,
            private,
            public,
            jwk,
        })
    }
}

/// The published keys; the first signs.
pub(super) struct KeyRing(ArcSwap<Vec<Arc<SigningKey>>>);

impl KeyRing {
    pub fn new(key: SigningKey) -> Self {
        Self(ArcSwap::from_pointee(vec![Arc::new(key)]))
    }

    /// All published keys, the signing one first; never empty.
    pub fn published(&self) -> Arc<Vec<Arc<SigningKey>>> {
        self.0.load_full()
    }

    /// Lets a new key sign; the others stay published. Returns its `kid`.
    pub fn roll(&self, key: SigningKey) -> String {
        let kid = key.kid.clone();
        let key = Arc::new(key);
        self.0.rcu(|old| {
            let mut keys = vec![key.clone()];
            keys.extend(old.iter().cloned());
            keys
        });
        kid
    }

    /// Publishes only the signing key from now on.
    pub fn drop_old(&self) {
        self.0
            .rcu(|old| old.iter().take(1).cloned().collect::<Vec<_>>());
    }
}

/// Random bytes as URL-safe base64, for ids (`uti`).
pub(super) fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(fastrand::u128(..).to_be_bytes())
}

/// A random GUID, as `x-ms-request-id` has it.
pub(super) fn random_guid() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
