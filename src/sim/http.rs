//! Accepting connections and answering them, rightly or with a fault.
//!
//! In: a bound listener, perhaps TLS, and a [`Service`]. Out: HTTP/1.1 with keep-alive, or silence, a reset,
//! a body cut in half. Each connection is a task; all end when `stop` is cancelled. A failed accept
//! (out of descriptors) pauses and goes on.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What becomes of a request.
pub(super) enum Reply {
    /// This answer.
    Answer(Response<Bytes>),
    /// This answer's head and half of its body, then the end of the connection.
    Truncated(Response<Bytes>),
    /// Nothing, for as long as the client waits.
    Silence,
    /// A reset connection.
    Reset,
}

/// Something that answers requests.
pub(super) trait Service: Send + Sync + 'static {
    /// A connection was accepted; it may never bring a request.
    fn connected(&self) {}

    fn answer(
        &self,
        request: Request<Incoming>,
        source: SocketAddr,
    ) -> impl Future<Output = Reply> + Send;
}

/// Serves until `stop` is cancelled, then drops what is still open.
pub(super) async fn serve<S: Service>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: Arc<S>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, source)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        service.connected();
        let (tls, service) = (tls.clone(), service.clone());
        let connection = async move {
            // Small answers in single segments; failure only costs time.
            let _ = stream.set_nodelay(true);
            match tls {
                None => converse(stream, source, service).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, source, service).await;
                    }
                }
            }
        };
        connections.spawn(stop.clone().run_until_cancelled_owned(connection));
    }
    connections.close();
    connections.wait().await;
}

/// A stream with a TCP socket inside, which can be reset.
trait Resettable: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn tcp(&self) -> &TcpStream;

    /// The host name that the client asked for in the TLS handshake.
    fn server_name(&self) -> Option<Sni> {
        None
    }
}

/// Extension of a request over TLS: the handshake's server name indication.
#[derive(Debug, Clone)]
pub(super) struct Sni(pub Arc<str>);

impl Resettable for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Resettable for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn server_name(&self) -> Option<Sni> {
        let name = self.get_ref().1.server_name()?;
        Some(Sni(name.to_ascii_lowercase().into()))
    }
}

/// The service's word that the connection is to be cut.
#[derive(Debug, thiserror::Error)]
#[error("reset by a fault")]
struct Cut;

async fn converse<I: Resettable, S: Service>(stream: I, source: SocketAddr, service: Arc<S>) {
    let server_name = stream.server_name();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let service = service.clone();
        if let Some(name) = &server_name {
            request.extensions_mut().insert(name.clone());
        }
        Box::pin(async move { render(service.answer(request, source).await).await })
    });
    let mut connection = http1::Builder::new()
        .title_case_headers(true)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    let outcome = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let mut stream = connection.into_parts().io.into_inner();
    let cause = outcome.as_ref().err().and_then(Error::source);
    let cut = cause.is_some_and(<dyn Error>::is::<Cut>);
    if cut {
        // With zero linger, closing sends RST instead of FIN.
        let _ = stream.tcp().set_zero_linger();
    } else {
        // The peer may be gone; there is nobody to tell.
        let _ = stream.shutdown().await;
    }
}

async fn render(reply: Reply) -> Result<Response<Either<Full<Bytes>, Half>>, Cut> {
    match reply {
        Reply::Answer(response) => Ok(response.map(|body| Either::Left(Full::new(body)))),
        Reply::Truncated(mut response) => {
            let length = HeaderValue::from(response.body().len());
            response.headers_mut().insert(CONTENT_LENGTH, length);
            Ok(response.map(|body| Either::Right(Half::new(&body))))
        }
        Reply::Silence => std::future::pending().await,
        Reply::Reset => Err(Cut),
    }
}

/// A body that breaks off in the middle.
struct Half {
    first: Option<Bytes>,
    flushed: bool,
}

impl Half {
    fn new(body: &Bytes) -> Self {
        Self {
            first: Some(body.slice(..body.len() / 2)),
            flushed: false,
        }
    }
}

impl Body for Half {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if !self.flushed {
            // One pause, in which hyper writes out what it has, or the client would see nothing.
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::Error::other("truncated by a fault"))))
    }
}

/// The media type of JSON, as Azure writes it.
pub(super) const JSON: &str = "application/json; charset=utf-8";

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Bytes> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    typed(status, JSON, body)
}

/// An answer of any media type.
pub(super) fn typed(
    status: StatusCode,
    media: &'static str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Serves an HTTP service on any other stream, without faults: the control socket.
pub(super) async fn converse_plainly<I, F, Fut>(stream: I, answer: F)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Send,
    Fut: Future<Output = Response<Bytes>> + Send,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await.map(Full::new)) }
    });
    // A client that goes away is no fault of ours.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
