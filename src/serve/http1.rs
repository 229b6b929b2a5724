//! One connection: hyper's HTTP/1 server with deadlines, and an end that the client can read.
//!
//! Comes in: an admitted stream and the [`Answer`] of the listener. Goes out: one answer for each
//! request, in order. Blocks on the client only as long as [`Limits`] say. Invariants: no client is
//! left silent (408, 503, a JSON error or a close), and an error is not destroyed by a reset because
//! bytes of the client were left unread.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::admission::Peer;
use super::drain::Drain;
use super::limits::Limits;
use super::metrics::ConnMetrics;
use super::refusal::Refusal;
use super::stream::{Phase, Progress, Watched};

/// What a client may still send after the last answer, for that answer to survive.
const LINGER_BYTES: usize = 1024 * 1024;
/// How long it may take to send that.
const LINGER: Duration = Duration::from_secs(2);

/// A product's side of a listener: one answer for each request.
pub trait Answer: Send + Sync + 'static {
    /// Answers `request` of `peer` (an IPv4 peer is never shown as mapped IPv6). The body of the
    /// request need not be read. The answer has a body and a content type; its length is added.
    fn answer(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;

    /// With whose other connections one of `peer`'s is counted; `None`: it is closed at once. Must not wait.
    fn whose(&self, peer: SocketAddr) -> Option<Peer> {
        Some(Peer::Address(peer.ip()))
    }
}

/// What every connection of a listener shares.
pub(crate) struct Shared<A> {
    pub(crate) answer: A,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) metrics: ConnMetrics,
    http: http1::Builder,
}

impl<A: Answer> Shared<A> {
    pub(crate) fn new(answer: A, limits: Limits, drain: Drain, metrics: ConnMetrics) -> Arc<Self> {
        let mut http = http1::Builder::new();
        // Flat writes: an error of hyper's is then always the tail of one buffer (see `stream`).
        http.half_close(true)
            .max_buf_size(limits.head_bytes)
            .header_read_timeout(None)
            .writev(false);
        Arc::new(Shared {
            answer,
            limits,
            drain,
            metrics,
            http,
        })
    }
}

/// Serves one connection to its end.
pub(crate) async fn connection<A: Answer>(shared: &Shared<A>, stream: TcpStream, peer: SocketAddr) {
    // hyper takes a buffer as soon as it is polled; a client that sends nothing gets none.
    let first_byte = timeout(shared.limits.head, stream.readable()).await;
    if first_byte.is_err() {
        return end(shared, stream, Some(Refusal::HeadTimeout), false).await;
    }
    let progress = Progress::default();
    let service = service_fn(|request: Request<Incoming>| {
        progress.enter(Phase::Answering);
        if !request.body().is_end_stream() {
            progress.note_body();
        }
        async {
            let mut response = shared.answer.answer(peer, request).await;
            if shared.drain.is_draining() {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = shared
        .http
        .serve_connection(Watched::new(stream, &progress), service);
    let ending = drive(Pin::new(&mut http), &progress, &shared.limits).await;
    let parts = http.into_parts();
    let refusal = match ending {
        Ending::TimedOut(Phase::Head) => Some(Refusal::HeadTimeout),
        Ending::TimedOut(Phase::Idle) if !parts.read_buf.is_empty() => Some(Refusal::HeadTimeout),
        Ending::TimedOut(Phase::Answering) => Some(Refusal::AnswerTimeout),
        Ending::TimedOut(_) => None,
        Ending::Http(outcome) => refusal_of(outcome, &progress, &parts.read_buf),
    };
    let unread = progress.had_body() || !parts.read_buf.is_empty();
    end(shared, parts.io.into_inner(), refusal, unread).await;
}

enum Ending {
    Http(hyper::Result<()>),
    TimedOut(Phase),
}

/// Polls the connection, and one timer beside it. The timer is moved only when it would fire too
/// late, so that a request on a busy connection costs a clock reading and no timer operation.
async fn drive<C>(mut http: Pin<&mut C>, progress: &Progress, limits: &Limits) -> Ending
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut deadline = Instant::now() + limits.head;
    let mut turn = progress.turn();
    let mut timer = pin!(sleep_until(deadline));
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = http.as_mut().poll(cx) {
            return Poll::Ready(Ending::Http(outcome));
        }
        if turn != progress.turn() {
            turn = progress.turn();
            deadline = Instant::now() + allowance(progress.phase(), limits);
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
        }
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if timer.deadline() >= deadline {
                return Poll::Ready(Ending::TimedOut(progress.phase()));
            }
            timer.as_mut().reset(deadline);
        }
    })
    .await
}

fn allowance(phase: Phase, limits: &Limits) -> Duration {
    match phase {
        Phase::Head => limits.head,
        Phase::Answering => limits.answer,
        Phase::Writing => limits.write,
        Phase::Idle => limits.idle,
    }
}

/// What hyper's end of the connection means for the client, if it is owed an error.
fn refusal_of(outcome: hyper::Result<()>, progress: &Progress, unparsed: &[u8]) -> Option<Refusal> {
    let error = outcome.err()?;
    match progress.held_back() {
        Some(431) if unparsed.contains(&b'\n') => Some(Refusal::HeadersTooLarge),
        // 431 without the end of even one line: it is the request line that is too long.
        Some(414 | 431) => Some(Refusal::TargetTooLong),
        Some(_) => Some(Refusal::Malformed),
        None if error.is_parse() => Some(Refusal::Malformed),
        None if error.is_incomplete_message() => Some(Refusal::Truncated),
        None => None, // the peer is gone
    }
}

/// Sends what is owed, and closes so that it arrives: a close with unread bytes in the socket is a
/// reset, which may overtake the answer.
async fn end<A>(shared: &Shared<A>, mut stream: TcpStream, owed: Option<Refusal>, unread: bool) {
    if let Some(refusal) = owed {
        shared.metrics.refused(refusal).inc();
        let wire = refusal.wire();
        match timeout(LINGER, stream.write_all(wire.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let more = matches!(stream.try_read(&mut [0]), Ok(1));
    if owed.is_some() || unread || more {
        linger(stream).await;
    }
}

async fn linger(mut stream: TcpStream) {
    let swallow = async {
        stream.shutdown().await?;
        // On the heap: each connection's task would have room for it from its start.
        let mut scrap = vec![0; 4096];
        let mut left = LINGER_BYTES;
        loop {
            match stream.read(&mut scrap).await? {
                0 => return Ok(()),
                read => match left.checked_sub(read) {
                    Some(rest) => left = rest,
                    None => return Ok::<(), std::io::Error>(()),
                },
            }
        }
    };
    // Whatever comes of it, the connection is at its end.
    let _ = timeout(LINGER, swallow).await;
}
