//! What may stand between the agent and Entra: a TLS front with a certificate authority of its own
//! (another authority host, a custom token endpoint), and an HTTP proxy. Both pass bytes on to the
//! simulator and remember what they were asked.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// TLS, taken off.
pub struct TlsFront {
    pub address: SocketAddr,
    /// The one authority behind it.
    pub ca_pem: String,
    names: Arc<Mutex<Vec<Option<String>>>>,
}

impl TlsFront {
    /// With a certificate for these names, in front of a plain HTTP server.
    pub async fn start(names: &[&str], behind: SocketAddr) -> Self {
        let (ca_pem, acceptor) = acceptor(names);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Self {
            address: listener.local_addr().unwrap(),
            ca_pem,
            names: Arc::default(),
        };
        let seen = front.names.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(stream).await?;
                    let name = tls.get_ref().1.server_name().map(str::to_owned);
                    seen.lock().push(name);
                    let mut onward = TcpStream::connect(behind).await?;
                    copy_bidirectional(&mut tls, &mut onward).await
                });
            }
        });
        front
    }

    /// The names that clients asked for by SNI, one for each connection; `None`: an address.
    pub fn names(&self) -> Vec<Option<String>> {
        self.names.lock().clone()
    }
}

fn acceptor(names: &[&str]) -> (String, TlsAcceptor) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "the front's authority");
    let key = KeyPair::generate().unwrap();
    let ca_pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let names = names
        .iter()
        .map(|&name| name.to_owned())
        .collect::<Vec<_>>();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (ca_pem, TlsAcceptor::from(Arc::new(config)))
}

/// An HTTP proxy that knows `CONNECT` and no other method.
pub struct Proxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Every tunnel ends at `to`, whatever host was asked for.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
        };
        let asked = proxy.asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, to, asked.clone()));
            }
        });
        proxy
    }

    /// The first lines of all requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

async fn tunnel(
    stream: TcpStream,
    to: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    asked.lock().push(first.trim_end().to_owned());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || line == "\r\n" {
            break;
        }
    }
    if !first.starts_with("CONNECT ") {
        let refused = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(refused).await;
    }
    let mut onward = TcpStream::connect(to).await?;
    stream
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    copy_bidirectional(&mut stream, &mut onward).await.map(drop)
}

/// A way whose end is known later: what stands before the simulator is configured before that starts.
pub struct Later {
    pub address: SocketAddr,
    end: tokio::sync::watch::Sender<Option<SocketAddr>>,
}

impl Later {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, known) = tokio::sync::watch::channel(None::<SocketAddr>);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut known = known.clone();
                tokio::spawn(async move {
                    let end = known.wait_for(Option::is_some).await;
                    let end = end.ok().and_then(|end| *end)?;
                    let mut onward = TcpStream::connect(end).await.ok()?;
                    copy_bidirectional(&mut stream, &mut onward).await.ok()
                });
            }
        });
        Self { address, end }
    }

    /// From now on.
    pub fn is(&self, end: SocketAddr) {
        self.end.send_replace(Some(end));
    }
}
