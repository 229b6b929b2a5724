//! Answers the API server: finds out what is asked, and by whom in here it is answered.
//!
//! In: HTTP requests over TLS. Out: `AdmissionReview`s, and `/readyz`, `/livez` for kubelet. Blocks on a
//! body for at most [`READ`], and on what the guard reads. Invariant: an error here never allows anything;
//! the API server then does what the webhook's `failurePolicy` says.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::app_service;
use super::guard::Guard;
use super::metrics::{Hook, Metrics, Outcome};
use super::review::ReviewError;
use super::spaced::Spaced;
use crate::serve::Answer;
use crate::serve::ready::Readiness;

/// The paths that the webhooks' configurations name.
const TOKEN_REQUESTS: &str = "/token-requests";
const APP_SERVICE: &str = "/app-service";
/// A `TokenRequest` is some hundred bytes, a pod some thousand, and the review around it no more. All connections
/// that there may be, with so much each, are less than the memory that the chart gives.
const BODY: usize = 64 * 1024;
/// Of a pod that is larger: the API server itself takes 3 MiB, and stores 1.5 MiB.
const LARGE_BODY: usize = 4 * 1024 * 1024;
/// So many of these at once.
const LARGE: usize = 2;
/// For a body to come. With what the guard takes it is less than the webhooks' own 5 s.
const READ: Duration = Duration::from_secs(2);
const TEXT: &str = "text/plain; charset=utf-8";
static NOT_OURS: Spaced = Spaced::new();

/// The webhook's answers.
pub(super) struct Webhook {
    /// Judges requests for service accounts' tokens, where that is asked of this process.
    guard: Option<Guard>,
    /// Whether pods get App Service's variables.
    app_service: bool,
    /// What `/readyz` says.
    readiness: Readiness,
    metrics: Metrics,
    large: Semaphore,
}

/// Why there is no review to answer.
#[derive(Debug, thiserror::Error)]
enum NoBody {
    #[error("the body did not come within {} s", READ.as_secs())]
    Late,
    #[error("the body: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl Webhook {
    pub(super) fn new(
        guard: Option<Guard>,
        app_service: bool,
        readiness: Readiness,
        metrics: Metrics,
    ) -> Self {
        Self {
            guard,
            app_service,
            readiness,
            metrics,
            large: Semaphore::new(LARGE),
        }
    }

    async fn post(&self, path: &str, body: Incoming) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let (hook, answer) = match (path, &self.guard) {
            (TOKEN_REQUESTS, Some(guard)) => {
                let answer = match read(body, BODY).await {
                    Ok(body) => Ok(guard.review(&body).await),
                    Err(error) => Err(error),
                };
                (Hook::TokenRequests, answer)
            }
            (APP_SERVICE, _) if self.app_service => {
                let answer = self.pod(body).await.map(|body| app_service::review(&body));
                (Hook::AppService, answer)
            }
            _ => return text(StatusCode::NOT_FOUND, "no such page\n"),
        };
        let outcome = answer.as_ref().map_or(Outcome::Unreadable, Outcome::of);
        self.metrics.answered(hook, outcome, started.elapsed());
        answer.map_or_else(|error| without_body(&error), reviewed)
    }

    /// The body of a pod's review. Large ones wait for one another, so that no number of them takes more
    /// memory than there is.
    async fn pod(&self, body: Incoming) -> Result<Bytes, NoBody> {
        let announced = body.size_hint().upper();
        if announced.is_some_and(|length| length <= BODY as u64) {
            return read(body, BODY).await;
        }
        let turn = tokio::time::timeout(READ, self.large.acquire()).await;
        let _turn = turn.map_err(|_| NoBody::Late)?;
        read(body, LARGE_BODY).await
    }
}

async fn read(body: Incoming, most: usize) -> Result<Bytes, NoBody> {
    let read = tokio::time::timeout(READ, Limited::new(body, most).collect()).await;
    let body = read.map_err(|_| NoBody::Late)?.map_err(NoBody::Broken)?;
    Ok(body.to_bytes())
}

fn reviewed(answer: Result<Value, ReviewError>) -> Response<Full<Bytes>> {
    match answer {
        Ok(answer) => {
            let json = HeaderValue::from_static("application/json");
            typed(StatusCode::OK, json, answer.to_string())
        }
        // An error of the webhook to the API server, which then denies (failurePolicy: Fail).
        Err(error) => {
            if NOT_OURS.passes() {
                tracing::error!(%error, "a review that is none of ours");
            }
            text(StatusCode::BAD_REQUEST, error.to_string())
        }
    }
}

fn without_body(error: &NoBody) -> Response<Full<Bytes>> {
    let status = match error {
        NoBody::Late => StatusCode::REQUEST_TIMEOUT,
        NoBody::Broken(_) => StatusCode::BAD_REQUEST,
    };
    text(status, error.to_string())
}

impl Answer for Webhook {
    async fn answer(&self, _: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        match (head.method, head.uri.path()) {
            (Method::POST, path) => self.post(path, body).await,
            (Method::GET, "/livez") => text(StatusCode::OK, "alive\n"),
            (Method::GET, "/readyz") => match self.readiness.pending().as_slice() {
                [] => text(StatusCode::OK, "ready\n"),
                [(name, why), ..] => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("{name}: {why}\n"))
                }
            },
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, HeaderValue::from_static(TEXT), body)
}

fn typed(status: StatusCode, media: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}
