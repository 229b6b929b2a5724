//! `lanyard admission` beside the API server, at the Service's own address: on the loopback of the
//! lab, since no kube-proxy is here. Its authority and its rights are the chart's.
//!
//! In: the release's objects as rendered. Out: a running webhook, ways to end and begin it, what it holds,
//! and a way to it past the API server.
//! Blocks until it has begun.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::server::Server;
use crate::thief::NAMESPACE;

const NAME: &str = "lanyard-admission";
const ISSUER: &str = "lanyard-admission-issuer";
/// The port of its metrics, unless told otherwise.
const METRICS: u16 = 9466;
/// The name that the API server calls it by.
const HOST: &str = "lanyard-admission.lanyard-system.svc";
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

struct Running {
    child: Child,
    args: Vec<String>,
    address: String,
}

/// Starts it for the first time.
pub fn start(server: &Server, objects: &[Value]) {
    let secret = objects
        .iter()
        .find(|object| object["kind"] == "Secret" && object["metadata"]["name"] == ISSUER)
        .expect("the chart's authority");
    let file = |name: &str| {
        let content = STANDARD.decode(secret["data"][name].as_str().unwrap());
        let path = server.file(name, &content.unwrap());
        path.display().to_string()
    };
    let service = server.send(
        "GET",
        &format!("/api/v1/namespaces/{NAMESPACE}/services/{NAME}"),
        &Value::Null,
    );
    let address = service.unwrap()["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let added = Command::new("ip")
        .args(["address", "add", &format!("{address}/32"), "dev", "lo"])
        .status();
    assert!(added.unwrap().success(), "{address} on lo");
    let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{NAME}/token");
    let token = server.made(&account, &json!({"spec": {"audiences": []}}));
    let kubeconfig = server.kubeconfig(
        "admission.kubeconfig",
        token["status"]["token"].as_str().unwrap(),
    );
    let mut args = vec![
        "admission".to_owned(),
        format!("--address={address}"),
        "--port=443".to_owned(),
        format!("--issuer-certificate={}", file("tls.crt")),
        format!("--issuer-key={}", file("tls.key")),
        format!("--kubeconfig={}", kubeconfig.display()),
        "--log-level=info,lanyard::admission=debug".to_owned(),
    ];
    args.extend(
        ["--tls-host=", "--agents=", "--app-service"].map(|arg| container_arg(objects, arg)),
    );
    *RUNNING.lock() = Some(run(server, args, address));
}

/// Ends it, as kubelet does.
pub fn end() {
    let mut running = RUNNING.lock();
    let child = &mut running.as_mut().expect("started").child;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Starts it again, as it was.
pub fn again(server: &Server) {
    again_with(server, |args| args);
}

/// Starts it again with these flags besides, but for its half of App Service only: without the other half's
/// rights, and without a way to the API server.
pub fn again_halved(server: &Server, more: &[&str]) {
    again_with(server, |args| {
        let guards =
            |arg: &String| arg.starts_with("--agents=") || arg.starts_with("--kubeconfig=");
        let kept = args.into_iter().filter(|arg| !guards(arg));
        kept.chain(more.iter().map(|arg| (*arg).to_owned()))
            .collect()
    });
}

fn again_with(server: &Server, change: impl FnOnce(Vec<String>) -> Vec<String>) {
    let mut running = RUNNING.lock();
    let Running { args, address, .. } = running.take().expect("started");
    let mut started = run(server, change(args.clone()), address);
    started.args = args;
    *running = Some(started);
}

fn run(server: &Server, args: Vec<String>, address: String) -> Running {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_lanyard"));
    let child = server.beside(NAME, program, &words);
    server.patiently("the webhook's start", || {
        let log = log(server);
        log.contains("answering").then_some(()).ok_or(log)
    });
    Running {
        child,
        args,
        address,
    }
}

/// What it has said since it started.
pub fn log(server: &Server) -> String {
    server.log(NAME)
}

/// Open descriptors, and kilobytes of memory of its own.
pub fn holds() -> (usize, u64) {
    let pid = RUNNING.lock().as_ref().expect("started").child.id();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|line| {
        let words = line.strip_prefix("RssAnon:")?;
        words.split_whitespace().next()?.parse().ok()
    });
    (descriptors.unwrap().count(), memory.expect("RssAnon"))
}

/// The value of that line of its metrics; 0 where there is none.
pub fn metric(line: &str) -> f64 {
    let address = RUNNING.lock().as_ref().expect("started").address.clone();
    let mut stream = TcpStream::connect((address, METRICS)).unwrap();
    let wait = Some(Duration::from_secs(10));
    stream.set_read_timeout(wait).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|told| told.strip_prefix(line));
    value.map_or(0.0, |value| value.trim().parse().unwrap())
}

/// The certificate that it shows to who trusts the chart's authority, and nobody else, and calls it by its
/// name, as the API server does: the leaf as DER.
pub fn shown(server: &Server) -> Result<Vec<u8>, String> {
    let stream = connected(server)?;
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first);
    Ok(shown.ok_or("no certificate")?.to_vec())
}

/// Sends these bytes, past the API server; the answer's status line, or why there is none.
pub fn sent(server: &Server, request: &[u8]) -> Result<String, String> {
    let mut stream = connected(server)?;
    // It may have closed before it read all.
    let _ = stream.write_all(request).and_then(|()| stream.flush());
    let mut answer = [0; 64];
    let length = stream
        .read(&mut answer)
        .map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn connected(server: &Server) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{ISSUER}");
    let secret = server.send("GET", &path, &Value::Null).unwrap();
    let pem = STANDARD.decode(secret["data"]["tls.crt"].as_str().unwrap());
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(&pem.unwrap()).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
    let address = RUNNING.lock().as_ref().expect("started").address.clone();
    let words = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((address, 443)).map_err(words)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut stream).map_err(words)?;
    }
    Ok(StreamOwned::new(client, stream))
}

/// An argument as the chart gives it.
fn container_arg(objects: &[Value], prefix: &str) -> String {
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
    let container = &deployment.unwrap()["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"].as_array().unwrap();
    let mut words = args.iter().filter_map(Value::as_str);
    words
        .find(|word| word.starts_with(prefix))
        .unwrap()
        .to_owned()
}
