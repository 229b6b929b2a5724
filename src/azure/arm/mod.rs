//! A client of Azure Resource Manager (ARM): identities of virtual machines and scale sets, and user-assigned
//! identities themselves.
//!
//! In: ids, what is to be, deadlines. Out: what ARM shows, or an [`ArmError`] typed by what can be done about
//! it. Blocks on the network, at most for the given limit, and sends nothing after it. Nothing is
//! retried here but a call whose token ARM did not take: whoever paces the calls decides that.
//! Nobody but the configured endpoint gets our token, whatever an answer names.

mod advice;
mod answer;
mod compute;
mod endpoint;
mod error;
mod identity;
mod named;
mod operation;
mod resources;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, USER_AGENT};
use hyper::{Method, Request, Uri};
use serde_json::Value;
use tokio::time::Instant;

pub use compute::{ComputeShown, IdentityPatch, MOST_IDENTITIES, Principal, ProvisioningState};
pub use endpoint::NotAnArmEndpoint;
pub use error::{ArmError, ArmErrorKind, Origin};
pub use identity::{FederatedCredential, IdentityShown, IdentityWanted, MOST_CREDENTIALS};
pub use operation::{Operation, Progress, Submitted};

use super::access::{Access, AccessError};
use super::http::Reply;
use super::https::HttpsClient;
use crate::model::compute::Compute;
use crate::model::ids::{ArmId, Guid};
use answer::{Asked, nonsense, refusal, silence};
use endpoint::Endpoint;
use operation::{PAUSE, Place, Word};

const COMPUTE_API: &str = "2024-11-01";
const IDENTITY_API: &str = "2023-01-31";
const USER: &str = concat!("lanyard/", env!("CARGO_PKG_VERSION"));

/// The client. Cheap to clone: clones share connections and tokens.
#[derive(Clone)]
pub struct ArmClient {
    endpoint: Endpoint,
    https: HttpsClient,
    access: Access,
    now: fn() -> Duration,
    tell: Option<Tell>,
}

/// Is told of each request that was answered, or was not: its method, and of what kind the error was.
pub type Tell = Arc<dyn Fn(&Method, Option<ArmErrorKind>) + Send + Sync>;

/// A request: what differs from one to the next.
#[derive(Debug)]
struct Call<'a> {
    method: Method,
    uri: Uri,
    body: Option<Value>,
    etag: Option<&'a str>,
    asked: Asked<'a>,
}

impl<'a> Call<'a> {
    const fn new(method: Method, uri: Uri, resource: &'a ArmId) -> Self {
        Self {
            method,
            uri,
            body: None,
            etag: None,
            asked: Asked {
                resource,
                is_compute: false,
                added: &[],
            },
        }
    }

    /// Of a virtual machine or scale set, to which these are to be assigned.
    const fn of_compute(mut self, added: &'a [ArmId]) -> Self {
        self.asked.is_compute = true;
        self.asked.added = added;
        self
    }
}

impl ArmClient {
    /// A client of the ARM at `endpoint` (`https://HOST`). `now`: the time since the Unix epoch.
    pub fn new(
        endpoint: &str,
        https: HttpsClient,
        access: Access,
        now: fn() -> Duration,
    ) -> Result<Self, NotAnArmEndpoint> {
        Ok(Self {
            endpoint: Endpoint::new(endpoint)?,
            https,
            access,
            now,
            tell: None,
        })
    }

    /// The same, telling somebody of each request: for metrics.
    #[must_use]
    pub fn telling(mut self, tell: Tell) -> Self {
        self.tell = Some(tell);
        self
    }

    /// Sees to it that a token is at hand: a write right after it needs no other request.
    pub async fn prepare(&self, limit: Duration) -> Result<(), ArmError> {
        let got = self.access.token(limit).await;
        got.map(drop).map_err(|error| no_token(&error))
    }

    /// Object id in Entra ID of the identity that we are to ARM, as the last token says.
    #[must_use]
    pub fn caller(&self) -> Option<Guid> {
        self.access.object_id()
    }

    /// Reads a virtual machine or scale set.
    pub async fn compute(
        &self,
        compute: &Compute,
        limit: Duration,
    ) -> Result<ComputeShown, ArmError> {
        let uri = self.uri(&compute.id, &[], COMPUTE_API)?;
        let call = Call::new(Method::GET, uri, &compute.id).of_compute(&[]);
        let reply = self.send(call, limit);
        shown(&reply.await?, &compute.id)
    }

    /// Changes the identities of a virtual machine or scale set, all at once or not at all.
    ///
    /// Call [`ArmClient::prepare`] before: then nothing but the PATCH is sent. Where the error says
    /// [`ArmError::may_have_happened`], only reading tells.
    pub async fn patch(
        &self,
        compute: &Compute,
        patch: &IdentityPatch,
        limit: Duration,
    ) -> Result<Submitted, ArmError> {
        let uri = self.uri(&compute.id, &[], COMPUTE_API)?;
        let call = Call {
            body: Some(patch.body()),
            etag: patch.etag.as_deref(),
            ..Call::new(Method::PATCH, uri, &compute.id).of_compute(&patch.add)
        };
        let reply = self.send(call, limit).await?;
        self.submitted(&reply, compute, patch)
    }

    fn submitted(
        &self,
        reply: &Reply,
        compute: &Compute,
        patch: &IdentityPatch,
    ) -> Result<Submitted, ArmError> {
        let running = |place| {
            let wait = super::answer::retry_after(&reply.headers, (self.now)());
            Submitted::Running(Operation {
                compute: compute.clone(),
                after: wait.unwrap_or(PAUSE),
                added: patch.add.clone(),
                place,
            })
        };
        // With a place to ask it runs on, whatever the status: Compute answers 200 at once.
        if let Some(place) = operation::place(&reply.headers, self.endpoint.uri()) {
            return Ok(running(place));
        }
        if reply.status == 202 {
            return Ok(running(Place::Resource));
        }
        let shown = shown(reply, &compute.id)?;
        Ok(match shown.state {
            ProvisioningState::Updating => running(Place::Resource),
            _ => Submitted::Done(shown),
        })
    }

    /// Asks how far a write is. An operation that nobody knows any more is judged by the resource.
    pub async fn progress(
        &self,
        operation: &Operation,
        limit: Duration,
    ) -> Result<Progress, ArmError> {
        let id = &operation.compute.id;
        let until = Instant::now() + limit;
        let uri = match &operation.place {
            Place::Status(uri) | Place::Location(uri) => uri.clone(),
            Place::Resource => return self.progress_of_resource(operation, limit).await,
        };
        let is_location = matches!(operation.place, Place::Location(_));
        let call = Call::new(Method::GET, uri, id).of_compute(&operation.added);
        let reply = match self.send(call, limit).await {
            // Compute forgets operations after a while, and a new leader asks late.
            Err(error) if error.kind == ArmErrorKind::NotFound || error.status == Some(410) => {
                let left = until.saturating_duration_since(Instant::now());
                return self.progress_of_resource(operation, left).await;
            }
            // There the operation's own failure is the answer.
            Err(error) if is_location && error.status.is_some_and(is_outcome) => {
                return Ok(Progress::Failed(error));
            }
            reply => reply?,
        };
        if is_location {
            return Ok(match reply.status.as_u16() {
                202 => self.running(&reply),
                _ => Progress::Succeeded,
            });
        }
        let body = json(&reply, id)?;
        let said = operation::word(&body).ok_or("no status of an operation");
        let word = said.map_err(|why| unusable(&reply, why, id))?;
        Ok(self.told(&word, &reply, &body, operation))
    }

    async fn progress_of_resource(
        &self,
        operation: &Operation,
        limit: Duration,
    ) -> Result<Progress, ArmError> {
        let id = &operation.compute.id;
        let uri = self.uri(id, &[], COMPUTE_API)?;
        let call = Call::new(Method::GET, uri, id).of_compute(&[]);
        let reply = self.send(call, limit).await?;
        let word = operation::word_of(shown(&reply, id)?.state);
        Ok(self.told(&word, &reply, &Value::Null, operation))
    }

    fn told(&self, word: &Word, reply: &Reply, body: &Value, operation: &Operation) -> Progress {
        match word {
            Word::Running => self.running(reply),
            Word::Succeeded => Progress::Succeeded,
            Word::Canceled => Progress::Canceled,
            Word::Failed => {
                let asked = Asked {
                    resource: &operation.compute.id,
                    is_compute: true,
                    added: &operation.added,
                };
                let mut error = answer::failed_operation(body, asked);
                error.request_id = answer::request_id(&reply.headers);
                Progress::Failed(self.signed(error))
            }
        }
    }

    fn running(&self, reply: &Reply) -> Progress {
        let wait = super::answer::retry_after(&reply.headers, (self.now)());
        Progress::Running {
            after: wait.unwrap_or(PAUSE),
        }
    }

    fn uri(&self, id: &ArmId, below: &[&str], api_version: &str) -> Result<Uri, ArmError> {
        let uri = self.endpoint.of(id, below, api_version);
        let words = "its id is too long for a request";
        uri.ok_or_else(|| ArmError::new(ArmErrorKind::Refused, words).about(id))
    }

    /// Sends; where ARM does not take the token, once more with another one: nothing was done by then.
    /// `Err`: no answer, or one that is no success.
    async fn send(&self, call: Call<'_>, limit: Duration) -> Result<Reply, ArmError> {
        let until = Instant::now() + limit;
        let resource = call.asked.resource;
        let mut is_first = true;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let token = self.access.token(left).await;
            let token = token.map_err(|error| no_token(&error).about(resource))?;
            let request = request(&call, token.expose()).ok_or_else(|| {
                ArmError::new(ArmErrorKind::Refused, "the request cannot be written")
            })?;
            let left = until.saturating_duration_since(Instant::now());
            let reply = self.https.send(request, left).await;
            let reply = reply.map_err(|error| silence(&error, resource));
            let reply = match reply {
                Ok(reply) if reply.status.is_success() => Ok(reply),
                Ok(reply) => Err((self.refusal(&reply, call.asked), true)),
                Err(error) => Err((error, false)),
            };
            if let Some(tell) = &self.tell {
                tell(
                    &call.method,
                    reply.as_ref().err().map(|(error, _)| error.kind),
                );
            }
            let error = match reply {
                Ok(reply) => return Ok(reply),
                Err((error, false)) => return Err(error),
                Err((error, true)) => error,
            };
            let is_another = wants_another_token(&error) && self.access.refused(&token);
            if !(is_first && is_another) {
                return Err(error);
            }
            is_first = false;
        }
    }

    fn refusal(&self, reply: &Reply, asked: Asked<'_>) -> ArmError {
        let (status, now) = (reply.status.as_u16(), (self.now)());
        self.signed(refusal(status, &reply.headers, &reply.body, now, asked))
    }

    /// With the caller's object id, where ARM did not say it.
    fn signed(&self, error: ArmError) -> ArmError {
        error.asked_by(self.access.object_id())
    }
}

fn wants_another_token(error: &ArmError) -> bool {
    error.status == Some(401) && !answer::is_of_another_tenant(&error.code)
}

fn request(call: &Call<'_>, token: &str) -> Option<Request<Bytes>> {
    let body = match &call.body {
        Some(body) => serde_json::to_vec(body).ok()?.into(),
        None => Bytes::new(),
    };
    let has_body = call.body.is_some();
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = call.uri.clone();
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    bearer.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, bearer);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(USER));
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(etag) = call.etag {
        headers.insert(IF_MATCH, HeaderValue::try_from(etag).ok()?);
    }
    Some(request)
}

/// No request was sent: there is no token for it.
fn no_token(error: &AccessError) -> ArmError {
    let kind = if error.is_transient() {
        ArmErrorKind::Unavailable
    } else {
        ArmErrorKind::Unauthenticated
    };
    ArmError {
        code: "NoToken".to_owned(),
        retry_after: error.retry_after(),
        ..ArmError::new(kind, error.to_string())
    }
}

/// Whether a status of an operation's `Location` is what became of the operation, not of the question.
const fn is_outcome(status: u16) -> bool {
    matches!(status, 400..=499) && !matches!(status, 401 | 403 | 408 | 429)
}

fn json(reply: &Reply, id: &ArmId) -> Result<Value, ArmError> {
    serde_json::from_slice(&reply.body).map_err(|error| {
        let why = format!("no JSON ({:?})", error.classify());
        unusable(reply, &why, id)
    })
}

fn unusable(reply: &Reply, why: &str, id: &ArmId) -> ArmError {
    nonsense(reply.status.as_u16(), &reply.headers, why, id)
}

fn shown(reply: &Reply, id: &ArmId) -> Result<ComputeShown, ArmError> {
    let etag = reply.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
    compute::read(&json(reply, id)?, etag).map_err(|why| unusable(reply, &why, id))
}

#[cfg(test)]
mod tests;
