//! Client assertions: a JWT by which a certificate's key says that it is the client (RFC 7523).
//!
//! In: who, to whom, `now`. Out: the signed JWT. Pure but for the random `jti` and salt; an RSA-2048
//! signature takes about a millisecond. Source: "Application authentication certificate credentials"
//! of the Microsoft identity platform.

use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, Header, encode};
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
        let mut header = Header::new(match request.algorithm {
            AssertionAlgorithm::Ps256 => Algorithm::PS256,
            AssertionAlgorithm::Rs256 => Algorithm::RS256,
        });
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
        let signed = encode(&header, &claims, &self.key.private);
        let signed = signed.map_err(|error| CredentialError::Signing(error.to_string()))?;
        Ok(signed.into())
    }
}

/// A random GUID (RFC 9562, version 4): no assertion is taken twice.
fn random_guid() -> Result<String, CredentialError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)
        .map_err(|_| CredentialError::Signing("the system gives no random numbers".to_owned()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

#[cfg(test)]
mod tests;
