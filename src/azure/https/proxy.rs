//! The way to a host: straight, or through an HTTP proxy's tunnel (`CONNECT`, RFC 9110, 9.3.6).
//!
//! In: a URI. Out: a connection that leads there, not yet encrypted for it. Blocks on connecting; the
//! caller sets the limit. Only `https` goes through a proxy, so that a proxy sees host names and
//! nothing else. A proxy that cannot be used is an error: its user did not mean "straight".

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Which hosts are reached through which proxy. The default is: none.
#[derive(Clone, Default)]
pub struct ProxyRules(Option<Arc<Matcher>>);

/// A text that names no proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HTTPS_PROXY names no proxy (expected http://HOST:PORT or https://HOST:PORT)")]
pub struct NotAProxy;

impl ProxyRules {
    /// What the environment says: `HTTPS_PROXY` or `ALL_PROXY`, and `NO_PROXY`, in upper or lower case
    /// as curl reads them. For the start of the process.
    #[must_use]
    pub fn from_environment() -> Self {
        Self(Some(Arc::new(Matcher::from_env())))
    }

    /// Everything through `proxy` (`http://[USER:PASSWORD@]HOST:PORT`, or `https`; empty: none) but the
    /// hosts that `no` lists: domains with what is below them, addresses, networks, `*`, with commas.
    pub fn new(proxy: &str, no: &str) -> Result<Self, NotAProxy> {
        if proxy.is_empty() {
            return Ok(Self(None));
        }
        let rules = Matcher::builder().https(proxy).no(no).build();
        let anywhere = Uri::from_static("https://anywhere.invalid");
        let all = Matcher::builder().https(proxy).build();
        match all.intercept(&anywhere) {
            Some(found) if is_http(found.uri()) => Ok(Self(Some(Arc::new(rules)))),
            _ => Err(NotAProxy),
        }
    }
}

impl fmt::Debug for ProxyRules {
    /// Without user names and passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("no proxy"),
            Some(rules) => rules.fmt(f),
        }
    }
}

fn is_http(proxy: &Uri) -> bool {
    matches!(proxy.scheme_str(), Some("http" | "https"))
}

/// Connects by the rules.
#[derive(Clone, Debug)]
pub(super) struct Route {
    straight: HttpConnector,
    /// To the proxy itself, which may want TLS, too; by the same authorities.
    to_proxy: HttpsConnector<HttpConnector>,
    rules: ProxyRules,
}

impl Route {
    pub fn new(tcp: HttpConnector, tls: Arc<ClientConfig>, rules: ProxyRules) -> Self {
        let names = Arc::new(DefaultServerNameResolver::default());
        Self {
            straight: tcp.clone(),
            to_proxy: HttpsConnector::new(tcp, tls, false, names),
            rules,
        }
    }
}

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.straight.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let rules = self.rules.0.as_ref();
        let proxy = rules
            .filter(|_| to.scheme_str() == Some("https"))
            .and_then(|rules| rules.intercept(&to));
        let Some(proxy) = proxy else {
            let connecting = self.straight.call(to);
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        if !is_http(proxy.uri()) {
            return Box::pin(async { Err(NotAProxy.into()) });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(secret) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(secret.clone());
        }
        let host = proxy.uri().host().unwrap_or_default().to_owned();
        let connecting = tunnel.call(to);
        Box::pin(async move {
            connecting
                .await
                .map_err(|error| format!("through the proxy {host}: {}", told(&error)).into())
        })
    }
}

/// With its causes: the outermost says only that there was an error.
fn told(error: &dyn std::error::Error) -> String {
    crate::azure::http::chain(error)
}
