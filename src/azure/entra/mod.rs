//! Entra ID's token endpoint: the client credentials flow of the Microsoft identity platform (v2).
//!
//! In: who asks (client id and proof), for which resource, where. Out: a [`Token`], or an
//! [`EntraError`] typed by what can be done about it. Blocks on the network, at most for the given
//! limit. Nothing is retried or cached here. The proof goes into the request's body and nowhere else:
//! should an answer repeat it, it is cut out.

pub mod answer;
mod endpoint;

use std::time::Duration;

use hyper::Uri;
use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize, Zeroizing};

use crate::model::escape::escaped;
use crate::model::ids::Guid;
use crate::model::token::Token;

pub use answer::EntraError;
pub use endpoint::{NotAnAuthority, scope, token_endpoint};

use super::http::HttpError;
use super::https::HttpsClient;

/// `client_assertion_type` of a JWT (RFC 7523, section 2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How the client proves that it is who it says.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// One of the application's client secrets.
    Secret(&'a SecretString),
    /// A signed JWT: a certificate's assertion, or another issuer's token (federated).
    Assertion(&'a SecretString),
}

/// A request for a token.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequest<'a> {
    /// Of the tenant, as [`token_endpoint`] makes it.
    pub endpoint: &'a Uri,
    /// Who asks: the application's or the managed identity's client id.
    pub client_id: Guid,
    /// What the token is for, as IMDS's `resource` names it (App ID URI).
    pub resource: &'a str,
    /// That it is the client.
    pub proof: Proof<'a>,
    /// The `claims` parameter (JSON), as a resource's challenge gave it (continuous access evaluation).
    pub claims: Option<&'a str>,
}

/// A client of Entra. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EntraClient {
    https: HttpsClient,
}

impl EntraClient {
    /// Over this connection: whom to trust and which proxy to use are its.
    #[must_use]
    pub fn new(https: HttpsClient) -> Self {
        Self { https }
    }

    /// Asks for a token. `now` is read when the answer is there: a duration since the Unix epoch.
    pub async fn token(
        &self,
        request: &TokenRequest<'_>,
        limit: Duration,
        now: impl FnOnce() -> Duration,
    ) -> Result<Token, EntraError> {
        let form = form(request);
        let sent = self.https.post_form(request.endpoint.clone(), form, limit);
        let reply = sent.await.map_err(|error| match error {
            HttpError::TooLarge => EntraError::Invalid(error.to_string()),
            HttpError::Timeout(_) | HttpError::Broken(_) => EntraError::Unavailable {
                why: error.to_string(),
                retry_after: None,
            },
        })?;
        let proof = request.proof.exposed();
        answer::read_token(reply.status, &reply.headers, &reply.body, now(), proof)
    }
}

impl<'a> Proof<'a> {
    fn exposed(self) -> &'a str {
        let (Self::Secret(text) | Self::Assertion(text)) = self;
        text.expose_secret()
    }
}

/// The request's body. Every copy that is made of the proof here is zeroized.
fn form(request: &TokenRequest<'_>) -> Zeroizing<String> {
    let client_id = request.client_id.to_string();
    let scope = scope(request.resource);
    let claims = request.claims.map(|claims| ("claims", claims));
    let proof = match request.proof {
        Proof::Secret(_) => [("client_secret", request.proof.exposed()), ("", "")],
        Proof::Assertion(_) => [
            ("client_assertion", request.proof.exposed()),
            ("client_assertion_type", JWT_BEARER),
        ],
    };
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", &client_id),
        ("scope", &scope),
    ];
    let fields = fields.into_iter().chain(claims).chain(proof);
    let fields = fields.filter(|(name, _)| !name.is_empty());
    // All at once: a text that grows leaves copies behind.
    let room = fields
        .clone()
        .map(|(name, value)| name.len() + 3 * value.len() + 2);
    let mut form = Zeroizing::new(String::with_capacity(room.sum()));
    for (name, value) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        let mut value = escaped(value);
        form.push_str(&value);
        value.zeroize();
    }
    form
}

#[cfg(test)]
mod tests;
