//! The smallest HTTP client: one request, one connection, the whole answer as text.
//!
//! In: a target and headers, or raw bytes. Out: status, head and body. Blocks up to its limit.
//! Invariant: it sends exactly what it is told (no normalising), so that tests can send bad input.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{LabError, Namespace};

const LARGEST: u64 = 64 << 20;

/// A GET request.
#[derive(Clone, Debug)]
pub struct Get {
    target: String,
    headers: Vec<(String, String)>,
    limit: Duration,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Status line and headers as sent.
    pub head: String,
    /// The body; bytes that are not UTF-8 are replaced.
    pub body: String,
}

impl Get {
    /// A request for `target`, byte for byte (`/path?query`).
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            headers: Vec::new(),
            limit: Duration::from_secs(30),
        }
    }

    /// A token request to IMDS for `resource` with the Metadata header.
    pub fn token(resource: &str) -> Self {
        let path = "/metadata/identity/oauth2/token?api-version=2018-02-01";
        Self::new(format!("{path}&resource={resource}")).header("Metadata", "true")
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another limit for the whole exchange than 30 s.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends it from the calling thread's namespace.
    pub async fn send(&self, to: SocketAddrV4) -> io::Result<Reply> {
        let mut bytes = format!("GET {} HTTP/1.1\r\nHost: {to}\r\n", self.target);
        for (name, value) in &self.headers {
            // Writing to a String does not fail.
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
        bytes.push_str("Connection: close\r\n\r\n");
        exchange(to, bytes.as_bytes(), self.limit).await
    }
}

/// Sends raw bytes and reads until the other side closes.
async fn exchange(to: SocketAddrV4, bytes: &[u8], limit: Duration) -> io::Result<Reply> {
    let talk = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(bytes).await?;
        let mut answer = Vec::new();
        stream.take(LARGEST).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no complete answer in time");
    let answer = tokio::time::timeout(limit, talk)
        .await
        .map_err(|_| late())??;
    parse(&answer).ok_or_else(|| {
        let text = String::from_utf8_lossy(&answer)
            .chars()
            .take(80)
            .collect::<String>();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not an HTTP answer: {text:?}"),
        )
    })
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    Some(Reply {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

impl Reply {
    /// A header's value, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .next()
    }
}

impl Namespace {
    /// Sends `request` from inside the namespace.
    pub async fn get(&self, to: SocketAddrV4, request: &Get) -> Result<Reply, LabError> {
        let (request, what) = (request.clone(), format!("GET {to} from {}", self.name()));
        self.run(async move || request.send(to).await)
            .await?
            .map_err(LabError::io(what))
    }

    /// Sends raw bytes from inside the namespace and reads until the other side closes.
    pub async fn raw(
        &self,
        to: SocketAddrV4,
        bytes: Vec<u8>,
        limit: Duration,
    ) -> Result<Reply, LabError> {
        let what = format!("raw request to {to} from {}", self.name());
        let exchange = self.run(async move || exchange(to, &bytes, limit).await);
        exchange.await?.map_err(LabError::io(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let reply = parse(b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n\r\n{}").unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (503, "{}"));
        assert_eq!(reply.header("retry-after"), Some("3"));
        assert_eq!(reply.header("server"), None);
        assert!(parse(b"").is_none() && parse(b"SSH-2.0\r\n\r\n").is_none());
    }
}
