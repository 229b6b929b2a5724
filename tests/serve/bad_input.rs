//! Bytes that are no request: a JSON error with the right status, at once, and the next client is
//! served as ever.

use std::time::Duration;

use lanyard::serve::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{exchange, one_answer, server, to_end};

/// Sends `bytes`, wants `status`, and an honest client served afterwards.
async fn refused(bytes: &[u8], status: u16) {
    // The head's deadline cannot be what ends these: it is longer than the test waits.
    let limits = Limits {
        head: Duration::from_hours(1),
        ..Limits::default()
    };
    let server = server(limits).await;
    exchange(server.address, bytes).await.is_json_error(status);
    let honest = b"GET /honest HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    exchange(server.address, honest).await.echoes("/honest");
}

#[tokio::test]
async fn garbage_is_400() {
    refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400).await;
    refused(b"hello\r\n\r\n", 400).await;
    refused(b"GET / HTTP/7.9\r\n\r\n", 400).await;
    refused(b"GET / HTTP/1.1\r\nno colon here\r\n\r\n", 400).await;
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400).await;
}

#[tokio::test]
async fn bytes_that_are_not_utf8_in_the_target_are_400() {
    refused(
        b"GET /metadata/\xff\xfe?x=\xc3\x28 HTTP/1.1\r\nHost: x\r\n\r\n",
        400,
    )
    .await;
}

#[tokio::test]
async fn contradicting_lengths_are_400() {
    let both = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx";
    refused(both, 400).await;
    refused(b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nx", 400).await;
}

#[tokio::test]
async fn a_query_of_64_kib_is_414() {
    for length in [60 * 1024, 64 * 1024, 70 * 1024] {
        let query = "q".repeat(length);
        refused(
            format!("GET /?{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
            414,
        )
        .await;
    }
}

#[tokio::test]
async fn too_many_and_too_long_headers_are_431() {
    let many = "X: y\r\n".repeat(200);
    refused(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes(), 431).await;
    let long = "y".repeat(400 * 1024);
    refused(
        format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n").as_bytes(),
        431,
    )
    .await;
}

#[tokio::test]
async fn a_head_that_ends_early_is_400() {
    let server = server(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    stream.shutdown().await.unwrap();
    to_end(&mut stream).await.is_json_error(400);
}

#[tokio::test]
async fn a_bad_request_behind_a_good_one_gets_its_error_after_the_answer() {
    let server = server(Limits::default()).await;
    for first in ["GET", "HEAD"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let both = format!("{first} /good HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n");
        stream.write_all(both.as_bytes()).await.unwrap();
        let all = to_end(&mut stream).await.0;
        assert!(all.starts_with("HTTP/1.1 200 OK"), "{all:?}");
        let error = all.rfind("HTTP/1.1 ").unwrap();
        assert_ne!(error, 0, "{all:?}");
        crate::harness::Answered(all[error..].to_owned()).is_json_error(400);
    }
}

#[tokio::test]
async fn slow_headers_are_408_and_a_silent_client_too() {
    let server = server(Limits {
        head: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    for sent in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET /a HTT"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        to_end(&mut stream).await.is_json_error(408);
    }
    // The same on a connection that has been answered before.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    one_answer(&mut stream).await.echoes("/one");
    stream.write_all(b"GET /two HTTP/1.1\r\n").await.unwrap();
    to_end(&mut stream).await.is_json_error(408);
}

#[tokio::test]
async fn a_trickle_does_not_extend_the_deadline() {
    let server = server(Limits {
        head: Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    let (mut read, mut write) = TcpStream::connect(server.address)
        .await
        .unwrap()
        .into_split();
    let trickle = tokio::spawn(async move {
        write.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        // Ends when the server has closed.
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut all = String::new();
    let reading = tokio::io::AsyncReadExt::read_to_string(&mut read, &mut all);
    // A reset may end the trickle's connection after the answer was read.
    let _ = tokio::time::timeout(crate::harness::PATIENCE, reading)
        .await
        .expect("an end");
    crate::harness::Answered(all).is_json_error(408);
    trickle.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_never_comes_is_503() {
    let server = server(Limits {
        answer: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    exchange(server.address, b"GET /hold HTTP/1.1\r\n\r\n")
        .await
        .is_json_error(503);
}
