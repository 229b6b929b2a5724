//! An issuer of federated tokens, as a cluster is one: its discovery document and its keys, by HTTP or HTTPS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::signer::{Signer, now};
use crate::world::PAYMENTS;

pub const SUBJECT: &str = "system:serviceaccount:shop:payments";
pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// A running issuer.
pub struct Issuer {
    pub url: String,
    /// The authority of its TLS, PEM; empty over HTTP.
    pub ca: String,
    keys: Arc<Mutex<Vec<Value>>>,
    said: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Issuer {
    pub async fn http() -> Self {
        Self::start(None).await
    }

    pub async fn https() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut issuer = Self::start(Some(acceptor)).await;
        issuer.ca = certificate.pem();
        issuer
    }

    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        let keys = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::new(Mutex::new(url.clone()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (published, name, count, own) =
            (keys.clone(), said.clone(), asked.clone(), url.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let discovery = json!({"issuer": *name.lock(), "jwks_uri": format!("{own}/keys")});
                let set = json!({"keys": *published.lock()});
                match &tls {
                    None => answer(stream, &discovery, &set).await,
                    // A client that does not trust us goes away.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(stream, &discovery, &set).await;
                        }
                    }
                }
            }
        });
        Self {
            url,
            ca: String::new(),
            keys,
            said,
            asked,
            task,
        }
    }

    /// Publishes these keys, by their ids, from now on.
    pub fn publish(&self, keys: &[(&str, &Signer)]) {
        *self.keys.lock() = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
    }

    /// Says to be somebody else from now on.
    pub fn pretend(&self, issuer: &str) {
        issuer.clone_into(&mut self.said.lock());
    }

    /// Connections so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// The right token of a service account, changed as the test likes.
    pub fn token(&self, signer: &Signer, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = json!({"alg": "RS256", "kid": "k1"});
        let mut claims = json!({
            "iss": self.url, "sub": SUBJECT, "aud": [AUDIENCE],
            "nbf": now(), "iat": now(), "exp": now() + 3600,
        });
        change(&mut header, &mut claims);
        signer.sign(&header, &claims)
    }

    /// A federated credential for its tokens, as YAML of the world file.
    pub fn credential(&self) -> String {
        format!(
            "federatedCredentials: [{{name: shop, issuer: '{}', subject: '{SUBJECT}'}}]",
            self.url
        )
    }

    /// The shared world, with that credential on the identity `payments`.
    pub fn world(&self) -> String {
        let identity = format!("    clientID: {PAYMENTS}\n");
        let more = format!("{identity}    {}\n", self.credential());
        crate::world::WORLD.replacen(&identity, &more, 1)
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, discovery: &Value, keys: &Value) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head);
    let (status, body) = match head.split(' ').nth(1) {
        Some("/.well-known/openid-configuration") => ("200 OK", discovery.to_string()),
        // As Kubernetes: nobody gets them as another type.
        Some("/keys") if !head.contains("application/jwk-set+json") => {
            ("406 Not Acceptable", String::new())
        }
        Some("/keys") => ("200 OK", keys.to_string()),
        _ => ("404 Not Found", String::new()),
    };
    let text = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Whoever hung up does not want it.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}
