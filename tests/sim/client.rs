//! A client with no opinions: bytes out, bytes in, so that what is on the wire is what is tested.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer as it was on the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let split = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(bytes[..split].to_vec()).expect("text");
        let status = head[9..12].parse().expect("a status");
        Self {
            status,
            head,
            body: bytes[split + 4..].to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (other, value) = line.split_once(": ")?;
            other.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Sends one request on a connection of its own and reads to the end of the connection.
pub async fn send(address: SocketAddr, request: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("an end within 20 s")?;
    Ok(bytes)
}

/// A request with these header lines.
pub async fn request(address: SocketAddr, method: &str, target: &str, headers: &str) -> Answer {
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}Connection: close\r\n\r\n"
    );
    Answer::parse(&send(address, &text).await.expect("an answer"))
}

/// A GET with the Metadata header.
pub async fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, "Metadata: true\r\n").await
}

/// The token path with `query` behind api-version and resource.
pub fn token_target(query: &str) -> String {
    format!(
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net{query}"
    )
}
