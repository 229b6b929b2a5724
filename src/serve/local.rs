//! Pages over a unix socket: for who is in the same container, without an address or a port.
//!
//! In: a path. Out: a bound [`UnixListener`] that only its owner may connect to, and an accept loop.
//! Blocks on nothing that a client can prolong: few connections, one deadline for each. To an
//! [`Answer`] such a peer looks like loopback, which is what it is. Invariant: the socket is never
//! there with wider rights, and a left-over of a dead process does not hinder the next.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::drain::Drain;
use super::http1::Answer;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// The whole life of a connection.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Binds at `path` with mode 0600; what is there already is replaced in one step.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Serves until `drain` is cut: health is asked for until the very end.
pub async fn serve<A: Answer>(listener: UnixListener, answer: A, drain: Drain) {
    let (answer, room) = (Arc::new(answer), Arc::new(Semaphore::new(CONNECTIONS)));
    let accept = async {
        loop {
            let Ok(room) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answer = Arc::clone(&answer);
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(DEADLINE, connection(stream, answer)).await;
                        drop(room);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept at the health socket, trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = drain.cut_off() => {}
        () = accept => {}
    }
}

async fn connection<A: Answer>(stream: UnixStream, answer: Arc<A>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move { Ok::<_, Infallible>(answer.answer(PEER, request).await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection at the health socket ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_connect_and_a_left_over_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        drop(bind(&path).unwrap());
        assert!(path.exists(), "as a killed process leaves it");
        let _listener = bind(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        UnixStream::connect(&path).await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
