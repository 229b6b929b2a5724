//! Answers the API server: reads the question, reads the pod, gives the verdict.
//!
//! In: HTTP requests over TLS. Out: `AdmissionReview`s, and `/readyz`, `/livez` for kubelet. Blocks on
//! the API server for at most [`READ`], which is less than the webhook's own 5 s, so that the asker
//! reads our words. Invariant: no error on the way ends in "allowed".

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;

use super::review::{self, Question};
use super::verdict::{self, Denial, Pod};
use crate::kubernetes::{CallError, Cluster, Kind};
use crate::serve::Answer;
use crate::serve::ready::Readiness;

/// The path that the webhook's configuration names.
const PATH: &str = "/token-requests";
/// A `TokenRequest` is some hundred bytes, and the review around it a few thousand.
const BODY: usize = 256 * 1024;
/// For a body to come, and for the pod to be read: each. Two of them are less than 5 s.
const READ: Duration = Duration::from_secs(2);
const TEXT: &str = "text/plain; charset=utf-8";

/// The webhook's answers.
pub(super) struct Webhook {
    /// Where pods are read.
    pub(super) cluster: Cluster,
    /// The agents' user name; requests of others are not ours to judge.
    pub(super) agents: String,
    /// What `/readyz` says.
    pub(super) readiness: Readiness,
}

/// Why no verdict could be reached.
#[derive(Debug, thiserror::Error)]
enum Unjudged {
    #[error(transparent)]
    Denied(#[from] Denial),
    #[error("the pod could not be read, so the token is not given; try again ({0})")]
    Unread(#[from] CallError),
    #[error("the pod could not be read within {} s, so the token is not given; try again", READ.as_secs())]
    Late,
}

impl Webhook {
    async fn review(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let question = match review::question(body) {
            Ok(question) => question,
            // An error of the webhook to the API server, which then denies (failurePolicy: Fail).
            Err(error) => {
                tracing::error!(%error, "a review that is none of ours");
                return text(StatusCode::BAD_REQUEST, error.to_string());
            }
        };
        let answer = match self.judge(&question).await {
            Ok(()) => review::answer(&question.review, Ok(())),
            Err(error) => {
                tell(&question, &error);
                let code = match error {
                    Unjudged::Denied(_) => 403,
                    Unjudged::Unread(_) | Unjudged::Late => 503,
                };
                review::answer(&question.review, Err((code, &error.to_string())))
            }
        };
        let json = HeaderValue::from_static("application/json");
        typed(StatusCode::OK, json, answer.to_string())
    }

    async fn judge(&self, question: &Question) -> Result<(), Unjudged> {
        if question.user != self.agents {
            return Ok(());
        }
        let (_, bound) = verdict::subject(question)?;
        let namespace = &question.account.namespace;
        let pod = self.pod(namespace, &bound.name).await?;
        Ok(verdict::judge(question, pod.as_ref())?)
    }

    /// Reads a pod from the API server's store itself: no `resourceVersion`, no cache of ours.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, Unjudged> {
        let read = self.cluster.get(Kind::POD, Some(namespace), name);
        let found = tokio::time::timeout(READ, read).await;
        let found = found.map_err(|_| Unjudged::Late)??;
        Ok(found.as_ref().map(pod))
    }
}

/// What matters of a pod's document; what is absent is empty, and equals nothing that is asked for.
fn pod(document: &Value) -> Pod {
    let word = |pointer: &str| {
        let found = document.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    Pod {
        uid: word("/metadata/uid"),
        node: word("/spec/nodeName"),
        account: word("/spec/serviceAccountName"),
    }
}

/// A denial is what a stolen token would look like.
fn tell(question: &Question, error: &Unjudged) {
    let nodes = question.nodes.join(" ");
    let account = &question.account;
    tracing::warn!(
        nodes,
        namespace = account.namespace,
        account = account.name,
        pod = question.bound.as_ref().map(|bound| &*bound.name),
        %error,
        "a service account token was denied to an agent"
    );
}

impl Answer for Webhook {
    async fn answer(&self, _: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        match (head.method, head.uri.path()) {
            (Method::POST, PATH) => {
                let body = tokio::time::timeout(READ, Limited::new(body, BODY).collect()).await;
                match body {
                    Ok(Ok(body)) => self.review(&body.to_bytes()).await,
                    Ok(Err(error)) => text(StatusCode::BAD_REQUEST, error.to_string()),
                    Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
                }
            }
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
