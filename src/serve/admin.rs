//! The process's own door: metrics, liveness, readiness, log level. On an address of its own, so
//! that scrapes and probes neither reach the data path nor are reached through it.
//!
//! Comes in: an HTTP request of a kubelet, a collector or a person on the node. Goes out: text.
//! Blocks on nothing but the few bytes of a log filter. Invariants: nothing here names a token, and
//! what changes the process is for loopback peers only.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use tokio::net::TcpListener;

use super::drain::Drain;
use super::http1::Answer;
use super::limits::Limits;
use super::listener;
use super::metrics::ConnMetrics;
use super::ready::Readiness;
use super::telemetry::LogLevel;

const FILTER_BYTES: usize = 1024;
const FILTER_TIME: Duration = Duration::from_secs(2);
const TEXT: &str = "text/plain; charset=utf-8";
const PAGES: &str = "\
GET /metrics    counters, as Prometheus reads them
GET /livez      200 while this process answers
GET /readyz     200 when ready; else 503 and what is missing
GET /log-level  the log filter in force
PUT /log-level  sets it: the body is a filter such as `info` or `info,lanyard::agent=debug`; from this node's loopback only
";

/// The admin server's answers.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What `/metrics` shows.
    pub registry: Registry,
    /// What `/readyz` shows.
    pub readiness: Readiness,
    /// What `/log-level` shows and changes.
    pub log_level: LogLevel,
}

impl Admin {
    /// Listens at `address`; what it gives serves these pages until `drain` has ended.
    pub async fn listen(
        self,
        address: SocketAddr,
        drain: Drain,
    ) -> io::Result<impl Future<Output = ()> + Send> {
        let conn = ConnMetrics::new(&self.registry, "admin").map_err(io::Error::other)?;
        let listener = TcpListener::bind(address).await?;
        tracing::info!(address = %listener.local_addr()?, "metrics and health");
        Ok(listener::serve(listener, Self::limits(), self, drain, conn))
    }

    /// Bounds that fit probes and scrapes.
    pub fn limits() -> Limits {
        Limits {
            connections: 256,
            connections_per_peer: 64,
            ..Limits::default()
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(text) => reply(StatusCode::OK, TEXT_FORMAT, text),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let pending = self.readiness.pending();
        if pending.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        let lines: Vec<String> = pending
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        text(StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n")
    }

    async fn set_level<B>(&self, peer: SocketAddr, body: B) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !peer.ip().is_loopback() {
            return text(
                StatusCode::FORBIDDEN,
                "the log level is changed from loopback only\n",
            );
        }
        let collected =
            tokio::time::timeout(FILTER_TIME, Limited::new(body, FILTER_BYTES).collect());
        let Ok(Ok(body)) = collected.await else {
            return text(
                StatusCode::BAD_REQUEST,
                "no filter of at most 1024 bytes came\n",
            );
        };
        let filter = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        match self.log_level.set(&filter) {
            Ok(()) => {
                tracing::info!(filter = filter.trim(), %peer, "log filter changed");
                text(StatusCode::OK, format!("{}\n", self.log_level.current()))
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

impl Answer for Admin {
    async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let read = head.method == Method::GET || head.method == Method::HEAD;
        match head.uri.path() {
            "/log-level" if head.method == Method::PUT => self.set_level(peer, body).await,
            "/" | "/metrics" | "/livez" | "/readyz" | "/log-level" if !read => not_allowed(),
            "/" => text(StatusCode::OK, PAGES),
            "/metrics" => self.metrics(),
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.ready(),
            "/log-level" => text(StatusCode::OK, format!("{}\n", self.log_level.current())),
            _ => text(
                StatusCode::NOT_FOUND,
                format!("no such page; there are\n{PAGES}"),
            ),
        }
    }
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PAGES);
    response.headers_mut().insert(
        ALLOW,
        hyper::header::HeaderValue::from_static("GET, HEAD, PUT"),
    );
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(status, TEXT, body)
}

fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_level_is_for_loopback_peers_only() {
        let admin = Admin {
            registry: Registry::new(),
            readiness: Readiness::default(),
            log_level: LogLevel::detached(),
        };
        let before = admin.log_level.current();
        for (peer, status) in [("10.0.0.7:1", 403), ("[fe80::1]:1", 403), ("[::1]:1", 200)] {
            let body = Full::new(Bytes::from_static(b"trace"));
            let response = admin.set_level(peer.parse().unwrap(), body).await;
            assert_eq!(response.status(), status, "{peer}");
            assert_eq!(admin.log_level.current() != before, status == 200, "{peer}");
        }
    }
}
