//! A stand-in for IMDS and Entra's token endpoint that does nothing but answer: what it takes is known,
//! and how many calls run at once is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const TENANT: &str = "72f988bf-0000-4000-8000-00000000000a";
/// Life of its tokens in seconds.
pub const LIFE: u64 = 3600;

pub fn client_id(n: usize) -> String {
    format!("{n:08x}-1111-4111-8111-111111111111")
}

/// The stand-in.
pub struct Azure {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    latency: Mutex<Duration>,
    running: AtomicUsize,
    most: AtomicUsize,
    calls: AtomicUsize,
    /// How long the last answer took here.
    took: Mutex<Duration>,
}

impl Azure {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        Self { address, shared }
    }

    /// Every answer takes this long from now on.
    pub fn set_latency(&self, latency: Duration) {
        *self.shared.latency.lock() = latency;
    }

    /// How long the last answer took here: from the request's end to the answer's.
    pub fn took(&self) -> Duration {
        *self.shared.took.lock()
    }

    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// The most calls that ran at once.
    pub fn most(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut unread = Vec::new();
        loop {
            while !is_whole(&unread) {
                let mut some = [0; 8192];
                match stream.read(&mut some).await {
                    Ok(count) if count > 0 => unread.extend_from_slice(&some[..count]),
                    _ => return,
                }
            }
            let begun = Instant::now();
            self.calls.fetch_add(1, Ordering::SeqCst);
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            let latency = *self.latency.lock();
            if latency > Duration::ZERO {
                tokio::time::sleep(latency).await;
            }
            let answer = answer(&unread);
            unread.clear();
            self.running.fetch_sub(1, Ordering::SeqCst);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            *self.took.lock() = begun.elapsed();
        }
    }
}

/// Whether a request is there to its end; clients here send one at a time.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}

/// A token for whichever client id the query or the form names.
fn answer(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let (_, client) = text.split_once("client_id=").expect("a client id");
    let client = &client[..36];
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(
        "{{\"appid\":\"{client}\",\"tid\":\"{TENANT}\",\"filler\":\"{}\"}}",
        "x".repeat(900)
    );
    let token = format!("{}.{}.sig", part("{\"alg\":\"none\"}"), part(&claims));
    let body = format!(
        "{{\"access_token\":\"{token}\",\"expires_in\":\"{LIFE}\",\"token_type\":\"Bearer\"}}"
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
