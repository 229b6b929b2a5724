//! What everything is measured against: the least that hyper needs to return the agent's bytes.
//!
//! Two worker threads, a connection task each, one fixed answer; no limits, no deadlines, no look-up.
//! Beside it the same bytes behind `lanyard::serve`, to tell what the harness alone costs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lanyard::serve::{Answer, ConnMetrics, Drain, Limits, serve};
use tokio::net::TcpListener;

/// How to serve.
#[derive(Clone, Debug, clap::Args)]
pub struct Bare {
    /// Where to listen.
    #[arg(long)]
    pub listen: SocketAddr,
    /// File with a whole answer, head and body, as it went over the wire.
    #[arg(long)]
    pub answer: PathBuf,
    /// Behind `lanyard::serve` rather than bare.
    #[arg(long)]
    pub harness: bool,
}

#[derive(Clone)]
struct Fixed {
    headers: HeaderMap,
    body: Bytes,
}

impl Fixed {
    /// Everything of a recorded answer but what hyper adds by itself.
    fn from_wire(wire: &str) -> anyhow::Result<Self> {
        let (head, body) = wire
            .split_once("\r\n\r\n")
            .ok_or_else(|| anyhow::anyhow!("the recorded answer has no head"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
        {
            let name: HeaderName = name.parse()?;
            if !["date", "content-length", "connection"].contains(&name.as_str()) {
                headers.append(name, HeaderValue::from_str(value)?);
            }
        }
        Ok(Fixed {
            headers,
            body: Bytes::from(body.to_owned()),
        })
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }
}

impl Answer for Fixed {
    async fn answer(&self, _: SocketAddr, _: Request<Incoming>) -> Response<Full<Bytes>> {
        self.response()
    }
}

/// Serves until it is killed.
pub fn main(bare: &Bare) -> anyhow::Result<()> {
    let fixed = Fixed::from_wire(&std::fs::read_to_string(&bare.answer)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(bare.listen).await?;
        if bare.harness {
            let metrics = ConnMetrics::new(&prometheus::Registry::new(), "bench")?;
            serve(listener, Limits::default(), fixed, Drain::new(), metrics).await;
            return Ok(());
        }
        // On a worker, as the agent's: on the main thread each connection costs a wake-up more.
        tokio::spawn(accept(listener, fixed)).await?
    })
}

async fn accept(listener: TcpListener, fixed: Fixed) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let fixed = fixed.clone();
        tokio::spawn(async move {
            let service = service_fn(|_: Request<Incoming>| {
                let response = fixed.response();
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that goes away ends its connection; there is nothing to do about it.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
