//! HTTP/1 as clients have spoken it for thirty years.

use std::fmt::Write;
use std::time::Duration;

use lanyard::serve::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{exchange, one_answer, server, to_end};

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = server(Limits::default()).await;
    let mut all = String::new();
    for n in 0..50 {
        write!(all, "GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    all += "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answered = exchange(server.address, all.as_bytes()).await;
    let asked: Vec<&str> = answered
        .0
        .split(r#"{"asked":""#)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let expected: Vec<String> = (0..50)
        .map(|n| format!("/{n}"))
        .chain(["/last".to_owned()])
        .collect();
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn http_1_0_closes_unless_it_asks_to_keep_alive() {
    let server = server(Limits::default()).await;
    let closed = exchange(server.address, b"GET /old HTTP/1.0\r\n\r\n").await;
    closed.echoes("/old");
    assert!(closed.0.starts_with("HTTP/1.0 200"), "{closed:?}");

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for target in ["/a", "/b"] {
        let request = format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = one_answer(&mut stream).await;
        answer.echoes(target);
        assert!(answer.0.contains("connection: keep-alive"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_with_a_get_is_ignored_also_a_long_one_and_one_that_never_comes() {
    // No deadline can be what answers here.
    let hour = Duration::from_hours(1);
    let server = server(Limits {
        head: hour,
        idle: hour,
        ..Limits::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let with_body = b"GET /body HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
    stream.write_all(with_body).await.unwrap();
    one_answer(&mut stream).await.echoes("/body");
    // The body is not taken for a request, and the connection lives.
    stream
        .write_all(b"GET /next HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    one_answer(&mut stream).await.echoes("/next");

    let long = vec![b'x'; 300_000];
    let mut bytes = b"GET /long HTTP/1.1\r\nContent-Length: 300000\r\n\r\n".to_vec();
    bytes.extend_from_slice(&long);
    exchange(server.address, &bytes).await.echoes("/long");

    let never = b"GET /never HTTP/1.1\r\nContent-Length: 1000\r\n\r\n";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(never).await.unwrap();
    one_answer_then_close(&mut stream, "/never").await;

    let chunked =
        b"POST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(chunked).await.unwrap();
    one_answer(&mut stream).await.echoes("/chunked");
}

async fn one_answer_then_close(stream: &mut TcpStream, target: &str) {
    to_end(stream).await.echoes(target);
}

#[tokio::test]
async fn a_client_that_half_closes_is_still_answered() {
    let server = server(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /half HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    to_end(&mut stream).await.echoes("/half");
}

#[tokio::test]
async fn an_idle_connection_is_closed_silently_and_each_answer_extends_its_time() {
    // Long against the pauses below, so that a slow machine does not miss it.
    let idle = Duration::from_secs(2);
    let server = server(Limits {
        idle,
        head: Duration::from_hours(1),
        ..Limits::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let start = tokio::time::Instant::now();
    let mut last = start;
    while start.elapsed() < idle * 2 {
        last = tokio::time::Instant::now();
        stream
            .write_all(b"GET /again HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        one_answer(&mut stream).await.echoes("/again");
        tokio::time::sleep(idle / 6).await;
    }
    assert_eq!(to_end(&mut stream).await.0, "");
    assert!(last.elapsed() >= idle, "closed after {:?}", last.elapsed());
}
