//! `lanyard admission` beside the API server, at the Service's own address: on the loopback of the
//! lab, since no kube-proxy is here. Its certificate and its rights are the chart's.
//!
//! In: the release's objects as rendered. Out: a running webhook, and ways to end and begin it.
//! Blocks until it has begun.

use std::path::Path;
use std::process::{Child, Command};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::server::Server;
use crate::thief::NAMESPACE;

const NAME: &str = "lanyard-admission";
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

struct Running {
    child: Child,
    args: Vec<String>,
}

/// Starts it for the first time.
pub fn start(server: &Server, objects: &[Value]) {
    let secret = objects
        .iter()
        .find(|object| object["kind"] == "Secret" && object["metadata"]["name"] == NAME)
        .expect("the chart's certificate");
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
    let args = vec![
        "admission".to_owned(),
        format!("--address={address}"),
        "--port=443".to_owned(),
        format!("--tls-certificate={}", file("tls.crt")),
        format!("--tls-key={}", file("tls.key")),
        format!("--kubeconfig={}", kubeconfig.display()),
        container_arg(objects, "--agents="),
    ];
    *RUNNING.lock() = Some(run(server, args));
}

/// Ends it, as kubelet does.
pub fn end() {
    let mut running = RUNNING.lock();
    let child = &mut running.as_mut().expect("started").child;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Starts it again.
pub fn again(server: &Server) {
    let mut running = RUNNING.lock();
    let args = running.as_ref().expect("started").args.clone();
    *running = Some(run(server, args));
}

fn run(server: &Server, args: Vec<String>) -> Running {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_lanyard"));
    let child = server.beside(NAME, program, &words);
    server.patiently("the webhook's start", || {
        let log = server.log(NAME);
        log.contains("answering").then_some(()).ok_or(log)
    });
    Running { child, args }
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
