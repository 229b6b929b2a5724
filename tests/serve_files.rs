//! A process that runs out of file descriptors goes on serving. Alone in its binary: the limit is
//! the whole process's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use lanyard::serve::limits::raise_open_files;
use lanyard::serve::{Answer, ConnMetrics, Drain, Limits, serve};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

struct Fixed;

impl Answer for Fixed {
    async fn answer(&self, _: SocketAddr, _: Request<Incoming>) -> Response<Full<Bytes>> {
        Response::builder()
            .header("content-type", "text/plain")
            .body(Full::new(Bytes::from_static(b"served")))
            .unwrap()
    }
}

#[tokio::test]
async fn without_descriptors_connections_wait_and_are_served_when_there_are_some() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = ConnMetrics::new(&Registry::new(), "test").unwrap();
    let sockets: Vec<TcpSocket> = (0..20).map(|_| TcpSocket::new_v4().unwrap()).collect();
    // Room for three connections of the server, then EMFILE.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let highest = sockets.iter().map(AsRawFd::as_raw_fd).max().unwrap();
    setrlimit(
        Resource::RLIMIT_NOFILE,
        u64::try_from(highest).unwrap() + 4,
        hard,
    )
    .unwrap();

    let start = Instant::now();
    tokio::spawn(serve(
        listener,
        Limits::default(),
        Fixed,
        Drain::new(),
        metrics.clone(),
    ));
    let mut clients = Vec::new();
    for socket in sockets {
        clients.push(socket.connect(address).await.unwrap());
    }
    let errors = async {
        while metrics.accept_errors.get() < 3 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, errors).await.expect("accept errors");
    // It rests 100 ms after each error, however long this took.
    let most = start.elapsed().as_millis() / 100 + 1;
    assert!(
        u128::from(metrics.accept_errors.get()) <= most,
        "{metrics:?} in {most} pauses"
    );
    assert!(metrics.accepted.get() < 20, "the limit was not met");

    for client in &mut clients {
        client
            .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
    }
    for mut client in clients {
        let mut answer = String::new();
        timeout(PATIENCE, client.read_to_string(&mut answer))
            .await
            .expect("served")
            .unwrap();
        assert!(answer.ends_with("served"), "{answer:?}");
    }
    assert_eq!(raise_open_files().unwrap(), hard);
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
}
