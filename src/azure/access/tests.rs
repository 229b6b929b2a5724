//! Who we are, against files and a server on loopback.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::azure::https::{HttpsConfig, Roots};

const LIMIT: Duration = Duration::from_secs(20);
const CLIENT: &str = "a0000000-0000-4000-8000-00000000000b";
const TENANT: &str = "72f988bf-0000-4000-8000-00000000000a";
const START: u64 = 1_800_000_000;

/// Entra that knows some proofs, by a part of the form that holds them; IMDS for everybody.
#[derive(Clone)]
struct Entra {
    base: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    valid: Vec<String>,
    wants_rs256: bool,
    is_down: bool,
    seen: Vec<String>,
}

impl Entra {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let entra = Self {
            base: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let served = entra.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut read, mut buffer) = (String::new(), [0; 4096]);
                loop {
                    let count = stream.read(&mut buffer).await.unwrap();
                    read.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
                    let whole = read.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                        let mut lines = head.lines();
                        let length = lines.find_map(|line| line.strip_prefix("content-length: "));
                        length.is_none_or(|length| length.parse() == Ok(body.len()))
                    });
                    if whole || count == 0 {
                        break;
                    }
                }
                let (status, body) = served.judged(&read);
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        entra
    }

    fn judged(&self, request: &str) -> (u16, String) {
        let mut state = self.state.lock();
        state.seen.push(request.to_owned());
        let refusal = |word: &str, code: u32| {
            format!(r#"{{"error":"{word}","error_description":"AADSTS{code}: no."}}"#)
        };
        if state.is_down {
            return (503, String::new());
        }
        if request.starts_with("GET /metadata/") {
            let token = r#"{"access_token":"eyJhbGciOiJ9.eyJvaWQiOiJkNzU4NmI5NC0wYTU2LTQzY2MtYjNmNC00ZTkxZDEzM2ZlNjcifQ.c2ln","expires_in":"3600"}"#;
            return (200, token.to_owned());
        }
        if state.wants_rs256 && jwt_header(request).contains("PS256") {
            return (400, refusal("invalid_request", 5_002_738));
        }
        let presented = state
            .valid
            .iter()
            .find(|valid| request.contains(&**valid) || jwt_header(request).contains(&**valid));
        match presented {
            Some(valid) => (
                200,
                format!(r#"{{"access_token":"for-{valid}","expires_in":3600}}"#),
            ),
            None if request.contains("jwt-bearer") && !jwt_header(request).contains("x5t") => {
                (400, refusal("invalid_client", 700_213))
            }
            None => (401, refusal("invalid_client", 7_000_215)),
        }
    }

    fn takes(&self, proofs: &[&str]) {
        self.state.lock().valid = proofs.iter().map(ToString::to_string).collect();
    }

    fn asked(&self) -> usize {
        self.state.lock().seen.len()
    }

    fn access(&self, how: How, now: fn() -> Duration) -> Access {
        Access::new(self.config(how, now)).unwrap()
    }

    fn config(&self, how: How, now: fn() -> Duration) -> AccessConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        let roots = Roots::Only(params.self_signed(&key).unwrap().pem());
        let https = HttpsClient::new(&HttpsConfig {
            roots,
            ..HttpsConfig::default()
        });
        AccessConfig {
            how,
            client_id: Some(CLIENT.parse().unwrap()),
            tenant: Some(TENANT.parse().unwrap()),
            authority_host: self.base.clone(),
            audience: "https://management.azure.com".to_owned(),
            https: https.unwrap(),
            now,
        }
    }
}

/// The header of the assertion in a form.
fn jwt_header(request: &str) -> String {
    let assertion = request
        .split("client_assertion=")
        .nth(1)
        .unwrap_or_default();
    let header = assertion.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    String::from_utf8_lossy(&header).into_owned()
}

fn still() -> Duration {
    Duration::from_secs(START)
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

async fn told(access: &Access) -> String {
    access.token(LIMIT).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_secret_gets_one_token_for_all_who_wait() {
    let (entra, dir) = (Entra::start().await, tempfile::tempdir().unwrap());
    write(dir.path(), "clientSecret", "s3cr3t~one\n");
    entra.takes(&["s3cr3t~one"]);
    let how = How::Secret {
        dir: dir.path().to_owned(),
    };
    let access = entra.access(how, still);
    let (one, two) = tokio::join!(access.token(LIMIT), access.token(LIMIT));
    assert_eq!(one.unwrap().expose(), "for-s3cr3t~one");
    assert_eq!(two.unwrap().expose(), "for-s3cr3t~one");
    access.token(LIMIT).await.unwrap();
    assert_eq!(entra.asked(), 1);
    let request = entra.state.lock().seen[0].clone();
    assert!(request.starts_with(&format!("POST /{TENANT}/oauth2/v2.0/token ")));
    assert!(request.contains("scope=https%3A%2F%2Fmanagement.azure.com%2F.default"));
    assert!(!format!("{access:?}").contains("s3cr3t"), "{access:?}");
}

#[tokio::test]
async fn a_new_secret_is_taken_up_and_the_old_one_stays_until_it_works() {
    static NOW: AtomicU64 = AtomicU64::new(START);
    let (entra, dir) = (Entra::start().await, tempfile::tempdir().unwrap());
    write(dir.path(), "clientSecret", "one");
    entra.takes(&["secret=one"]);
    let how = How::Secret {
        dir: dir.path().to_owned(),
    };
    let access = entra.access(how, || Duration::from_secs(NOW.load(Ordering::Relaxed)));
    access.token(LIMIT).await.unwrap();
    // Not known to Entra yet: the old one is used, at the look and when the token ends.
    write(dir.path(), "clientSecret", "two");
    NOW.fetch_add(3_400, Ordering::Relaxed);
    renewed(&access).await;
    assert_eq!(
        access.token(LIMIT).await.unwrap().expose(),
        "for-secret=one"
    );
    let seen = entra.state.lock().seen.clone();
    assert_eq!(seen.len(), 3);
    assert!(seen[1].contains("secret=two") && seen[2].contains("secret=one"));
    // A mistake in the file takes nothing away.
    write(dir.path(), "clientSecret", "\n");
    NOW.fetch_add(3_400, Ordering::Relaxed);
    renewed(&access).await;
    // The good one is used as soon as it is there, long before the token ends.
    write(dir.path(), "clientSecret", "three");
    entra.takes(&["secret=three"]);
    NOW.fetch_add(31, Ordering::Relaxed);
    renewed(&access).await;
    assert_eq!(
        access.token(LIMIT).await.unwrap().expose(),
        "for-secret=three"
    );
}

/// Asks, and waits for the renewal that this began.
async fn renewed(access: &Access) {
    let mut ended = access.inner.ended.subscribe();
    access.token(LIMIT).await.unwrap();
    let waited = tokio::time::timeout(LIMIT, ended.changed()).await;
    waited.unwrap().unwrap();
}

#[tokio::test]
async fn a_certificate_signs_as_the_authority_takes_it() {
    let (entra, dir) = (Entra::start().await, tempfile::tempdir().unwrap());
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "controller");
    let certificate = params.self_signed(&key).unwrap().pem();
    write(dir.path(), "tls.crt", &certificate);
    let how = How::Certificate {
        dir: dir.path().to_owned(),
        send_chain: false,
    };
    let access = entra.access(how.clone(), still);
    let error = told(&access).await;
    assert!(
        error.contains("tls.key does not exist") && error.contains("controller.azure.secretName"),
        "{error}"
    );
    write(dir.path(), "tls.key", &key.serialize_pem());
    let access = entra.access(how.clone(), still);
    let error = told(&access).await;
    assert!(
        error.contains("register the certificate with SHA-256"),
        "{error}"
    );
    entra.takes(&["x5t#S256"]);
    entra.state.lock().wants_rs256 = true;
    let access = entra.access(how, still);
    access.token(LIMIT).await.unwrap();
    let seen = entra.state.lock().seen.clone();
    let [.., ps, rs] = &seen[..] else {
        panic!("two");
    };
    assert!(jwt_header(ps).contains("PS256") && jwt_header(rs).contains("RS256"));
}

#[tokio::test]
async fn our_own_federated_token_is_read_each_time_and_a_mismatch_says_what_to_register() {
    let (entra, dir) = (Entra::start().await, tempfile::tempdir().unwrap());
    let token_file = dir.path().join("token");
    let claims = r#"{"iss":"https://oidc.example/","sub":"system:serviceaccount:lanyard-system:lanyard-controller","aud":["api://AzureADTokenExchange"]}"#;
    let jwt = format!(
        "eyJhbGciOiJSUzI1NiJ9.{}.sig",
        URL_SAFE_NO_PAD.encode(claims)
    );
    std::fs::write(&token_file, &jwt).unwrap();
    let how = How::Federated { token_file };
    let access = entra.access(how.clone(), still);
    let error = told(&access).await;
    for word in [
        CLIENT,
        "issuer https://oidc.example/",
        "subject system:serviceaccount:lanyard-system:lanyard-controller",
        "audience api://AzureADTokenExchange",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(!error.contains("eyJ"), "{error}");
    entra.takes(&[&jwt]);
    let access = entra.access(how, still);
    access.token(LIMIT).await.unwrap();
}

#[tokio::test]
async fn the_node_s_identity_comes_from_imds_and_anew_after_a_refusal() {
    let entra = Entra::start().await;
    let how = How::NodeIdentity {
        imds_endpoint: entra.base.clone(),
        client_id: Some(CLIENT.parse().unwrap()),
    };
    let access = entra.access(how, still);
    let token = access.token(LIMIT).await.unwrap();
    let oid = "d7586b94-0a56-43cc-b3f4-4e91d133fe67".parse().unwrap();
    assert_eq!(access.object_id(), Some(oid));
    assert!(access.refused(&token));
    access.token(LIMIT).await.unwrap();
    let seen = entra.state.lock().seen.clone();
    assert_eq!(seen.len(), 2);
    assert!(
        seen[0].contains(&format!("&client_id={CLIENT} HTTP")),
        "{}",
        seen[0]
    );
    assert!(seen[1].contains("&bypass_cache=true"), "{}", seen[1]);
}

#[tokio::test]
async fn trouble_is_told_at_once_and_not_repeated_in_a_loop() {
    let (entra, dir) = (Entra::start().await, tempfile::tempdir().unwrap());
    let how = How::Secret {
        dir: dir.path().to_owned(),
    };
    let access = entra.access(how, still);
    let error = access.token(LIMIT).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(
        error.to_string().contains("clientSecret does not exist"),
        "{error}"
    );
    write(dir.path(), "clientSecret", "one");
    entra.state.lock().is_down = true;
    let access = Access::new(entra.config(access.inner.config.how.clone(), still)).unwrap();
    for _ in 0..5 {
        let error = access.token(LIMIT).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    assert_eq!(entra.asked(), 1);
}

#[test]
fn a_configuration_that_cannot_work_is_told_at_the_start() {
    let entra = Entra {
        base: "https://login.microsoftonline.com".to_owned(),
        state: Arc::default(),
    };
    let how = How::Secret {
        dir: "/nowhere".into(),
    };
    let config = entra.config(how, still);
    let made = |config: AccessConfig| Access::new(config).map(drop).unwrap_err().to_string();
    let without = AccessConfig {
        tenant: None,
        ..config.clone()
    };
    assert!(made(without).contains("--tenant-id"));
    let without = AccessConfig {
        client_id: None,
        ..config.clone()
    };
    assert!(made(without).contains("--client-id"));
    let authority_host = "http://login.microsoftonline.com".to_owned();
    let plain = AccessConfig {
        authority_host,
        ..config
    };
    assert!(made(plain).contains("authority"));
}
