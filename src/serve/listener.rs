//! The accept loop: never dies, never spins, never holds more than it may.
//!
//! Comes in: a listener that its owner has bound (so port 0 and bind errors are his). Goes out: one
//! task for each admitted connection. A refused connection is accepted and closed at once, so that
//! it neither waits nor fills the queue. Ends when the drain has ended and all connections with it.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};

use super::admission::{Admission, Refused};
use super::drain::Drain;
use super::http1::{self, Answer, Shared};
use super::limits::Limits;
use super::metrics::ConnMetrics;

/// How long accepting rests when the kernel is out of something. Connections wait in its queue.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until `drain` has ended. Holds a member token of `drain` meanwhile.
pub fn serve<A: Answer>(
    listener: TcpListener,
    limits: Limits,
    answer: A,
    drain: Drain,
    metrics: ConnMetrics,
) -> impl Future<Output = ()> + Send {
    serve_admitting(
        listener,
        Admission::new(&limits),
        limits,
        answer,
        drain,
        metrics,
    )
}

/// The same, with bounds on connections that are not this listener's alone.
pub fn serve_admitting<A: Answer>(
    listener: TcpListener,
    admission: Arc<Admission>,
    limits: Limits,
    answer: A,
    drain: Drain,
    metrics: ConnMetrics,
) -> impl Future<Output = ()> + Send {
    let member = drain.member();
    // Accepted sockets inherit it from the listener: no system call for each connection.
    if let Err(error) = setsockopt(&listener, sockopt::TcpNoDelay, &true) {
        tracing::warn!(%error, "no TCP_NODELAY: pipelined answers may be slower");
    }
    let server = Server {
        shared: Shared::new(answer, limits, drain, metrics),
        admission,
    };
    async move {
        server.run(listener).await;
        drop(member);
    }
}

struct Server<A> {
    shared: Arc<Shared<A>>,
    admission: Arc<Admission>,
}

impl<A: Answer> Server<A> {
    async fn run(&self, listener: TcpListener) {
        let drain = self.shared.drain.clone();
        tokio::select! {
            () = drain.begun() => {}
            () = self.accept(&listener) => {}
        }
        self.empty_queue(listener);
        tokio::select! {
            () = drain.cut_off() => self.admission.cut(),
            () = self.admission.all_closed() => {}
        }
        self.admission.all_closed().await;
    }

    /// Accepts for ever.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) if of_one_connection(&error) => {}
                Err(error) => {
                    self.shared.metrics.accept_errors.inc();
                    tracing::warn!(%error, "cannot accept connections, trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves what the kernel has accepted already; then the listener is closed.
    fn empty_queue(&self, listener: TcpListener) {
        // The standard listener asks the kernel each time; tokio's would trust its last event.
        let Ok(listener) = listener.into_std() else {
            return;
        };
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let stream = stream
                        .set_nonblocking(true)
                        .and_then(|()| TcpStream::from_std(stream));
                    match stream {
                        Ok(stream) => self.take(stream, peer),
                        Err(error) => tracing::warn!(%error, "lost a connection of the queue"),
                    }
                }
                Err(error) if of_one_connection(&error) => {}
                Err(_) => return, // empty, or nothing can be done in the time left
            }
        }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.shared.metrics.accepted.inc();
        let whose = self.shared.answer.whose(peer).ok_or(Refused::Foreign);
        let ticket = match whose.and_then(|whose| self.admission.admit(whose)) {
            Ok(ticket) => ticket,
            Err(why) => return self.shared.metrics.limited(why).inc(),
        };
        let (id, shared) = (ticket.id(), Arc::clone(&self.shared));
        let task = tokio::spawn(async move {
            let open = OpenGauge::new(shared.metrics.open.clone());
            http1::connection(&shared, stream, peer).await;
            drop((open, ticket));
        });
        self.admission.started(id, task.abort_handle());
    }
}

/// Counts a connection as open, also when its task is cut.
struct OpenGauge(prometheus::IntGauge);

impl OpenGauge {
    fn new(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        OpenGauge(gauge)
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Errors that belong to the connection that could not be accepted, not to the listener.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_inherit_no_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        setsockopt(&listener, sockopt::TcpNoDelay, &true).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        assert!(listener.accept().await.unwrap().0.nodelay().unwrap());
    }

    #[test]
    fn running_out_of_descriptors_is_the_listeners_error() {
        assert!(!of_one_connection(&io::Error::from_raw_os_error(
            nix::libc::EMFILE
        )));
        assert!(!of_one_connection(&io::Error::from_raw_os_error(
            nix::libc::ENOBUFS
        )));
        assert!(of_one_connection(&io::Error::from_raw_os_error(
            nix::libc::ECONNABORTED
        )));
    }
}
