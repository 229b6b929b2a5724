//! A listener that echoes what it was asked, and a client that speaks bytes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use lanyard::serve::{Answer, ConnMetrics, Drain, Limits, serve};
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// No wait of a test is longer; a test that needs this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Answers with the target it was asked for; `/hold` not before it is released.
#[derive(Clone, Default)]
pub struct Echo {
    pub held: CancellationToken,
    pub release: CancellationToken,
}

impl Answer for Echo {
    async fn answer(&self, _peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/hold" {
            self.held.cancel();
            self.release.cancelled().await;
        }
        let body = format!(r#"{{"asked":"{}"}}"#, request.uri());
        Response::builder()
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap()
    }
}

/// A served listener.
pub struct Server {
    pub address: SocketAddr,
    pub drain: Drain,
    pub echo: Echo,
    pub registry: Registry,
    pub task: JoinHandle<()>,
}

/// Starts an [`Echo`] with `limits` on a port of the kernel's choice.
pub async fn server(limits: Limits) -> Server {
    server_on(
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        Drain::new(),
        limits,
    )
}

/// The same on a listener and with a drain that the test has prepared.
pub fn server_on(listener: TcpListener, drain: Drain, limits: Limits) -> Server {
    let (registry, echo) = (Registry::new(), Echo::default());
    let metrics = ConnMetrics::new(&registry, "test").unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(
        listener,
        limits,
        echo.clone(),
        drain.clone(),
        metrics,
    ));
    Server {
        address,
        drain,
        echo,
        registry,
        task,
    }
}

impl Server {
    /// Waits for the listener's end.
    pub async fn ended(self) {
        timeout(PATIENCE, self.task)
            .await
            .expect("the listener ends")
            .unwrap();
    }

    /// The metrics as scraped.
    pub fn scrape(&self) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }
}

/// Sends `bytes` and reads until the server closes.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Answered {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    to_end(&mut stream).await
}

/// Everything until the server closes; a reset is a failure.
pub async fn to_end(stream: &mut TcpStream) -> Answered {
    let mut all = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut all))
        .await
        .expect("the server closes")
        .unwrap();
    Answered(String::from_utf8(all).unwrap())
}

/// One answer with a content length; the connection stays open.
pub async fn one_answer(stream: &mut TcpStream) -> Answered {
    let mut all = Vec::new();
    let read = async {
        loop {
            if let Some(end) = end_of_first(&all) {
                assert_eq!(
                    end,
                    all.len(),
                    "more than one answer: {}",
                    String::from_utf8_lossy(&all)
                );
                return;
            }
            let mut some = [0; 4096];
            let count = stream.read(&mut some).await.unwrap();
            assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&some[..count]);
        }
    };
    timeout(PATIENCE, read).await.expect("an answer");
    Answered(String::from_utf8(all).unwrap())
}

fn end_of_first(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).ok()?;
    let head = text.find("\r\n\r\n")? + 4;
    let length = text[..head]
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?
        .parse::<usize>()
        .ok()?;
    (text.len() >= head + length).then_some(head + length)
}

/// Bytes that came back.
#[derive(Debug)]
pub struct Answered(pub String);

impl Answered {
    /// Asserts a single JSON error with `status` that announces the end of the connection.
    #[track_caller]
    pub fn is_json_error(&self, status: u16) {
        let text = &self.0;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text:?}");
        let (head, body) = text.split_once("\r\n\r\n").expect(text);
        assert!(head.contains("content-type: application/json"), "{text:?}");
        assert!(head.contains("connection: close"), "{text:?}");
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{text:?}"
        );
        let json: serde_json::Value = serde_json::from_str(body).expect(text);
        assert!(
            json["error"].is_string() && json["error_description"].is_string(),
            "{text:?}"
        );
    }

    /// Asserts a 200 that echoes `target`.
    #[track_caller]
    pub fn echoes(&self, target: &str) {
        assert!(self.0.contains(" 200 OK\r\n"), "{:?}", self.0);
        assert!(
            self.0.ends_with(&format!(r#"{{"asked":"{target}"}}"#)),
            "{:?}",
            self.0
        );
    }
}
