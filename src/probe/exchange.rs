//! One request over one connection, on the calling thread.
//!
//! In: where to, which target, which headers. Out: what came back, or how nothing did. Blocks up to
//! the deadline of the whole exchange. Invariant: it sends what it is told byte for byte (nothing is
//! normalised), and reads no more than [`LARGEST`] bytes.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// No answer to these questions is longer.
const LARGEST: usize = 4 << 20;

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// An HTTP answer.
    Reply {
        /// Its status.
        status: u16,
        /// Its body; bytes that are not UTF-8 are replaced.
        body: String,
        /// Seconds of `Retry-After`, if it has one.
        retry_after: Option<u64>,
    },
    /// Nobody listens, or a rule refuses.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// Anything else, in the system's words.
    Failed(String),
}

/// A GET request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Path and query, byte for byte.
    pub target: &'a str,
    /// Whether to send `Metadata: true`.
    pub metadata: bool,
    /// For the whole exchange.
    pub within: Duration,
}

impl Request<'_> {
    /// Sends it to an address.
    pub fn tcp(self, to: SocketAddrV4) -> Answered {
        let end = Instant::now() + self.within;
        let talk = || {
            let stream = TcpStream::connect_timeout(&to.into(), self.within)?;
            exchange(
                &stream,
                &self.bytes(&to.ip().to_string()),
                |left| stream.set_read_timeout(Some(left)),
                end,
            )
        };
        talk().map_or_else(|error| failed(&error), |answer| parse(&answer))
    }

    /// Connects only: whether anybody would listen.
    pub fn knock(to: SocketAddrV4, within: Duration) -> Option<Answered> {
        TcpStream::connect_timeout(&to.into(), within)
            .err()
            .map(|error| failed(&error))
    }

    fn bytes(&self, host: &str) -> String {
        let mut bytes = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n", self.target);
        if self.metadata {
            bytes.push_str("Metadata: true\r\n");
        }
        let _ = write!(
            bytes,
            "User-Agent: lanyard-probe\r\nConnection: close\r\n\r\n"
        );
        bytes
    }
}

/// Asks for a page at a unix socket; its status and text.
pub fn page(socket: &Path, target: &str, within: Duration) -> io::Result<(u16, String)> {
    let end = Instant::now() + within;
    let request = Request {
        target,
        metadata: false,
        within,
    };
    // Connecting to a unix socket waits for nobody but a full queue; that is an agent in trouble.
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(within))?;
    let answer = exchange(
        &stream,
        &request.bytes("localhost"),
        |left| stream.set_read_timeout(Some(left)),
        end,
    )?;
    match parse(&answer) {
        Answered::Reply { status, body, .. } => Ok((status, body)),
        other => Err(io::Error::other(format!("no HTTP answer: {other:?}"))),
    }
}

/// Writes the request and reads until the other side closes.
fn exchange<S>(
    mut stream: S,
    request: &str,
    limit: impl Fn(Duration) -> io::Result<()>,
    end: Instant,
) -> io::Result<Vec<u8>>
where
    S: Read + Write,
{
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        limit(left)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(read) if answer.len() + read > LARGEST => {
                return Err(io::Error::other("the answer is too long"));
            }
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn failed(error: &io::Error) -> Answered {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Answered::Refused,
        // A read's time-out is "would block" on a socket.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Answered::Silent,
        _ => Answered::Failed(error.to_string()),
    }
}

fn parse(answer: &[u8]) -> Answered {
    let text = String::from_utf8_lossy(answer);
    let read = || {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let retry_after = fields
            .filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"))
            .find_map(|(_, value)| value.trim().parse().ok());
        Some(Answered::Reply {
            status,
            body: body.to_owned(),
            retry_after,
        })
    };
    read().unwrap_or_else(|| {
        let start: String = text.chars().take(60).collect();
        Answered::Failed(format!("not an HTTP answer: {start:?}"))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let reply = parse(b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n\r\n{}");
        let expected = Answered::Reply {
            status: 503,
            body: "{}".to_owned(),
            retry_after: Some(3),
        };
        assert_eq!(reply, expected);
        assert!(matches!(parse(b""), Answered::Failed(_)));
        assert!(matches!(parse(b"SSH-2.0\r\n\r\n"), Answered::Failed(_)));
    }

    #[test]
    fn refused_silent_and_answered_are_told_apart() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("not IPv4");
        };
        let request = Request {
            target: "/a?b",
            metadata: true,
            within: Duration::from_millis(50),
        };
        // Connected by the kernel's queue, and never answered.
        assert_eq!(request.tcp(address), Answered::Silent);
        drop(listener);
        assert_eq!(request.tcp(address), Answered::Refused);
    }
}
