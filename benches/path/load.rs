//! The load generator: one thread, epoll by tokio, HTTP by hand. A process of its own in a pod's
//! network namespace, the same for both servers, bounded in time and in count.
//!
//! In: a [`Plan`]. Out: one line of JSON with what was measured; an answer that is not 200, or not
//! whole, is an error and no request.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// No single exchange takes longer; one that does is an error.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Where to.
    #[arg(long)]
    pub to: SocketAddr,
    /// Request target.
    #[arg(long)]
    pub target: String,
    /// From which address of the pod.
    #[arg(long)]
    pub from: Ipv4Addr,
    /// Workers; each has one connection at a time.
    #[arg(long)]
    pub workers: usize,
    /// A new connection for each request.
    #[arg(long)]
    pub fresh: bool,
    /// How long to measure.
    #[arg(long)]
    pub seconds: f64,
    /// At most so many requests.
    #[arg(long, default_value_t = 1_000_000)]
    pub most: usize,
}

impl Plan {
    /// The command line that makes this plan.
    pub fn to_args(&self) -> Vec<String> {
        let mut args = vec![
            format!("--to={}", self.to),
            format!("--target={}", self.target),
            format!("--from={}", self.from),
            format!("--workers={}", self.workers),
            format!("--seconds={}", self.seconds),
            format!("--most={}", self.most),
        ];
        if self.fresh {
            args.push("--fresh".to_owned());
        }
        args
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Whole answers with status 200.
    pub requests: usize,
    /// Everything else.
    pub errors: usize,
    /// From the first request's start to the last answer's end, in seconds.
    pub seconds: f64,
    /// Latencies in microseconds.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

struct Shared {
    plan: Plan,
    request: Vec<u8>,
    end: Instant,
}

#[derive(Default)]
struct Tally {
    nanos: Vec<u32>,
    errors: usize,
}

/// The request that a Python program sends for a token of a Key Vault.
pub fn request(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\
         User-Agent: azsdk-python-identity/1.25.1 Python/3.13.5 (Linux)\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept: */*\r\n\r\n"
    )
    .into_bytes()
}

/// Runs the plan in the calling process and prints the result.
pub fn main(plan: Plan) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured = tokio::task::LocalSet::new().block_on(&runtime, run(plan));
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

async fn run(plan: Plan) -> Measured {
    let start = Instant::now();
    let shared = Rc::new(Shared {
        request: request(&plan.target),
        end: start + Duration::from_secs_f64(plan.seconds),
        plan,
    });
    let workers: Vec<_> = (0..shared.plan.workers)
        .map(|_| tokio::task::spawn_local(worker(Rc::clone(&shared))))
        .collect();
    let mut all = Tally::default();
    for worker in workers {
        match worker.await {
            Ok(tally) => {
                all.nanos.extend(tally.nanos);
                all.errors += tally.errors;
            }
            Err(_) => all.errors += 1,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    all.nanos.sort_unstable();
    let at = |share: f64| {
        let index = (all.nanos.len() as f64 * share) as usize;
        let nanos = all.nanos.get(index.min(all.nanos.len().saturating_sub(1)));
        f64::from(nanos.copied().unwrap_or_default()) / 1000.0
    };
    Measured {
        requests: all.nanos.len(),
        errors: all.errors,
        seconds,
        p50: at(0.5),
        p99: at(0.99),
    }
}

async fn worker(shared: Rc<Shared>) -> Tally {
    let plan = &shared.plan;
    let mut tally = Tally::default();
    let mut kept: Option<TcpStream> = None;
    let mut buffer = vec![0; 64 * 1024];
    let most = plan.most / plan.workers;
    let mut now = Instant::now();
    while now < shared.end && tally.nanos.len() + tally.errors < most {
        let begun = now;
        let once = exchange(&shared, &mut kept, &mut buffer);
        let outcome = timeout(PATIENCE, once).await;
        now = Instant::now();
        if matches!(outcome, Ok(Ok(()))) {
            let nanos = (now - begun).as_nanos();
            tally.nanos.push(u32::try_from(nanos).unwrap_or(u32::MAX));
        } else {
            tally.errors += 1;
            kept = None;
        }
    }
    tally
}

async fn exchange(
    shared: &Shared,
    kept: &mut Option<TcpStream>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(shared.plan.from, shared.plan.to).await?,
    };
    stream.write_all(&shared.request).await?;
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        if whole(&buffer[..filled])? {
            break;
        }
    }
    if !shared.plan.fresh {
        *kept = Some(stream);
    }
    Ok(())
}

/// A new connection from `from`.
pub async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // The port is chosen by `connect`: `bind` would not reuse those of closed connections, and would
    // search for a free one ever longer.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).map_err(io::Error::from)?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

/// Whether these bytes are one whole answer; anything but a 200 is an error.
fn whole(bytes: &[u8]) -> io::Result<bool> {
    const OK: &[u8] = b"HTTP/1.1 200 ";
    if bytes.len() >= OK.len() && !bytes.starts_with(OK) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    match length(bytes)? {
        Some(length) if bytes.len() > length => Err(io::ErrorKind::InvalidData.into()),
        Some(length) => Ok(bytes.len() == length),
        None => Ok(false),
    }
}

/// The length of the answer that these bytes begin, head and body; `None` before the head's end.
pub fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(head) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let at = find(&bytes[..head], LENGTH).ok_or(io::ErrorKind::InvalidData)? + LENGTH.len();
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    Ok(Some(head + 4 + body))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
