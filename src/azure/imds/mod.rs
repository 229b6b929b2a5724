//! The Instance Metadata Service (IMDS): managed identity tokens and other metadata.
//!
//! In: a client id and a resource, or a metadata path. Out: a [`Token`], or an [`ImdsError`] typed
//! by what IMDS said. Blocks on the network, at most for the given limit. The only header that goes
//! out is `Metadata: true`. Nothing is retried here: whoever paces the calls decides that.

pub mod answer;

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{StatusCode, Uri};

use crate::model::escape::escaped;
use crate::model::ids::Guid;
use crate::model::token::Token;

use super::http::{HttpClient, HttpError, Reply};
use super::marked::OwnSockets;

/// What IMDS can answer instead of a token. The texts are IMDS's own, shortened, never a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImdsError {
    /// The identity is not assigned to this virtual machine (or not yet).
    #[error("IMDS does not have this identity on this node: {0}")]
    NotFound(String),
    /// Any other final answer: a bad resource, a deleted identity, a refusal of Entra's.
    #[error("IMDS refused ({status}): {error}: {description}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// IMDS's `error` word.
        error: String,
        /// IMDS's `error_description`.
        description: String,
    },
    /// 404 or 410: IMDS is being updated, for up to 70 s.
    #[error("IMDS is being updated ({0})")]
    Updating(u16),
    /// 429: more than 20 requests a second or five at once from this node, by whomever.
    #[error("IMDS throttles this node")]
    Throttled {
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// 5xx, no connection, or silence.
    #[error("IMDS is unavailable: {0}")]
    Unavailable(String),
    /// An answer that is none: not JSON, cut, too large, without a token, or with an expired one.
    #[error("IMDS answered nonsense: {0}")]
    Invalid(String),
}

impl From<HttpError> for ImdsError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::TooLarge => Self::Invalid(error.to_string()),
            HttpError::Timeout(_) | HttpError::Broken(_) => Self::Unavailable(error.to_string()),
        }
    }
}

/// An endpoint that is not `http://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no IMDS endpoint (expected http://ADDRESS or http://ADDRESS:PORT, without a path)"
)]
pub struct NotAnEndpoint(pub String);

/// A metadata answer for passing on.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// IMDS's status.
    pub status: StatusCode,
    /// IMDS's content type.
    pub content_type: Option<HeaderValue>,
    /// The body, at most 1 MiB.
    pub body: Bytes,
}

/// A client of one IMDS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ImdsClient {
    http: HttpClient,
    endpoint: String,
}

impl ImdsClient {
    /// A client for `http://ADDRESS[:PORT]`.
    pub fn new(endpoint: &str) -> Result<Self, NotAnEndpoint> {
        Self::marked(endpoint, None)
    }

    /// The same, whose sockets the rules of the node know.
    pub fn marked(endpoint: &str, own: Option<OwnSockets>) -> Result<Self, NotAnEndpoint> {
        let endpoint = endpoint.trim_end_matches('/');
        let bad = || NotAnEndpoint(endpoint.chars().take(128).collect());
        let uri: Uri = endpoint.parse().map_err(|_| bad())?;
        let plain = uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.path() == "/"
            && uri.query().is_none()
            && !endpoint.contains('@');
        if !plain {
            return Err(bad());
        }
        Ok(Self {
            http: HttpClient::marked(own),
            endpoint: endpoint.to_owned(),
        })
    }

    /// Asks for a token of an identity of the node itself: the user-assigned one with this client id,
    /// else the one that the node has (the system-assigned one, or its only other). `is_anew`: not
    /// from IMDS's cache, as the resource refused what came from there.
    pub async fn node_token(
        &self,
        client_id: Option<Guid>,
        resource: &str,
        is_anew: bool,
        limit: Duration,
        now: impl FnOnce() -> Duration,
    ) -> Result<Token, ImdsError> {
        let mut uri = self.route(resource);
        if let Some(client_id) = client_id {
            uri.push_str("&client_id=");
            client_id.push_to(&mut uri);
        }
        if is_anew {
            uri.push_str("&bypass_cache=true");
        }
        let reply = self.get(&uri, limit).await?;
        answer::read_token(reply.status, &reply.headers, &reply.body, now())
    }

    /// Asks for a token of the user-assigned identity `client_id` for `resource`.
    ///
    /// `now` is read when the answer is there: durations since the Unix epoch.
    pub async fn token(
        &self,
        client_id: Guid,
        resource: &str,
        limit: Duration,
        now: impl FnOnce() -> Duration,
    ) -> Result<Token, ImdsError> {
        let uri = self.token_uri(client_id, resource);
        let reply = self.get(&uri, limit).await?;
        answer::read_token(reply.status, &reply.headers, &reply.body, now())
    }

    /// Asks for a token that IMDS has not cached, for the same; `claims` (JSON) is a resource's challenge
    /// to pass on.
    pub async fn token_anew(
        &self,
        client_id: Guid,
        resource: &str,
        claims: Option<&str>,
        limit: Duration,
        now: impl FnOnce() -> Duration,
    ) -> Result<Token, ImdsError> {
        let mut uri = self.token_uri(client_id, resource);
        uri.push_str("&bypass_cache=true");
        if let Some(claims) = claims {
            uri.push_str("&claims=");
            uri.push_str(&escaped(claims));
        }
        let reply = self.get(&uri, limit).await?;
        answer::read_token(reply.status, &reply.headers, &reply.body, now())
    }

    fn token_uri(&self, client_id: Guid, resource: &str) -> String {
        format!("{}&client_id={client_id}", self.route(resource))
    }

    fn route(&self, resource: &str) -> String {
        format!(
            "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}",
            self.endpoint,
            escaped(resource),
        )
    }

    /// Fetches another metadata path for passing on. Whoever calls has checked that the path may
    /// be passed on; characters that no metadata path has are refused here once more.
    pub async fn metadata(
        &self,
        path: &str,
        api_version: &str,
        format: Option<&str>,
        limit: Duration,
    ) -> Result<Metadata, ImdsError> {
        let plain = path.starts_with("/metadata/")
            && !path.contains("//")
            && !path.split('/').any(|segment| matches!(segment, "." | ".."))
            && path
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.'));
        if !plain {
            return Err(ImdsError::Invalid("not a plain metadata path".to_owned()));
        }
        let mut uri = format!(
            "{}{path}?api-version={}",
            self.endpoint,
            escaped(api_version)
        );
        if let Some(format) = format {
            uri.push_str("&format=");
            uri.push_str(&escaped(format));
        }
        let reply = self.get(&uri, limit).await?;
        Ok(Metadata {
            status: reply.status,
            content_type: reply.headers.get(CONTENT_TYPE).cloned(),
            body: reply.body,
        })
    }

    async fn get(&self, uri: &str, limit: Duration) -> Result<Reply, ImdsError> {
        let uri = uri.parse::<Uri>().map_err(|error| ImdsError::Refused {
            status: 400,
            error: "invalid_request".to_owned(),
            description: format!("the request cannot be written as a URI: {error}"),
        })?;
        let header = (
            HeaderName::from_static("metadata"),
            HeaderValue::from_static("true"),
        );
        Ok(self.http.get(uri, &[header], limit).await?)
    }
}

#[cfg(test)]
mod tests;
