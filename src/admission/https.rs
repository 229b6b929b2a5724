//! HTTP/1.1 over TLS for few, trusted, long-lived clients: the API servers and kubelet.
//!
//! In: a bound listener, a TLS configuration and an [`Answer`]. Out: answers. Blocks on nothing that a
//! client can prolong: bounded connections, a deadline for the handshake, for each request's head and for
//! an answer to be taken.
//! Ends with the drain: connections end with their next answer, or when they are cut.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use prometheus::IntCounter;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::spaced::Spaced;
use crate::serve::admission::Admission;
use crate::serve::{Answer, Drain, Limits};

/// Connections at once, and those of one address; one more is closed at once. An API server keeps a few, and
/// opens one for each request beyond these: as many as it works on at once (200 that write, unless told
/// otherwise), or two servers' where they share a tunnel. But whoever else comes to this port must not be
/// able to take all of them.
const CONNECTIONS: usize = 1024;
const OF_ONE_ADDRESS: usize = 448;
/// For the handshake.
const HEAD: Duration = Duration::from_secs(5);
/// For the next request and its head. API servers close what they do not use before.
const IDLE: Duration = Duration::from_secs(150);
/// For what was sent to be taken, in milliseconds; then the kernel ends the connection.
const UNTAKEN: u32 = 10_000;
const PAUSE: Duration = Duration::from_millis(100);
static NO_TLS: Spaced = Spaced::new();

/// Serves until `drain` has ended.
pub(super) async fn serve<A: Answer>(
    listener: TcpListener,
    tls: ServerConfig,
    answer: A,
    drain: Drain,
    without_tls: IntCounter,
) {
    let (tls, answer) = (TlsAcceptor::from(Arc::new(tls)), Arc::new(answer));
    let room = room();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Ok(room) = room.admit(peer.ip().to_canonical()) else {
                        tracing::debug!(%peer, "too many connections");
                        continue;
                    };
                    let (tls, answer) = (tls.clone(), Arc::clone(&answer));
                    let (member, drain) = (drain.member(), drain.clone());
                    let without_tls = without_tls.clone();
                    tokio::spawn(async move {
                        let talk = async {
                            match handshake(stream, peer, &tls).await {
                                Some(stream) => connection(stream, peer, answer, &drain).await,
                                None => without_tls.inc(),
                            }
                        };
                        tokio::select! {
                            () = talk => {}
                            () = drain.cut_off() => {}
                        }
                        drop((room, member));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections, trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = drain.begun() => {}
        () = accept => {}
    }
}

/// Nobody is connected.
fn room() -> Arc<Admission> {
    Admission::new(&Limits {
        connections: CONNECTIONS,
        connections_per_peer: OF_ONE_ADDRESS,
        ..Limits::default()
    })
}

/// The stream within the TLS; `None`: they did not agree on any.
async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &TlsAcceptor,
) -> Option<TlsStream<TcpStream>> {
    if let Err(error) = setsockopt(&stream, sockopt::TcpUserTimeout, &UNTAKEN) {
        tracing::debug!(%peer, %error, "no deadline for what the client does not take");
    }
    match tokio::time::timeout(HEAD, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        // An API server that does not trust the certificate says so here, and nowhere else.
        Ok(Err(error)) if NO_TLS.passes() => tracing::warn!(%peer, %error, "no TLS with a client"),
        Ok(Err(_)) => {}
        Err(_) => tracing::debug!(%peer, "a client began no TLS"),
    }
    None
}

async fn connection<A: Answer>(
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    answer: Arc<A>,
    drain: &Drain,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move { Ok::<_, Infallible>(answer.answer(peer, request).await) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(http);
    let served = tokio::select! {
        served = http.as_mut() => served,
        () = drain.begun() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_connection() {
        let room = room();
        let from = |n: u8| std::net::IpAddr::from([10, 0, 0, n]);
        let flood: Vec<_> = (0..CONNECTIONS).map(|_| room.admit(from(1))).collect();
        assert_eq!(flood.iter().flatten().count(), OF_ONE_ADDRESS);
        assert!(room.admit(from(2)).is_ok());
    }
}
