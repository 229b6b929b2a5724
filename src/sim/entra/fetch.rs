//! One GET over HTTP or HTTPS, for documents of issuers.
//!
//! In: a URL, and the authorities that may vouch for its host. Out: the body of a 200, at most 1 MiB. Follows no
//! redirect, asks no proxy. Waits at most [`PATIENCE`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest a document may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The largest document.
const LARGEST: usize = 1 << 20;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("not an http or https URL")]
    Url,
    #[error("no authority is known for it; give `issuers[].caFile` or `caPem`")]
    NoAuthority,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered {0}")]
    Status(u16),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
}

/// The document at that URL.
pub(super) async fn get(url: &str, roots: Option<RootCertStore>) -> Result<Bytes, FetchError> {
    tokio::time::timeout(PATIENCE, Box::pin(open(url, roots)))
        .await
        .map_err(|_| FetchError::Late)?
}

async fn open(url: &str, roots: Option<RootCertStore>) -> Result<Bytes, FetchError> {
    let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
    let authority = uri.authority().ok_or(FetchError::Url)?.as_str().to_owned();
    let host = uri.host().unwrap_or_default();
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = |usual| uri.port_u16().unwrap_or(usual);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match uri.scheme_str() {
        Some("http") => {
            let stream = TcpStream::connect((host.as_str(), port(80))).await?;
            ask(stream, &authority, path).await
        }
        Some("https") => {
            let roots = roots.ok_or(FetchError::NoAuthority)?;
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = TcpStream::connect((host.as_str(), port(443))).await?;
            let name = ServerName::try_from(host).map_err(|_| FetchError::Url)?;
            let tls = TlsConnector::from(Arc::new(config));
            ask(tls.connect(name, stream).await?, &authority, path).await
        }
        _ => Err(FetchError::Url),
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    path: &str,
) -> Result<Bytes, FetchError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(HOST, authority)
        // A Kubernetes API server gives its keys as the second only, and else answers 406.
        .header("accept", "application/json, application/jwk-set+json")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url)?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        // The connection ends with its sender.
        drop(sender);
        if status != 200 {
            return Err(FetchError::Status(status.as_u16()));
        }
        Ok(body.map_err(FetchError::Body)?.to_bytes())
    };
    let (exchange, _) = tokio::join!(exchange, connection);
    exchange
}
