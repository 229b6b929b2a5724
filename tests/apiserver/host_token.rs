//! Who is given tokens on behalf of pods, by a real API server's word: `TokenReview` of real tokens, `SubjectAccessReview`
//! by real roles, with the rights that the chart gives to agents.
//!
//! In: the server, a real agent beside it. Out: a trial for each question.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::mounts::{
    AUDIENCE, CALLERS, CLIENT, PODS, PORT, SOCKET, ask_at_port, ask_at_socket, ask_for, bearer,
    program, stage, token_for, upgrade,
};
use crate::server::Server;
use crate::thief;

type Trial = (&'static str, fn(&Server));

/// The trials of this file.
pub const TRIALS: &[Trial] = &[
    (
        "host_token::the_api_server_decides_who_asks_on_behalf_of_whom",
        the_api_server_decides_who_asks_on_behalf_of_whom,
    ),
    (
        "host_token::only_valid_tokens_of_the_audience_prove_who_asks",
        only_valid_tokens_of_the_audience_prove_who_asks,
    ),
    (
        "host_token::what_is_taken_away_ends_within_seconds",
        what_is_taken_away_ends_within_seconds,
    ),
    (
        "host_token::while_the_api_server_is_silent_nobody_new_is_let_in",
        while_the_api_server_is_silent_nobody_new_is_let_in,
    ),
    (
        "host_token::the_socket_is_roots_alone",
        the_socket_is_roots_alone,
    ),
    (
        "host_token::a_port_is_open_on_loopback_and_only_where_asked",
        a_port_is_open_on_loopback_and_only_where_asked,
    ),
];

fn the_api_server_decides_who_asks_on_behalf_of_whom(server: &Server) {
    stage(server);
    let provider = bearer(server, "provider", "node-a");
    let (status, _, body) = ask_at_socket("web", &provider);
    assert_eq!((status, &body["clientid"]), (200, &json!(CLIENT)), "{body}");
    assert!(
        body["token"]["access_token"]
            .as_str()
            .unwrap()
            .starts_with("ey")
    );
    let other = bearer(server, "other", "node-a");
    let limited = bearer(server, "limited", "node-a");
    for (bearer, namespace, pod, expected) in [
        // Bound to nobody.
        (&other, PODS, "web", 403),
        (&other, PODS, "none", 403),
        // By the pod's name.
        (&limited, PODS, "web", 200),
        (&limited, PODS, "till", 403),
        (&provider, PODS, "till", 200),
        // The right ends with its namespace.
        (&provider, CALLERS, "other-node-a", 403),
        (&provider, "shop", "web", 403),
        // Pods of this node only.
        (&provider, PODS, "far", 404),
        (&provider, PODS, "none", 404),
    ] {
        let headers = format!("Authorization: Bearer {bearer}\r\n");
        let (status, head, body) = ask_for(namespace, pod, &headers);
        assert_eq!(status, expected, "{namespace}/{pod}: {body}");
        assert!(status == 200 || body["error"].is_string(), "{body}");
        assert!(!head.contains("retry-after"), "{head}");
    }
    // What is stolen on another node: its agent would give it that node's pods' tokens, this one nothing.
    let abroad = bearer_of_node_b(server);
    let (status, _, body) = ask_at_socket("web", &abroad);
    assert_eq!(status, 403, "{body}");
    assert!(
        body["error_description"]
            .as_str()
            .unwrap()
            .contains("another node"),
        "{body}"
    );
    // One that is bound to no pod says nothing of a node: roles decide alone.
    let unbound = token_for(server, "provider", &[AUDIENCE], None);
    assert_eq!(ask_at_socket("web", &unbound).0, 200);
    let log = server.log("first");
    let line = log.lines().find(|line| {
        line.contains("token decision")
            && line.contains(&format!("system:serviceaccount:{CALLERS}:provider"))
    });
    assert!(
        line.is_some_and(|line| line.contains("mounts/web")),
        "{log}"
    );
    for token in [&provider, &other, &abroad] {
        assert!(
            !log.contains(token.rsplit('.').next().unwrap()),
            "a token is in the log"
        );
    }
}

fn bearer_of_node_b(server: &Server) -> String {
    token_for(server, "provider", &[AUDIENCE], Some("provider-node-b"))
}

fn only_valid_tokens_of_the_audience_prove_who_asks(server: &Server) {
    stage(server);
    let good = bearer(server, "provider", "node-a");
    let bound = Some("provider-node-a");
    let parts: Vec<_> = good.split('.').collect();
    let payload = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    let key = server.read("key.pem");
    let signed = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims.clone();
        change(&mut claims);
        let key = EncodingKey::from_ec_pem(&key).unwrap();
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
    };
    let foreign = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let foreign = EncodingKey::from_ec_pem(foreign.as_bytes()).unwrap();
    let foreign = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &foreign).unwrap();
    let past = |claims: &mut Value| {
        let now = claims["iat"].as_u64().unwrap();
        for (claim, ago) in [("iat", 7200), ("nbf", 7200), ("exp", 60)] {
            claims[claim] = json!(now - ago);
        }
    };
    for (what, token, expected) in [
        // Of ours, and signed by us: then it is the change that is refused.
        ("signed anew", signed(&|_| ()), 200),
        (
            "several audiences",
            token_for(server, "provider", &["other", AUDIENCE], bound),
            200,
        ),
        ("expired", signed(&past), 401),
        (
            "another audience",
            token_for(server, "provider", &["api://AzureADTokenExchange"], bound),
            401,
        ),
        (
            "the API server's audience",
            token_for(
                server,
                "provider",
                &["https://kubernetes.default.svc"],
                bound,
            ),
            401,
        ),
        (
            "no audience",
            token_for(server, "provider", &[], bound),
            401,
        ),
        (
            "a longer audience",
            token_for(server, "provider", &["lanyard.dev.example.com"], bound),
            401,
        ),
        ("another key", foreign, 401),
        (
            "another's signature",
            format!("{}.{}.{}", parts[0], parts[1], "c2lnbmF0dXJl"),
            401,
        ),
        ("no signature", format!("{}.{}.", parts[0], parts[1]), 401),
        ("garbage", "garbage".to_owned(), 401),
        // Of a cluster's administrator, who has no audience.
        ("a static token", crate::server::TOKEN.to_owned(), 401),
    ] {
        let (status, head, body) = ask_at_socket("web", &token);
        assert_eq!(status, expected, "{what}: {body}");
        assert_eq!(
            head.contains("www-authenticate: bearer"),
            expected == 401,
            "{what}: {head}"
        );
    }
    for headers in [
        "",
        "Authorization: Basic YTpi\r\n",
        "Authorization: Bearer\r\n",
    ] {
        assert_eq!(ask_for(PODS, "web", headers).0, 401, "{headers}");
    }
}

/// What is asked until the answer is this one; the first is a token.
fn ends(token: &str, status: u16) -> impl FnMut() -> Result<(), String> + '_ {
    assert_eq!(ask_at_socket("till", token).0, 200);
    move || {
        let (now, _, body) = ask_at_socket("till", token);
        (now == status)
            .then_some(())
            .ok_or(format!("{now}: {body}"))
    }
}

fn what_is_taken_away_ends_within_seconds(server: &Server) {
    stage(server);
    // A token dies with the pod that it is bound to.
    thief::pod(
        server,
        CALLERS,
        "provider-short",
        Some("node-a"),
        "provider",
    );
    let token = token_for(server, "provider", &[AUDIENCE], Some("provider-short"));
    let refused = ends(&token, 401);
    let path = format!("/api/v1/namespaces/{CALLERS}/pods/provider-short?gracePeriodSeconds=0");
    server.send("DELETE", &path, &Value::Null).unwrap();
    server.patiently("the caller's pod is gone", refused);
    let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{PODS}/rolebindings");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "short"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lanyard-host-token"},
        "subjects": [{"kind": "ServiceAccount", "name": "other", "namespace": CALLERS}]});
    let token = bearer(server, "other", "node-a");
    assert_eq!(ask_at_socket("till", &token).0, 403);
    server.made(&path, &binding);
    // A refusal is not kept: only the API server's own view of roles lags.
    server.patiently("the role is bound", || {
        let (status, _, body) = ask_at_socket("till", &token);
        (status == 200)
            .then_some(())
            .ok_or(format!("{status}: {body}"))
    });
    let refused = ends(&token, 403);
    server
        .send("DELETE", &format!("{path}/short"), &Value::Null)
        .unwrap();
    server.patiently("the role is not bound any more", refused);
}

fn while_the_api_server_is_silent_nobody_new_is_let_in(server: &Server) {
    stage(server);
    let known = bearer(server, "provider", "node-a");
    let (unknown, other) = (
        bearer(server, "provider", "node-a"),
        bearer(server, "other", "node-a"),
    );
    assert_eq!(ask_at_socket("web", &known).0, 200);
    server.silent(|| {
        assert_eq!(ask_at_socket("web", &known).0, 200, "asked a moment ago");
        for token in [&unknown, &other] {
            let (status, head, body) = ask_at_socket("web", token);
            assert_eq!(status, 503, "{body}");
            assert!(head.contains("retry-after: "), "{head}");
        }
    });
    server.wait("/readyz");
    server.patiently("the API server answers", || {
        let (status, _, body) = ask_at_socket("web", &unknown);
        (status == 200)
            .then_some(())
            .ok_or(format!("{status}: {body}"))
    });
    assert_eq!(ask_at_socket("web", &other).0, 403);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn the_socket_is_roots_alone(server: &Server) {
    stage(server);
    let socket = Path::new(SOCKET);
    let folder = socket.parent().unwrap();
    assert_eq!((mode(socket), mode(folder)), (0o600, 0o700));
    // A shared folder is left as it is, and no agent starts there.
    let told = refused(&[
        "--host-token-socket=/run/token.sock",
        "--kubeconfig=/none",
        "--node-name=a",
    ]);
    assert!(told.contains("--kubeconfig /none"), "{told}");
    let kubeconfig = format!(
        "--kubeconfig={}",
        server.kubeconfig_path("host.kubeconfig").display()
    );
    let before = mode(Path::new("/run"));
    let state = [
        "--state-dir=/run/lanyard-none",
        "--admin-listen=127.0.0.1:9499",
        "--self-test=false",
    ];
    for path in ["/run/token.sock", "token.sock", "/"] {
        let flag = format!("--host-token-socket={path}");
        let told = refused(&[&[&*flag, &kubeconfig, "--node-name=node-z"], &state[..]].concat());
        assert!(told.contains("--host-token-socket"), "{told}");
    }
    assert_eq!(mode(Path::new("/run")), before);
    if lanyard::lab::unprivileged() {
        // There is nobody else here to ask as: the modes are all that can be looked at.
        return;
    }
    let token = bearer(server, "provider", "node-a");
    assert_eq!(nobody_asks(&token), None, "as nobody");
    // Were the modes ever wider: the kernel says who connects.
    let widen = |folder_mode, socket_mode| {
        for (path, mode) in [(folder, folder_mode), (socket, socket_mode)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    widen(0o755, 0o666);
    let answer = nobody_asks(&token);
    widen(0o700, 0o600);
    let answer = answer.expect("connected");
    assert!(
        answer.contains("Only root may ask at this socket"),
        "{answer}"
    );
    assert!(server.log("first").contains("the host's socket, uid 65534"));
}

/// As a user without rights; `None` where there is no connection.
fn nobody_asks(token: &str) -> Option<String> {
    let done = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--",
            "curl",
            "-s",
            "-m",
            "20",
        ])
        .args([
            "--unix-socket",
            SOCKET,
            "-H",
            "podname: web",
            "-H",
            &format!("podns: {PODS}"),
        ])
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .arg("http://localhost/host/token/?resource=https://vault.azure.net")
        .output()
        .unwrap();
    done.status
        .success()
        .then(|| String::from_utf8(done.stdout).unwrap())
}

/// What an agent says that does not start.
fn refused(args: &[&str]) -> String {
    let done = Command::new("timeout")
        .args(["-k", "5", "30"])
        .arg(program())
        .arg("agent")
        .args(args)
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(
        !matches!(done.status.code(), Some(0 | 124)),
        "it started: {said}"
    );
    said
}

/// Addresses that somebody listens on at the port, as the kernel writes them.
fn listening() -> Vec<String> {
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap();
        for line in text.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let (address, port) = words[1].split_once(':').unwrap();
            if words[3] == "0A" && u16::from_str_radix(port, 16).unwrap() == PORT {
                found.push(address.to_owned());
            }
        }
    }
    found
}

fn a_port_is_open_on_loopback_and_only_where_asked(server: &Server) {
    stage(server);
    for (flags, words) in [
        (
            &["--host-token-listen=0.0.0.0:2579", "--node-name=a"][..],
            "only a loopback address",
        ),
        (
            &["--host-token-listen=10.0.0.1:2579", "--node-name=a"],
            "only a loopback address",
        ),
        (
            &["--host-token-listen=127.0.0.1:2579", "--manifests=/run"],
            "cannot be used with",
        ),
        (
            &["--host-token-socket=/run/x/s", "--manifests=/run"],
            "cannot be used with",
        ),
    ] {
        let told = refused(flags);
        assert!(told.contains(words), "{flags:?}: {told}");
    }
    let token = bearer(server, "provider", "node-a");
    assert!(listening().is_empty());
    assert_eq!(ask_at_port("web", &token).0, 0);
    let listen = format!("--host-token-listen=127.0.0.1:{PORT}");
    // Meanwhile nobody at the socket notices.
    upgrade(server, &[&listen], || {
        let (status, head, body) = ask_at_socket("web", &token);
        assert_eq!(status, 200, "{head} {body}");
    });
    server.patiently("the port", || {
        let (status, head, _) = ask_at_port("web", &token);
        (status == 200).then_some(()).ok_or(head)
    });
    assert_eq!(listening(), ["0100007F"], "127.0.0.1 and nothing else");
    assert_eq!(ask_at_port("web", "garbage").0, 401);
    assert_eq!(
        ask_at_port("till", &bearer(server, "limited", "node-a")).0,
        403
    );
}
