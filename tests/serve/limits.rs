//! Many connections.

use lanyard::serve::Limits;
use lanyard::serve::limits::raise_open_files;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::{PATIENCE, exchange, server};

/// Connects from another loopback address, which the server sees as another peer.
async fn connect_from(source: &str, to: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether the server has closed this connection without a word, by the end of a bounded wait.
async fn closed_at_once(stream: &mut TcpStream) -> bool {
    let mut one = [0];
    matches!(
        timeout(PATIENCE, stream.read(&mut one))
            .await
            .expect("closed"),
        Ok(0) | Err(_)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_and_an_honest_client() {
    let files = raise_open_files().unwrap();
    let count = 10_000;
    assert!(
        files > 2 * 128 + 1000,
        "the hard limit of open files ({files}) is too small for this test: `ulimit -Hn`"
    );
    let server = server(Limits::default()).await;
    let mut held = Vec::new();
    for n in 0..count {
        let mut stream = connect_from("127.0.0.2", server.address).await;
        if n < Limits::default().connections_per_peer {
            held.push(stream);
        } else {
            assert!(
                closed_at_once(&mut stream).await,
                "connection {n} is over the limit"
            );
        }
    }
    let honest = b"GET /honest HTTP/1.1\r\nConnection: close\r\n\r\n";
    exchange(server.address, honest).await.echoes("/honest");
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&server.registry.gather())
        .unwrap();
    let over = count - Limits::default().connections_per_peer;
    let expected =
        format!(r#"lanyard_connections_limited_total{{limit="peer",listener="test"}} {over}"#);
    assert!(text.contains(&expected), "{text}");
}
