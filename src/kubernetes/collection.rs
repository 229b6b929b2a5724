//! One collection of the API server (all objects of a kind, or those that a selector picks): listed
//! page by page, and watched. Objects stay text until their reader takes them one by one, so that a
//! malformed one harms no other, and a page costs no more memory than its bytes.
//!
//! Every call has its deadline: a page and the beginning of a watch here, the silence of a watch in
//! [`Events::next`]. Nothing is retried here.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::header::{ACCEPT, ACCEPT_ENCODING};
use hyper::{Request, Response, StatusCode};
use kube::client::Body;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroize;

use super::Cluster;
use super::page::{self, Form, Page};
use crate::api::API_VERSION;
use crate::api::kind::Kind;
use crate::model::escape::escaped;

/// Objects of one page, where they are of the usual size.
pub const PAGE: usize = 250;
/// Bytes of a page. Whoever may create objects must not decide how much memory a list takes: a page that
/// is larger is asked for again with fewer objects.
const LARGEST_PAGE: usize = 8 << 20;
/// So many times fewer.
const FEWER: usize = 8;
/// An object, and so an event, is at most 1.5 MiB in etcd; its JSON may be somewhat more.
const LONGEST_EVENT: usize = 8 << 20;
/// Room for an event of a Secret as large as they usually are: a buffer that grows leaves its old self
/// behind.
const SECRET_EVENT: usize = 64 << 10;
/// Only the beginning of what an API server says about an error.
const LONGEST_ERROR: usize = 64 << 10;

/// Which objects.
#[derive(Clone, Debug)]
pub struct Collection {
    /// Path, as in `/api/v1/pods`.
    pub path: String,
    /// Selectors, ready for a query (`fieldSelector=…`); empty for all objects.
    pub selector: String,
    /// Whether metadata is enough.
    pub metadata_only: bool,
    /// Whether lists may come in Kubernetes' binary form: its reader must understand it.
    pub binary: bool,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server's own refusal.
    #[error("{status}: {message}")]
    Refused {
        /// The HTTP status, or that of an error event.
        status: u16,
        /// Its words.
        message: String,
    },
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
    /// No answer, or no more of it, in time.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// The answer cannot be read.
    #[error("unreadable answer: {0}")]
    Nonsense(String),
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventKind {
    /// It is new, or newly fits the selector.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or does not fit the selector any more.
    Deleted,
    /// Nothing; the version of the collection moved on.
    Bookmark,
    /// The watch failed; the object is a `Status`.
    Error,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The object, as it is now (as it was last, where deleted).
    #[serde(borrow)]
    pub object: &'a RawValue,
}

/// A watch that has begun.
pub struct Events {
    body: Body,
    read: BytesMut,
    /// Length of the line that was given out last.
    given: usize,
    /// How much of `read` has no line's end, for sure.
    searched: usize,
    /// Whether what was read is overwritten when it is not needed any more.
    is_secret: bool,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl Cluster {
    /// One page of a list, as it is now (not from a cache that may lag); `from` is the page before's
    /// [`ListMeta::next`], empty for the first; `limit` its [`Page::limit`], [`PAGE`] for the first. The
    /// deadline is for each attempt: a page of more than [`LARGEST_PAGE`] is tried with fewer objects.
    pub async fn page(
        &self,
        of: &Collection,
        from: &str,
        mut limit: usize,
        deadline: Duration,
    ) -> Result<Page, Failure> {
        loop {
            if let Some((bytes, form)) = in_time(deadline, self.some(of, from, limit)).await? {
                return Ok(Page::new(bytes, form, limit));
            }
            if limit <= 1 {
                return Err(Failure::Nonsense("an endless object".to_owned()));
            }
            limit = (limit / FEWER).max(1);
        }
    }

    /// At most `limit` objects; `None` where they are too large together.
    async fn some(
        &self,
        of: &Collection,
        from: &str,
        limit: usize,
    ) -> Result<Option<(Bytes, Form)>, Failure> {
        let query = format!("limit={limit}&continue={}", escaped(from));
        let mut accept = of.accept("PartialObjectMetadataList");
        if of.binary {
            accept.insert_str(0, page::BINARY_FIRST);
        }
        let answer = self.send(of.request(&query, accept)?).await?;
        let form = Form::of(answer.headers());
        match Limited::new(answer.into_body(), LARGEST_PAGE)
            .collect()
            .await
        {
            Ok(body) => Ok(Some((body.to_bytes(), form))),
            Err(error) if error.is::<LengthLimitError>() => Ok(None),
            Err(error) => Err(Failure::Unreachable(causes(error.as_ref()))),
        }
    }

    /// Begins a watch behind a version. The server ends it after `lifetime`.
    pub async fn watch(
        &self,
        of: &Collection,
        version: &str,
        lifetime: Duration,
        deadline: Duration,
    ) -> Result<Events, Failure> {
        let query = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            lifetime.as_secs().max(1),
            escaped(version)
        );
        let accept = of.accept("PartialObjectMetadata");
        let answer = in_time(deadline, async {
            self.send(of.request(&query, accept)?).await
        });
        Ok(Events {
            body: answer.await?.into_body(),
            read: BytesMut::new(),
            given: 0,
            searched: 0,
            is_secret: false,
        })
    }

    /// Whether the API server answers at all. What it says does not matter, unless it says that it
    /// cannot work.
    pub async fn answers(&self, deadline: Duration) -> Result<(), Failure> {
        let request = Request::get("/readyz").body(Body::empty());
        let request = request.map_err(|error| Failure::Nonsense(error.to_string()))?;
        match in_time(deadline, self.send(request)).await {
            Err(Failure::Refused { status, .. }) if status < 500 => Ok(()),
            other => other.map(drop),
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let sent = self.client.send(request).await;
        let answer = sent.map_err(|error| Failure::Unreachable(causes(&error)))?;
        let status = answer.status();
        if matches!(status, StatusCode::OK | StatusCode::CREATED) {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), LONGEST_ERROR);
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let body = body.unwrap_or_default();
        let said = serde_json::from_slice(&body).map(|status: Status| status.message);
        Err(Failure::Refused {
            status: status.as_u16(),
            message: said
                .unwrap_or_else(|_| String::from_utf8_lossy(&body).chars().take(200).collect()),
        })
    }
}

impl Collection {
    /// All objects of a kind, whole.
    #[must_use]
    pub fn every(kind: Kind) -> Self {
        let plural = kind.as_str();
        Self {
            path: if kind.is_ours() {
                format!("/apis/{API_VERSION}/{plural}")
            } else {
                format!("/api/v1/{plural}")
            },
            selector: String::new(),
            metadata_only: false,
            binary: false,
        }
    }

    fn accept(&self, metadata: &str) -> String {
        if self.metadata_only {
            format!("application/json;as={metadata};g=meta.k8s.io;v=v1")
        } else {
            "application/json".to_owned()
        }
    }

    fn request(&self, query: &str, accept: String) -> Result<Request<Body>, Failure> {
        let and = if self.selector.is_empty() { "" } else { "&" };
        Request::get(format!("{}?{}{and}{query}", self.path, self.selector))
            .header(ACCEPT, accept)
            // Not worth its memory on a node; and a compressed watch ends after its first event.
            .header(ACCEPT_ENCODING, "identity")
            .body(Body::empty())
            .map_err(|error| Failure::Nonsense(error.to_string()))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.is_secret {
            self.read.zeroize();
        }
    }
}

impl Events {
    /// The same, for Secrets: what was read is overwritten as soon as the next event is asked for, and
    /// is quoted in no error. A line that came in several pieces may leave copies of its beginning.
    #[must_use]
    pub(super) fn wiped(mut self) -> Self {
        self.is_secret = true;
        self.read.reserve(SECRET_EVENT);
        self
    }

    /// The next event; `None` when the server has ended the watch. A silence longer than `patience`
    /// is an error: the server sends bookmarks when nothing happens.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Event<'_>>, Failure> {
        let given = std::mem::take(&mut self.given);
        if self.is_secret {
            self.read[..given].zeroize();
        }
        self.read.advance(given);
        let line = loop {
            let unseen = &self.read[self.searched..];
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                break self.searched + at + 1;
            }
            self.searched = self.read.len();
            if self.searched > LONGEST_EVENT {
                return Err(Failure::Nonsense("an endless event".to_owned()));
            }
            let frame = in_time(patience, async { Ok(self.body.frame().await) });
            match frame.await? {
                // The rest of a line that was cut off tells nothing.
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::Unreachable(causes(&error))),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
            }
        };
        (self.given, self.searched) = (line, 0);
        let is_secret = self.is_secret;
        let event: Event<'_> = serde_json::from_slice(&self.read[..line]).map_err(|error| {
            Failure::Nonsense(if is_secret {
                "an event that is none".to_owned()
            } else {
                error.to_string()
            })
        })?;
        if event.kind == EventKind::Error {
            let status: Status = serde_json::from_str(event.object.get())
                .map_err(|error| Failure::Nonsense(error.to_string()))?;
            return Err(Failure::Refused {
                status: status.code,
                message: status.message,
            });
        }
        Ok(Some(event))
    }
}

pub(super) async fn in_time<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let ended = tokio::time::timeout(deadline, work).await;
    ended.unwrap_or(Err(Failure::Late(deadline)))
}

/// An error with all that led to it: the first one alone says "client error".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}
