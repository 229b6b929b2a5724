//! Against a TLS server and proxies of our own on loopback: whom a client believes, what it says, which
//! way it goes.

use std::net::SocketAddr;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const NAME: &str = "tokens.example";

/// What a server saw: SNI and head of each request, or the head of each CONNECT.
type Seen = Arc<Mutex<Vec<String>>>;

/// An authority's PEM, and an acceptor with its certificate for `names`.
fn tls(names: &[&str]) -> (String, TlsAcceptor) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    let name = format!("authority {:x}", fastrand::u64(..));
    ca.distinguished_name.push(DnType::CommonName, name);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (pem, TlsAcceptor::from(Arc::new(config)))
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A server that answers every request with `answer` and closes the connection.
async fn server(acceptor: TlsAcceptor, answer: &'static str) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let name = stream.get_ref().1.server_name().unwrap_or("-").to_owned();
                let Some(head) = head(&mut stream).await else {
                    return;
                };
                told.lock().push(format!("{name}\n{head}"));
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, seen)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn get(config: &HttpsConfig, uri: &str) -> Result<Reply, HttpError> {
    let client = HttpsClient::new(config).unwrap();
    client.get(uri.parse().unwrap(), &[], LIMIT).await
}

fn trusting(pem: &str) -> HttpsConfig {
    HttpsConfig {
        roots: Roots::Only(pem.to_owned()),
        ..HttpsConfig::default()
    }
}

#[tokio::test]
async fn a_server_name_of_its_own_is_what_tls_sees_and_host_stays() {
    let (pem, acceptor) = tls(&[NAME]);
    let (address, seen) = server(acceptor, OK).await;
    let uri = format!("https://{address}/a?b");
    let mut config = trusting(&pem);
    let error = get(&config, &uri).await.unwrap_err().to_string();
    assert!(
        error.contains("certificate") && error.contains("not valid for name"),
        "{error}"
    );
    config.server_name = Some(NAME.to_owned());
    let reply = get(&config, &uri).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"ok"[..]));
    let seen = seen.lock().clone();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(
        seen[0].starts_with(&format!("{NAME}\nGET /a?b HTTP/1.1\r\n")),
        "{seen:?}"
    );
    assert!(
        seen[0].contains(&format!("host: {address}\r\n")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn only_who_is_trusted_is_believed() {
    let (pem, acceptor) = tls(&["localhost"]);
    let (address, seen) = server(acceptor, OK).await;
    let uri = format!("https://localhost:{}/", address.port());
    let (other, _) = tls(&["localhost"]);
    for roots in [Roots::Only(other.clone()), Roots::SystemAnd(other.clone())] {
        let config = HttpsConfig {
            roots,
            ..HttpsConfig::default()
        };
        let error = get(&config, &uri).await.unwrap_err().to_string();
        assert!(error.contains("UnknownIssuer"), "{error}");
    }
    assert!(seen.lock().is_empty());
    for roots in [
        Roots::Only(format!("{other}{pem}")),
        Roots::SystemAnd(pem.clone()),
    ] {
        let config = HttpsConfig {
            roots,
            ..HttpsConfig::default()
        };
        get(&config, &uri).await.unwrap();
    }
    assert_eq!(seen.lock().len(), 2);
}

#[tokio::test]
async fn a_closed_connection_is_not_asked_again_and_redirects_are_not_followed() {
    let (pem, acceptor) = tls(&["localhost"]);
    let answer = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    let (address, seen) = server(acceptor, answer).await;
    let client = HttpsClient::new(&trusting(&pem)).unwrap();
    for _ in 0..3 {
        let uri: Uri = format!("https://localhost:{}/", address.port())
            .parse()
            .unwrap();
        let form = Zeroizing::new("a=b".to_owned());
        let reply = client.post_form(uri, form, LIMIT).await.unwrap();
        assert_eq!(reply.status.as_u16(), 302);
    }
    let seen = seen.lock();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|head| !head.contains("elsewhere")));
}

/// A proxy that leads every tunnel to one place, whatever name was asked for.
struct Proxy {
    seen: Seen,
    port: u16,
}

async fn proxy(to: SocketAddr, answer: &'static str, tls: Option<TlsAcceptor>) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, told) = (tls.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                match tls {
                    None => tunnel(stream, to, answer, told).await,
                    Some(tls) => tunnel(tls.accept(stream).await.unwrap(), to, answer, told).await,
                }
            });
        }
    });
    Proxy { seen, port }
}

async fn tunnel(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    to: SocketAddr,
    answer: &str,
    seen: Seen,
) {
    let Some(head) = head(&mut stream).await else {
        return;
    };
    seen.lock().push(head);
    let _ = stream.write_all(answer.as_bytes()).await;
    let mut there = TcpStream::connect(to).await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut there).await;
}

const OPEN: &str = "HTTP/1.1 200 OK\r\n\r\n";

#[tokio::test]
async fn a_proxy_s_tunnel_is_used_with_its_password_and_sees_the_name_only() {
    let (pem, acceptor) = tls(&[NAME, "localhost"]);
    let (address, seen) = server(acceptor, OK).await;
    let proxy = proxy(address, OPEN, None).await;
    let rules = |no: &str| {
        let url = format!("http://agent:p%40ss@127.0.0.1:{}", proxy.port);
        ProxyRules::new(&url, no).unwrap()
    };
    let mut config = trusting(&pem);
    config.proxies = rules("localhost,.internal");
    assert!(!format!("{config:?}").contains("p@ss") && !format!("{config:?}").contains("p%40ss"));
    get(&config, &format!("https://{NAME}/secret"))
        .await
        .unwrap();
    let tunnels = proxy.seen.lock().clone();
    let [only] = &tunnels[..] else {
        panic!("{tunnels:?}");
    };
    assert!(
        only.starts_with(&format!("CONNECT {NAME}:443 HTTP/1.1\r\n")),
        "{only}"
    );
    assert!(
        only.contains("Proxy-Authorization: Basic YWdlbnQ6cEBzcw==\r\n"),
        "{only}"
    );
    assert!(!only.contains("secret"), "{only}");
    assert!(seen.lock()[0].contains(&format!("host: {NAME}\r\n")));
    // What NO_PROXY lists goes straight.
    get(&config, &format!("https://localhost:{}/", address.port()))
        .await
        .unwrap();
    assert_eq!(proxy.seen.lock().len(), 1);
    config.proxies = rules("*");
    get(&config, &format!("https://localhost:{}/", address.port()))
        .await
        .unwrap();
    assert_eq!(proxy.seen.lock().len(), 1);
}

#[tokio::test]
async fn a_proxy_may_speak_tls_itself() {
    let (pem, acceptor) = tls(&[NAME]);
    let (address, _) = server(acceptor, OK).await;
    let (proxy_pem, proxy_acceptor) = tls(&["localhost"]);
    let proxy = proxy(address, OPEN, Some(proxy_acceptor)).await;
    let mut config = trusting(&format!("{pem}{proxy_pem}"));
    let url = format!("https://localhost:{}", proxy.port);
    config.proxies = ProxyRules::new(&url, "").unwrap();
    get(&config, &format!("https://{NAME}/")).await.unwrap();
    assert_eq!(proxy.seen.lock().len(), 1);
    config.roots = Roots::Only(pem);
    let error = get(&config, &format!("https://{NAME}/")).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password_and_nothing_goes_straight() {
    let (pem, acceptor) = tls(&["localhost"]);
    let (address, seen) = server(acceptor, OK).await;
    let denied = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
    let proxy = proxy(address, denied, None).await;
    let mut config = trusting(&pem);
    let url = format!("http://agent:hunter2@127.0.0.1:{}", proxy.port);
    config.proxies = ProxyRules::new(&url, "").unwrap();
    let uri = format!("https://localhost:{}/", address.port());
    let error = get(&config, &uri).await.unwrap_err().to_string();
    assert!(
        error.contains("proxy 127.0.0.1") && error.contains("authorization"),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
    assert!(seen.lock().is_empty());
}

#[test]
fn what_is_no_proxy_is_refused() {
    for text in ["socks5://127.0.0.1:1", "ftp://x", "http://", "::", "a b"] {
        assert_eq!(ProxyRules::new(text, "").unwrap_err(), NotAProxy, "{text}");
    }
    for text in ["", "proxy:3128", "http://proxy", "https://u:p@proxy:1"] {
        assert!(ProxyRules::new(text, "*").is_ok(), "{text}");
    }
}

#[test]
fn what_leaves_the_machine_is_encrypted() {
    for (uri, expected) in [
        ("https://login.microsoftonline.com/", true),
        ("http://127.0.0.1:1/", true),
        ("http://127.9.9.9/", true),
        ("http://[::1]:1/", true),
        ("http://LOCALHOST:1/", true),
        ("http://169.254.169.254/", false),
        ("http://login.microsoftonline.com/", false),
        ("http://localhost.example/", false),
        ("http://127.0.0.1.example/", false),
        ("http://2130706433/", false),
        ("ftp://127.0.0.1/", false),
        ("/path", false),
    ] {
        assert_eq!(is_private(&uri.parse().unwrap()), expected, "{uri}");
    }
}

#[tokio::test]
async fn nothing_is_sent_in_the_clear() {
    let (pem, _) = tls(&[NAME]);
    // No loopback address, and yet nothing would leave the machine.
    let error = get(&trusting(&pem), "http://0.0.0.0:9/").await.unwrap_err();
    assert!(error.to_string().contains("only https"), "{error}");
}

#[test]
fn authorities_that_cannot_be_read_are_named() {
    let (pem, _) = tls(&[NAME]);
    let made = |text: &str| HttpsClient::new(&trusting(text)).unwrap_err().to_string();
    assert!(made("").contains("no certificate") && made("x").contains("no certificate"));
    let broken = format!("{pem}-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n");
    assert!(made(&broken).contains("certificate 2"), "{}", made(&broken));
    let cut = &pem[..pem.len() / 2];
    assert!(made(cut).contains("certificate"), "{}", made(cut));
    let mut config = trusting(&pem);
    config.server_name = Some("not a name".to_owned());
    let error = HttpsClient::new(&config).unwrap_err();
    assert!(error.to_string().contains("`not a name`"), "{error}");
}
