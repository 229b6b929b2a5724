//! An HTTPS/1.1 client for services beyond the node: Entra's authorities and token endpoints.
//!
//! In: a URI, a form, a deadline. Out: status, headers and a body of at most 1 MiB, or why not. Blocks
//! on the network for at most the deadline. Whom it trusts, which certificate name it expects and which
//! proxy it goes through are configured once; redirects are never followed, nothing is retried. Plain
//! `http` is spoken to loopback addresses only: nothing secret leaves the machine unencrypted.

mod proxy;
mod trust;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::{DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use zeroize::Zeroizing;

pub use proxy::{NotAProxy, ProxyRules};
pub use trust::{Roots, RootsError};

use super::http::{HttpError, Reply, chain, whole};
use proxy::Route;

/// The most that a TCP connect may take, all of a name's addresses together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// An unused connection is closed after this long; a new one costs Entra and us a TLS handshake.
const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// Unused connections kept for each host.
const IDLE_CONNECTIONS: usize = 8;

/// Whom a client trusts and how it gets there.
#[derive(Clone, Debug, Default)]
pub struct HttpsConfig {
    /// Certificate authorities.
    pub roots: Roots,
    /// Host name for SNI and for the certificate, where it is not the URI's (AKS identity bindings).
    /// The `Host` header stays the URI's.
    pub server_name: Option<String>,
    /// Proxies for `https` URIs.
    pub proxies: ProxyRules,
}

/// A configuration that makes no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpsConfigError {
    /// No certificate authority, or one that cannot be read.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The server name is none.
    #[error("`{0}` is no host name for TLS (expected one such as tokens.example.com)")]
    ServerName(String),
}

/// The client. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct HttpsClient {
    inner: Client<HttpsConnector<Route>, Full<Bytes>>,
}

impl HttpsClient {
    /// A client without connections yet. Reads the system's certificate authorities from disk, where
    /// they are wanted: for the start and for changes of configuration, not for each request.
    pub fn new(config: &HttpsConfig) -> Result<Self, HttpsConfigError> {
        let tls = Arc::new(trust::client_config(&config.roots)?);
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        tcp.enforce_http(false);
        let route = Route::new(tcp, Arc::clone(&tls), config.proxies.clone());
        let connector = match &config.server_name {
            None => {
                let names = Arc::new(DefaultServerNameResolver::default());
                HttpsConnector::new(route, tls, false, names)
            }
            Some(name) => {
                let parsed = ServerName::try_from(name.clone())
                    .map_err(|_| HttpsConfigError::ServerName(name.chars().take(253).collect()))?;
                let names = Arc::new(FixedServerNameResolver::new(parsed));
                HttpsConnector::new(route, tls, false, names)
            }
        };
        let inner = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Ok(Self { inner })
    }

    /// Sends a form (`application/x-www-form-urlencoded`) and reads the whole answer, within `limit`.
    ///
    /// The form's memory is zeroized when it has been sent. What TLS and the socket buffered of it
    /// is not ours to zeroize.
    pub async fn post_form(
        &self,
        uri: Uri,
        form: Zeroizing<String>,
        limit: Duration,
    ) -> Result<Reply, HttpError> {
        let mut request = Request::new(Full::new(Bytes::from_owner(form)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().extend([
            (
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            ),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        self.within(limit, request).await
    }

    /// Sends a GET and reads the whole answer, all within `limit`.
    pub async fn get(
        &self,
        uri: Uri,
        headers: &[(HeaderName, HeaderValue)],
        limit: Duration,
    ) -> Result<Reply, HttpError> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = uri;
        request.headers_mut().extend(headers.iter().cloned());
        self.within(limit, request).await
    }

    /// Sends any request and reads the whole answer, all within `limit`: when that has passed, nothing
    /// of it is sent any more.
    pub async fn send(&self, request: Request<Bytes>, limit: Duration) -> Result<Reply, HttpError> {
        self.within(limit, request.map(Full::new)).await
    }

    async fn within(
        &self,
        limit: Duration,
        request: Request<Full<Bytes>>,
    ) -> Result<Reply, HttpError> {
        if !is_private(request.uri()) {
            let words = "only https is used, and http to loopback addresses";
            return Err(HttpError::Broken(words.to_owned()));
        }
        let exchange = async {
            let answer = self.inner.request(request).await;
            whole(answer.map_err(|error| HttpError::Broken(chain(&error)))?).await
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout(limit)),
        }
    }
}

/// Whether what is sent to `uri` stays private: encrypted, or on this machine. `localhost` counts, too
/// (RFC 6761: it never leaves the machine).
#[must_use]
pub fn is_private(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => {
            host.eq_ignore_ascii_case("localhost")
                || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
