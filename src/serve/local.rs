//! Pages over a unix socket: for who is in the same container, without an address or a port.
//!
//! In: a path. Out: a bound [`UnixListener`] that only its owner may connect to, and an accept loop.
//! Blocks on nothing that a client can prolong: few connections, one deadline for each. To an
//! [`Answer`] such a peer looks like loopback, which is what it is; the request's extensions say which
//! process it was ([`PeerProcess`]). Invariant: the socket is never there with wider rights, and a left-over of a dead
//! process does not hinder the next.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::drain::Drain;
use super::http1::Answer;

/// The whole life of a connection.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Who is at the other end, as the kernel noted it when the connection was made (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProcess {
    /// Its user, in our user namespace: one that has no number in it is the overflow user's.
    pub uid: u32,
    /// The process; `None` where our process namespace does not show it.
    pub pid: Option<i32>,
}

/// Makes sure that `folder` is there, is ours, and that nobody else may enter it. One that holds anything but the socket
/// `name` is left as it is: an error says so.
pub fn own_folder(folder: &Path, name: &str) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != Uid::effective().as_raw() {
        return refused("its folder is not a folder of this process's user");
    }
    if found.mode() & 0o777 == 0o700 {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?.file_name();
        if entry != name && *entry != *format!("{name}.new") {
            return refused(
                "its folder is open to others and holds other things: give it one of its own",
            );
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// Binds at `path` with mode 0600; what is there already is replaced in one step.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    place(path, |path| UnixListener::bind(path))
}

/// The same for any kind of unix socket.
pub fn place<L>(path: &Path, bind: impl FnOnce(&Path) -> io::Result<L>) -> io::Result<L> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Serves until `drain` is cut: health is asked for until the very end. So many connections at once; more wait in the
/// kernel's queue. Those that are open are members of `drain`.
pub async fn serve<A: Answer>(listener: UnixListener, connections: usize, answer: A, drain: Drain) {
    let (answer, room) = (Arc::new(answer), Arc::new(Semaphore::new(connections)));
    let accept = async {
        loop {
            let Ok(room) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (answer, drain) = (Arc::clone(&answer), drain.clone());
                    let member = drain.member();
                    tokio::spawn(async move {
                        let served = tokio::time::timeout(DEADLINE, connection(stream, answer));
                        tokio::select! {
                            () = drain.cut_off() => {}
                            _ = served => {}
                        }
                        drop((room, member));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept at a unix socket, trying again");
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
    let peer = stream.peer_cred().ok().map(|peer| PeerProcess {
        uid: peer.uid(),
        pid: peer.pid(),
    });
    let service = service_fn(|mut request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        async move { Ok::<_, Infallible>(answer.answer(PEER, request).await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection at a unix socket ended early");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::Response;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::serve::drain::Ended;

    /// Says who asks, when it is let.
    struct Held(Arc<Semaphore>);

    impl Answer for Held {
        async fn answer(&self, _: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
            let _let = self.0.acquire().await;
            let who = request.extensions().get::<PeerProcess>();
            Response::new(Full::new(format!("{who:?}").into()))
        }
    }

    async fn asks(path: &Path) -> UnixStream {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn an_answer_under_way_is_waited_for_and_says_who_asks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (drain, gate) = (Drain::new(), Arc::new(Semaphore::new(0)));
        let listener = bind(&path).unwrap();
        tokio::spawn(serve(listener, 4, Held(gate.clone()), drain.clone()));
        let mut stream = asks(&path).await;
        // Taken, and so a member.
        let taken = async {
            while drain.members() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, taken).await.unwrap();
        let ending = tokio::spawn({
            let drain = drain.clone();
            async move { drain.complete(DEADLINE, std::future::pending()).await }
        });
        drain.begun().await;
        assert!(!ending.is_finished());
        gate.add_permits(1);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let uid = format!("uid: {}", Uid::effective());
        assert!(answer.contains(&uid), "{answer}");
        assert_eq!(ending.await.unwrap(), Ended::Empty);
    }

    #[tokio::test]
    async fn what_is_not_answered_by_then_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (drain, gate) = (Drain::new(), Arc::new(Semaphore::new(0)));
        let listener = bind(&path).unwrap();
        tokio::spawn(serve(listener, 4, Held(gate), drain.clone()));
        let mut stream = asks(&path).await;
        let taken = async {
            while drain.members() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, taken).await.unwrap();
        let ended = drain.complete(Duration::from_millis(20), std::future::pending());
        assert_eq!(ended.await, Ended::Deadline);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer));
        assert!(matches!(read.await.unwrap(), Ok(0) | Err(_)));
    }

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

    #[test]
    fn a_folder_of_ones_own_is_closed_and_no_others() {
        let top = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let own = top.path().join("own");
        own_folder(&own, "s").unwrap();
        assert_eq!(mode(&own), 0o700);
        // As kubelet makes one, and with what a dead process left.
        for name in ["s", "s.new"] {
            fs::set_permissions(&own, Permissions::from_mode(0o755)).unwrap();
            fs::write(own.join(name), "").unwrap();
            own_folder(&own, "s").unwrap();
            assert_eq!(mode(&own), 0o700, "{name}");
        }
        let shared = top.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
        fs::write(shared.join("somebody's"), "").unwrap();
        let told = own_folder(&shared, "s").unwrap_err().to_string();
        assert!(told.contains("one of its own"), "{told}");
        assert_eq!(mode(&shared), 0o755, "it is not ours to close");
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(own_folder(&link, "s").is_err());
        assert!(own_folder(&top.path().join("none/own"), "s").is_err());
    }
}
