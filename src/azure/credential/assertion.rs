//! Client assertions: a JWT by which a certificate's key says that it is the client (RFC 7523).
//!
//! In: who, to whom, `now`. Out: the signed JWT. Pure but for the random `jti` and salt; with RSA-2048 it
//! takes less than half a millisecond. Source: "Application authentication certificate credentials" of
//! the Microsoft identity platform.
//!
//! `jsonwebtoken::encode` reads and checks the key anew for every signature, which takes four times as
//! long as the signature: so its header is used, and the key, kept ready, signs directly.

use std::time::Duration;

use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header};
use secrecy::SecretString;
use serde::Serialize;

use crate::model::ids::Guid;

use super::{Certificate, CredentialError};

/// It counts from before now on: the node's clock may be fast.
const BACK: Duration = Duration::from_mins(5);
/// And no longer than this, counted from now: the node's clock may be slow.
const AHEAD: Duration = Duration::from_mins(10);

/// How an assertion is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AssertionAlgorithm {
    /// RSASSA-PSS with SHA-256: what Entra's documents ask for.
    #[default]
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256: for authorities that refuse the other (AADSTS5002738).
    Rs256,
}

/// What an assertion is to say.
#[derive(Clone, Copy, Debug)]
pub struct AssertionRequest<'a> {
    /// The client: `iss` and `sub`.
    pub client_id: Guid,
    /// The token endpoint: `aud`.
    pub audience: &'a str,
    /// Since the Unix epoch.
    pub now: Duration,
    /// How to sign.
    pub algorithm: AssertionAlgorithm,
    /// Whether the certificate chain goes along (`x5c`), for registrations by subject name and issuer.
    pub send_chain: bool,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: String,
    sub: String,
    jti: String,
    iat: u64,
    nbf: u64,
    exp: u64,
}

impl Certificate {
    /// Signs an assertion, valid from five minutes ago to ten minutes ahead.
    pub fn assertion(
        &self,
        request: &AssertionRequest<'_>,
    ) -> Result<SecretString, CredentialError> {
        let (name, padding): (_, &'static dyn RsaEncoding) = match request.algorithm {
            AssertionAlgorithm::Ps256 => (Algorithm::PS256, &RSA_PSS_SHA256),
            AssertionAlgorithm::Rs256 => (Algorithm::RS256, &RSA_PKCS1_SHA256),
        };
        let mut header = Header::new(name);
        header.x5t_s256 = Some(self.x5t_s256());
        if request.send_chain {
            let chain = self.chain.iter().map(|der| STANDARD.encode(der));
            header.x5c = Some(chain.collect());
        }
        let client = request.client_id.to_string();
        let since = request.now.saturating_sub(BACK).as_secs();
        let claims = Claims {
            aud: request.audience,
            iss: client.clone(),
            sub: client,
            jti: random_guid()?,
            iat: since,
            nbf: since,
            exp: (request.now + AHEAD).as_secs(),
        };
        let mut text = format!("{}.{}", part(&header)?, part(&claims)?);
        let pair = &self.key.pair;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(
            padding,
            &SystemRandom::new(),
            text.as_bytes(),
            &mut signature,
        )
        .map_err(|_| CredentialError::Signing("the key does not sign".to_owned()))?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Ok(text.into())
    }
}

/// JSON in base64url, as a JWT's parts are.
fn part(value: &impl Serialize) -> Result<String, CredentialError> {
    let json = serde_json::to_vec(value);
    let json = json.map_err(|error| CredentialError::Signing(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// A random GUID (RFC 9562, version 4): no assertion is taken twice.
fn random_guid() -> Result<String, CredentialError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)
        .map_err(|_| CredentialError::Signing("the system gives no random numbers".to_owned()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut guid = format!("{:032x}", u128::from_be_bytes(bytes));
    for at in [20, 16, 12, 8] {
        guid.insert(at, '-');
    }
    Ok(guid)
}

#[cfg(test)]
mod tests;
