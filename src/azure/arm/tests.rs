//! What the client sends and how it reads what comes back, on loopback.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::azure::access::{AccessConfig, How};
use crate::azure::https::{HttpsConfig, Roots};

const LIMIT: Duration = Duration::from_secs(20);
const NOW: Duration = Duration::from_hours(500_000);
const VM: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v";
const A: &str = "/subscriptions/s/resourceGroups/g.x(1)/providers/Microsoft.ManagedIdentity/userAssignedIdentities/a";
const B: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/b";

/// ARM and IMDS in one: token requests get a token, everything else the next answer.
struct Server {
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (seen, answers) = (Arc::default(), Arc::default());
        let server = Self {
            base,
            seen: Arc::clone(&seen),
            answers: Arc::clone(&answers),
        };
        tokio::spawn(async move {
            let mut tokens = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = request(&mut stream).await;
                let answer = if request.starts_with("GET /metadata/") {
                    tokens += 1;
                    let token = format!(r#"{{"access_token":"t{tokens}","expires_in":"3600"}}"#);
                    answer(200, "", &token)
                } else {
                    seen.lock().push(request);
                    answers.lock().pop_front().unwrap_or_default()
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        server
    }

    fn answers(&self, status: u16, headers: &str, body: &Value) {
        let text = answer(status, headers, &body.to_string());
        self.answers.lock().push_back(text);
    }

    fn client(&self) -> ArmClient {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let roots = Roots::Only(params.self_signed(&key).unwrap().pem());
        let https = HttpsClient::new(&HttpsConfig {
            roots,
            ..HttpsConfig::default()
        });
        let https = https.unwrap();
        let access = Access::new(AccessConfig {
            how: How::NodeIdentity {
                imds_endpoint: self.base.clone(),
                client_id: None,
            },
            client_id: None,
            tenant: None,
            authority_host: String::new(),
            audience: "https://management.azure.com".to_owned(),
            https: https.clone(),
            now: || NOW,
        });
        ArmClient::new(&self.base, https, access.unwrap(), || NOW).unwrap()
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock())
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn request(stream: &mut tokio::net::TcpStream) -> String {
    let (mut read, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        read.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        let whole = read.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            length.is_none_or(|length| length.parse() == Ok(body.len()))
        });
        if whole || count == 0 {
            return read;
        }
    }
}

fn vm() -> Compute {
    VM.parse().unwrap()
}

fn shown_as(state: &str, kind: &str, ids: &[&str]) -> Value {
    let principal = json!({"clientId": "A0000000-0000-4000-8000-00000000000A", "principalId": "b0000000-0000-4000-8000-00000000000b"});
    let map: serde_json::Map<_, _> = ids
        .iter()
        .map(|id| ((*id).to_owned(), principal.clone()))
        .collect();
    json!({"id": VM, "location": "westeurope", "etag": "\"7\"",
        "identity": {"type": kind, "tenantId": "72f988bf-0000-4000-8000-00000000000a", "userAssignedIdentities": map},
        "properties": {"provisioningState": state}})
}

#[tokio::test]
async fn a_virtual_machine_is_read() {
    let server = Server::start().await;
    let kind = "SystemAssigned, UserAssigned";
    server.answers(200, "", &shown_as("Succeeded", kind, &[&A.to_uppercase()]));
    let shown = server.client().compute(&vm(), LIMIT).await.unwrap();
    assert_eq!(shown.etag.as_deref(), Some("\"7\""));
    assert_eq!(shown.location.as_deref(), Some("westeurope"));
    assert!(shown.system_assigned && shown.tenant.is_some());
    assert_eq!(shown.state, ProvisioningState::Succeeded);
    let principal = shown.identities[&A.parse::<ArmId>().unwrap()];
    assert!(principal.client_id.is_some() && principal.principal_id.is_some());
    let [request] = &server.seen()[..] else {
        panic!("one request");
    };
    assert!(
        request.starts_with(&format!("GET {VM}?api-version=2024-11-01 HTTP/1.1\r\n")),
        "{request}"
    );
    assert!(
        request.contains("authorization: Bearer t1\r\n"),
        "{request}"
    );
}

fn ids(texts: &[&str]) -> Vec<ArmId> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn read_as(kind: &str, there: &[&str]) -> ComputeShown {
    compute::read(&shown_as("Succeeded", kind, there), None).unwrap()
}

#[test]
fn the_type_says_what_is_left() {
    for (kind, there, add, remove, expected) in [
        (
            "None",
            &[][..],
            &[A][..],
            &[][..],
            json!({"type": "UserAssigned", "userAssignedIdentities": {A: {}}}),
        ),
        (
            "SystemAssigned",
            &[],
            &[A],
            &[],
            json!({"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {A: {}}}),
        ),
        ("UserAssigned", &[A], &[], &[A], json!({"type": "None"})),
        (
            "SystemAssigned, UserAssigned",
            &[A],
            &[],
            &[A],
            json!({"type": "SystemAssigned"}),
        ),
        (
            "UserAssigned",
            &[A],
            &[B],
            &[A],
            json!({"type": "UserAssigned", "userAssignedIdentities": {A: null, B: {}}}),
        ),
        // One that cannot be read as an id is somebody's: it stays.
        (
            "UserAssigned",
            &[A, "/odd id"],
            &[],
            &[A],
            json!({"type": "UserAssigned", "userAssignedIdentities": {A: null}}),
        ),
        // Another case is the same identity.
        (
            "UserAssigned",
            &[&*A.to_lowercase().leak()],
            &[],
            &[A],
            json!({"type": "None"}),
        ),
    ] {
        let patch = IdentityPatch::of(&read_as(kind, there), ids(add), ids(remove));
        assert_eq!(
            patch.body(),
            json!({"identity": expected}),
            "{kind} {there:?}"
        );
    }
}

#[tokio::test]
async fn a_patch_is_sent_once_and_followed_to_its_end() {
    let server = Server::start().await;
    let client = server.client();
    client.prepare(LIMIT).await.unwrap();
    let patch = IdentityPatch::of(&read_as("UserAssigned", &[A]), ids(&[B]), ids(&[A]));
    let place = format!("{}/subscriptions/s/operations/1", server.base);
    let headers = format!("Azure-AsyncOperation: {place}\r\nRetry-After: 3\r\n");
    server.answers(200, &headers, &shown_as("Updating", "UserAssigned", &[A]));
    let submitted = client.patch(&vm(), &patch, LIMIT).await.unwrap();
    let Submitted::Running(operation) = submitted else {
        panic!("{submitted:?}");
    };
    assert_eq!(operation.after, Duration::from_secs(3));
    let [request] = &server.seen()[..] else {
        panic!("one request");
    };
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("PATCH ") && head.contains("if-match: \"7\""));
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), patch.body());

    server.answers(200, "Retry-After: 2\r\n", &json!({"status": "InProgress"}));
    let progress = client.progress(&operation, LIMIT).await.unwrap();
    let after = Duration::from_secs(2);
    assert_eq!(progress, Progress::Running { after });
    server.answers(200, "", &json!({"status": "Succeeded"}));
    let progress = client.progress(&operation, LIMIT).await.unwrap();
    assert_eq!(progress, Progress::Succeeded);
    server.answers(200, "", &json!({"status": "Canceled"}));
    let progress = client.progress(&operation, LIMIT).await.unwrap();
    assert_eq!(progress, Progress::Canceled);
    let error = json!({"code": "FailedIdentityOperation", "message": format!("Status: 'BadRequest'. '{B}'")});
    server.answers(200, "", &json!({"status": "Failed", "error": error}));
    let progress = client.progress(&operation, LIMIT).await.unwrap();
    let Progress::Failed(error) = progress else {
        panic!("{progress:?}");
    };
    assert_eq!(
        (error.kind, error.identities),
        (ArmErrorKind::BadIdentity, ids(&[B]))
    );
    // Compute forgot it: the resource itself says.
    server.answers(
        404,
        "",
        &json!({"error": {"code": "NotFound", "message": "x"}}),
    );
    server.answers(200, "", &shown_as("Succeeded", "UserAssigned", &[B]));
    let progress = client.progress(&operation, LIMIT).await.unwrap();
    assert_eq!(progress, Progress::Succeeded);
}

#[tokio::test]
async fn nobody_else_gets_our_token() {
    let server = Server::start().await;
    let client = server.client();
    let patch = IdentityPatch::of(&read_as("None", &[]), ids(&[A]), Vec::new());
    let port = server.base.rsplit(':').next().unwrap();
    for place in [
        "http://169.254.169.254/x".to_owned(),
        format!("http://localhost:{port}/x"),
        "http://127.0.0.1:1/x".to_owned(),
        format!("https://127.0.0.1:{port}/x"),
        format!("http://127.0.0.1:{port}@evil.example/x"),
        format!("//127.0.0.1:{port}/x"),
    ] {
        let headers = format!("Azure-AsyncOperation: {place}\r\nLocation: {place}\r\n");
        server.answers(202, &headers, &json!({}));
        let submitted = client.patch(&vm(), &patch, LIMIT).await.unwrap();
        let Submitted::Running(operation) = submitted else {
            panic!("{submitted:?}");
        };
        server.answers(200, "", &shown_as("Updating", "UserAssigned", &[A]));
        let progress = client.progress(&operation, LIMIT).await.unwrap();
        assert_eq!(progress, Progress::Running { after: PAUSE }, "{place}");
        let asked = server.seen().pop().unwrap();
        assert!(asked.starts_with(&format!("GET {VM}?")), "{place}: {asked}");
    }
    let next = json!({"value": [], "nextLink": "https://evil.example/more"});
    server.answers(200, "", &next);
    let listed = client.federated_credentials(&ids(&[B])[0], LIMIT).await;
    assert_eq!(listed.unwrap_err().kind, ArmErrorKind::Nonsense);
}

#[tokio::test]
async fn a_call_is_repeated_with_another_token_and_never_with_the_same() {
    let server = Server::start().await;
    let client = server.client();
    let expired = json!({"error": {"code": "ExpiredAuthenticationToken", "message": "expired"}});
    let patch = IdentityPatch::of(&read_as("None", &[]), ids(&[A]), Vec::new());
    server.answers(401, "", &expired);
    server.answers(200, "", &shown_as("Succeeded", "UserAssigned", &[A]));
    client.patch(&vm(), &patch, LIMIT).await.unwrap();
    let seen = server.seen();
    assert!(seen[0].contains("Bearer t1\r\n") && seen[1].contains("Bearer t2\r\n"));
    assert_eq!(
        seen[0].split("\r\n\r\n").nth(1),
        seen[1].split("\r\n\r\n").nth(1)
    );
    // Within the minute there is no third token, and the second one is refused.
    server.answers(401, "", &expired);
    let error = client.compute(&vm(), LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::Unauthenticated);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn identities_are_made_and_deleted_and_nothing_else_is() {
    let server = Server::start().await;
    let client = server.client();
    let [a, b] = &ids(&[A, B])[..] else {
        panic!("two");
    };
    let shown = json!({"id": A, "location": "westeurope", "tags": {"k": "v"},
        "properties": {"clientId": "a0000000-0000-4000-8000-00000000000a", "principalId": "b0000000-0000-4000-8000-00000000000b", "tenantId": "72f988bf-0000-4000-8000-00000000000a"}});
    server.answers(201, "", &shown);
    let wanted = IdentityWanted {
        location: "westeurope".to_owned(),
        tags: [("k".to_owned(), "v".to_owned())].into(),
    };
    let made = client.put_identity(a, &wanted, LIMIT).await.unwrap();
    assert_eq!((&made.id, &made.tags), (a, &wanted.tags));
    assert!(made.client_id.is_some() && made.principal_id.is_some() && made.tenant_id.is_some());
    let request = server.seen().pop().unwrap();
    assert!(request.contains("/resourceGroups/g.x%281%29/"), "{request}");
    server.answers(204, "", &json!(null));
    assert!(!client.delete_identity(b, LIMIT).await.unwrap());
    server.answers(200, "", &json!(null));
    assert!(client.delete_identity(b, LIMIT).await.unwrap());
    let credential = FederatedCredential {
        name: "x".to_owned(),
        issuer: "https://issuer".to_owned(),
        subject: "system:serviceaccount:a:b".to_owned(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
    };
    server.answers(201, "", &json!({}));
    let put = client.put_federated_credential(a, &credential, LIMIT);
    put.await.unwrap();
    let properties = credential.body()["properties"].clone();
    server.answers(
        200,
        "",
        &json!({"value": [{"name": "x", "properties": properties}]}),
    );
    let listed = client.federated_credentials(a, LIMIT).await.unwrap();
    assert_eq!(listed, [credential]);
    server.seen();
    for id in [VM, "/subscriptions/s/resourceGroups/g"] {
        let error = client.delete_identity(&id.parse().unwrap(), LIMIT).await;
        assert_eq!(error.unwrap_err().kind, ArmErrorKind::BadIdentity);
    }
    for name in ["", ".", ".."] {
        let deleted = client.delete_federated_credential(a, name, LIMIT).await;
        assert_eq!(deleted.unwrap_err().kind, ArmErrorKind::BadIdentity);
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn what_is_no_answer_is_typed() {
    let server = Server::start().await;
    let client = server.client();
    let kind = async |text: String| {
        server.answers.lock().push_back(text);
        let error = client.compute(&vm(), LIMIT).await.unwrap_err();
        (error.kind, error.may_have_happened())
    };
    let nonsense = (ArmErrorKind::Nonsense, true);
    assert_eq!(kind(answer(200, "", "<html>")).await, nonsense);
    assert_eq!(kind(answer(200, "", "{\"id\":")).await, nonsense);
    assert_eq!(kind(answer(200, "", "{\"a\":1}")).await, nonsense);
    assert_eq!(kind(String::new()).await, (ArmErrorKind::Unavailable, true));
    assert_eq!(
        kind("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned()).await,
        (ArmErrorKind::Unavailable, true)
    );
    let small = Duration::from_millis(1);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let deaf = ArmClient {
        endpoint: Endpoint::new(&address).unwrap(),
        ..client
    };
    let error = deaf.compute(&vm(), small).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::Unavailable);
}
