//! Who is in the trials of `/host/token`: an agent of node-a with the chart's rights, Azure simulated, pods on two nodes,
//! and programs that ask on behalf of them.
//!
//! In: the server. Out: bearer tokens, and answers at the agent's doors. Blocks on the server, on helm, on the agent.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::server::Server;
use crate::thief::{self, NAMESPACE, rendered};

/// As in the chart; the lab has a `/run` of its own.
pub const SOCKET: &str = "/run/lanyard-host/token.sock";
pub const AUDIENCE: &str = "lanyard.dev";
pub const PORT: u16 = 2579;
/// The pods' namespace, and that of the programs that ask.
pub const PODS: &str = "mounts";
pub const CALLERS: &str = "csi";
pub const CLIENT: &str = "11111111-aaaa-4111-8111-111111111111";
const IMDS: &str = "127.0.0.1:8169";
const RESOURCE: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/mounts/providers/Microsoft.ManagedIdentity/userAssignedIdentities/web";
const TENANT: &str = "72f988bf-0000-4000-8000-00000000000a";
const PATIENCE: Duration = Duration::from_secs(40);

static AGENT: Mutex<Option<Child>> = Mutex::new(None);

/// Puts everything there, once, and starts the agent with the socket alone.
pub fn stage(server: &Server) {
    if AGENT.lock().is_some() {
        return;
    }
    thief::stage(server);
    let reviews = rendered(&["--set", "hostToken.enabled=true"]);
    let named = |object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        matches!(name, "lanyard-agent-reviews" | "lanyard-host-token")
    };
    let objects: Vec<_> = reviews.into_iter().filter(named).collect();
    assert_eq!(objects.len(), 3, "two roles, and one binding");
    server.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
    for (namespace, account) in [
        (PODS, "app"),
        (CALLERS, "provider"),
        (CALLERS, "limited"),
        (CALLERS, "other"),
    ] {
        let object = json!({"metadata": {"name": namespace}});
        // The second of a namespace finds it there.
        let _ = server.send("POST", "/api/v1/namespaces", &object);
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        server.made(&path, &json!({"metadata": {"name": account}}));
    }
    for (name, node) in [("web", "node-a"), ("till", "node-a"), ("far", "node-b")] {
        thief::pod(server, PODS, name, Some(node), "app");
    }
    for (account, node) in [
        ("provider", "node-a"),
        ("limited", "node-a"),
        ("other", "node-a"),
    ] {
        thief::pod(
            server,
            CALLERS,
            &format!("{account}-{node}"),
            Some(node),
            account,
        );
    }
    thief::pod(
        server,
        CALLERS,
        "provider-node-b",
        Some("node-b"),
        "provider",
    );
    server.apply(&grants());
    let world = server.file("host-world.yaml", world().as_bytes());
    let args = ["simulate", "--world", path(&world), "--imds-listen", IMDS];
    drop(server.beside("simulate", program(), &args));
    server.patiently("the simulator", || {
        TcpStream::connect(IMDS)
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let token = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/lanyard-agent/token");
    let token = server.made(&token, &json!({"spec": {"audiences": []}}));
    server.kubeconfig(
        "host.kubeconfig",
        token["status"]["token"].as_str().unwrap(),
    );
    *AGENT.lock() = Some(start(server, "first", &[]));
    let provider = bearer(server, "provider", "node-a");
    server.patiently("the agent", || {
        let asked = ask_at_socket("web", &provider);
        (asked.0 == 200)
            .then_some(())
            .ok_or(format!("{asked:?}\n{}", server.log("first")))
    });
}

/// Another agent, with more flags, that takes over from the one before it, which then ends as at an upgrade; meanwhile
/// `look` looks again and again.
pub fn upgrade(server: &Server, more: &[&str], mut look: impl FnMut()) {
    let second = start(server, "second", more);
    server.patiently("the second agent", || {
        look();
        let log = server.log("second");
        // At the socket, not at a port.
        let there = |line: &str| line.contains("listening for who asks") && line.contains(SOCKET);
        log.lines().any(there).then_some(()).ok_or(log)
    });
    let mut first = AGENT.lock().replace(second).expect("staged");
    kill(Pid::from_raw(first.id().cast_signed()), Signal::SIGTERM).unwrap();
    server.patiently("the first agent's end", || {
        look();
        let ended = first.try_wait().unwrap();
        ended.map(|_| ()).ok_or_else(|| "it runs".to_owned())
    });
}

fn start(server: &Server, name: &str, more: &[&str]) -> Child {
    let kubeconfig = server.kubeconfig_path("host.kubeconfig");
    let (imds, socket) = (
        format!("http://{IMDS}"),
        format!("--host-token-socket={SOCKET}"),
    );
    let args = [
        "agent",
        "--kubeconfig",
        path(&kubeconfig),
        "--node-name=node-a",
        "--imds-endpoint",
        &imds,
        "--state-dir=/run/lanyard",
        "--self-test=false",
        &socket,
    ];
    server.beside(name, program(), &[&args[..], more].concat())
}

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lanyard"))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn world() -> String {
    format!(
        "tenant: {{id: {TENANT}}}\nidentities:\n  - {{name: web, clientID: {CLIENT}, principalID: 22222222-aaaa-4111-8111-111111111111, \
         resourceID: {RESOURCE}}}\nvms:\n  - {{name: node-a, location: westeurope, identities: [web]}}\n"
    )
}

/// What the pods are granted, and who may ask for them: `provider` for all of the namespace, `limited` for `web` alone.
fn grants() -> String {
    let role = |name: &str, account: &str, kind: &str, role: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name, "namespace": PODS},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": CALLERS}]})
    };
    let ours = |kind: &str, namespace: Option<&str>, spec: Value| {
        json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "mounts", "namespace": namespace}, "spec": spec})
    };
    let all = json!({"apiVersion": "v1", "kind": "List", "items": [
        ours("AzureIdentityPolicy", None, json!({
            "namespaces": {"matchLabels": {"kubernetes.io/metadata.name": PODS}},
            "resourceIDPrefixes": [RESOURCE.rsplit_once("/providers").unwrap().0]})),
        ours("AzureIdentity", Some(PODS), json!({"clientID": CLIENT, "tenantID": TENANT, "resourceID": RESOURCE})),
        ours("AzureIdentityBinding", Some(PODS), json!({"identity": "mounts", "subjects": [{"serviceAccounts": ["app"]}]})),
        role("provider", "provider", "ClusterRole", "lanyard-host-token"),
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "web-only", "namespace": PODS},
            "rules": [{"apiGroups": [""], "resources": ["pods/azuretoken"], "resourceNames": ["web"], "verbs": ["create"]}]},
        role("limited", "limited", "Role", "web-only"),
    ]});
    all.to_string()
}

/// A token of that account for our audience, bound to its pod on that node; a new one each time.
pub fn bearer(server: &Server, account: &str, node: &str) -> String {
    token_for(
        server,
        account,
        &[AUDIENCE],
        Some(&format!("{account}-{node}")),
    )
}

/// A token of that account for these audiences, bound to that pod or to none.
pub fn token_for(server: &Server, account: &str, audiences: &[&str], pod: Option<&str>) -> String {
    let mut spec = json!({"audiences": audiences, "expirationSeconds": 3600});
    if let Some(pod) = pod {
        let path = format!("/api/v1/namespaces/{CALLERS}/pods/{pod}");
        let found = server.send("GET", &path, &Value::Null).unwrap();
        spec["boundObjectRef"] = json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": found["metadata"]["uid"]});
    }
    let path = format!("/api/v1/namespaces/{CALLERS}/serviceaccounts/{account}/token");
    let made = server.made(&path, &json!({"spec": spec}));
    made["status"]["token"].as_str().unwrap().to_owned()
}

/// Status, head and body.
pub type Answer = (u16, String, Value);

/// Asks at the socket on behalf of a pod of [`PODS`].
pub fn ask_at_socket(pod: &str, bearer: &str) -> Answer {
    ask_for(PODS, pod, &format!("Authorization: Bearer {bearer}\r\n"))
}

/// Asks at the socket, with these headers.
pub fn ask_for(namespace: &str, pod: &str, headers: &str) -> Answer {
    patiently(|| {
        let stream = UnixStream::connect(SOCKET)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        talk(stream, namespace, pod, headers)
    })
}

/// Asks at the port.
pub fn ask_at_port(pod: &str, bearer: &str) -> Answer {
    let headers = format!("Authorization: Bearer {bearer}\r\n");
    patiently(|| {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], PORT)))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        talk(stream, PODS, pod, &headers)
    })
}

/// As callers are told to: again where too many new tokens came in too short a time, as they do here.
fn patiently(ask: impl Fn() -> io::Result<Answer>) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = ask().unwrap_or_else(|error| (0, error.to_string(), Value::Null));
        if answer.0 != 429 || begun.elapsed() > PATIENCE {
            return answer;
        }
        assert!(answer.1.contains("retry-after: "), "{answer:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn talk(
    mut stream: impl Read + Write,
    namespace: &str,
    pod: &str,
    headers: &str,
) -> io::Result<Answer> {
    let request = format!(
        "GET /host/token/?resource=https://vault.azure.net HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         podns: {namespace}\r\npodname: {pod}\r\n{headers}\r\n"
    );
    let mut answer = String::new();
    stream.write_all(request.as_bytes())?;
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).unwrap_or_default();
    Ok((status.unwrap_or_default(), head.to_ascii_lowercase(), body))
}
