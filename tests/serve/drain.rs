//! The end of a listener: what was begun is finished, what hangs is cut, a second signal is obeyed.

use std::future::pending;
use std::time::Duration;

use lanyard::serve::drain::Ended;
use lanyard::serve::{Drain, Limits, signals};
use nix::sys::signal::{Signal, raise};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::harness::{PATIENCE, one_answer, server, server_on, to_end};

const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn what_is_in_flight_is_answered_and_then_closed() {
    let server = server(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /hold HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    timeout(PATIENCE, server.echo.held.cancelled())
        .await
        .unwrap();
    server.drain.begin();
    server.echo.release.cancel();
    let answer = to_end(&mut stream).await;
    answer.echoes("/hold");
    assert!(answer.0.contains("connection: close"), "{answer:?}");
    server.ended().await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_one_more_answer_and_nobody_new_comes_in() {
    let server = server(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /one HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    one_answer(&mut stream).await.echoes("/one");
    server.drain.begin();
    // Phase 1 has reached the listener when it refuses.
    let refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("a closed listener");
    stream
        .write_all(b"GET /two HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let answer = to_end(&mut stream).await;
    answer.echoes("/two");
    assert!(answer.0.contains("connection: close"), "{answer:?}");
    server.ended().await;
}

#[tokio::test]
async fn what_waits_in_the_accept_queue_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        stream
            .write_all(b"GET /queued HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        waiting.push(stream);
    }
    let drain = Drain::new();
    drain.begin();
    let server = server_on(listener, drain, Limits::default());
    for mut stream in waiting {
        to_end(&mut stream).await.echoes("/queued");
    }
    server.ended().await;
}

#[tokio::test]
async fn what_hangs_is_cut_at_the_deadline() {
    let server = server(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /hold HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    timeout(PATIENCE, server.echo.held.cancelled())
        .await
        .unwrap();
    let complete = server.drain.complete(Duration::from_millis(100), pending());
    assert_eq!(timeout(PATIENCE, complete).await.unwrap(), Ended::Deadline);
    assert_eq!(to_end(&mut stream).await.0, "");
    assert!(
        server
            .scrape()
            .contains(r#"lanyard_connections_open{listener="test"} 0"#)
    );
    server.ended().await;
}

/// The only test that raises signals: they are the whole process's.
#[tokio::test]
async fn the_first_signal_drains_and_the_second_ends_at_once() {
    let signals = signals().unwrap();
    let server = server(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /hold HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    timeout(PATIENCE, server.echo.held.cancelled())
        .await
        .unwrap();

    raise(Signal::SIGTERM).unwrap();
    timeout(PATIENCE, signals.first.cancelled())
        .await
        .expect("the first signal");
    assert!(!signals.second.is_cancelled());
    let complete = server
        .drain
        .complete(LONG, signals.second.clone().cancelled_owned());
    let second = async {
        server.drain.begun().await;
        raise(Signal::SIGINT).unwrap();
    };
    let (ended, ()) = timeout(PATIENCE, async { tokio::join!(complete, second) })
        .await
        .unwrap();
    assert_eq!(ended, Ended::Hurried);
    server.ended().await;
}
