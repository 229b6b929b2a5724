//! One small HTTP/1.1 client for services on the node's own link.
//!
//! In: a URI, headers, a deadline. Out: status, headers and a body of at most 1 MiB, or why not.
//! Blocks on the network for at most the deadline. Redirects are never followed, proxies never
//! used, environment variables never read: a request goes where the URI says or nowhere.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::marked::{Marked, OwnSockets};

/// The most that is read of an answer's body, in bytes.
pub const BODY_LIMIT: usize = 1024 * 1024;
/// The most that a TCP connect may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// An unused connection is closed after this long.
const IDLE_LIMIT: Duration = Duration::from_secs(20);
/// Unused connections kept; IMDS allows five requests at once.
const IDLE_CONNECTIONS: usize = 4;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Nothing was answered before the deadline.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or it broke before the answer was whole.
    #[error("{0}")]
    Broken(String),
    /// The body is larger than [`BODY_LIMIT`].
    #[error("the answer is larger than {BODY_LIMIT} bytes")]
    TooLarge,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, complete.
    pub body: Bytes,
}

/// The client. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    inner: Client<Marked, Empty<Bytes>>,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// A client without connections yet.
    #[must_use]
    pub fn new() -> Self {
        Self::marked(None)
    }

    /// The same, whose sockets the rules of the node know.
    #[must_use]
    pub fn marked(own: Option<OwnSockets>) -> Self {
        let connector = Marked::new(own, CONNECT_LIMIT);
        let inner = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self { inner }
    }

    /// Sends a GET and reads the whole answer, all within `limit`.
    pub async fn get(
        &self,
        uri: Uri,
        headers: &[(HeaderName, HeaderValue)],
        limit: Duration,
    ) -> Result<Reply, HttpError> {
        match tokio::time::timeout(limit, self.exchange(uri, headers)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout(limit)),
        }
    }

    async fn exchange(
        &self,
        uri: Uri,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Reply, HttpError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        for (name, value) in headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let answer = self
            .inner
            .request(request)
            .await
            .map_err(|error| HttpError::Broken(chain(&error)))?;
        whole(answer).await
    }
}

/// Reads the rest of an answer, at most [`BODY_LIMIT`] bytes of it. Waits as long as the caller lets it.
pub(super) async fn whole(answer: Response<Incoming>) -> Result<Reply, HttpError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            HttpError::TooLarge
        } else {
            HttpError::Broken(chain(error.as_ref()))
        }
    })?;
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
    })
}

/// An error with its causes: hyper's own texts name only the outermost step.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
