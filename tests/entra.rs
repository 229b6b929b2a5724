//! The client of Entra against the simulator's Entra, over loopback: two encodings of one protocol meet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lanyard::azure::credential::{
    AssertionAlgorithm, AssertionRequest, Certificate, certificates_from_pem,
};
use lanyard::azure::entra::{EntraClient, EntraError, Proof, TokenRequest, token_endpoint};
use lanyard::azure::https::{HttpsClient, HttpsConfig, ProxyRules, Roots};
use lanyard::model::token::Token;
use lanyard::serve::clock;
use lanyard::sim::faults::{Effect, Fault as Trouble, Target};
use lanyard::sim::{Listen, Simulator, World};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

const TENANT: &str = "72f988bf-0000-4000-8000-00000000000a";
const APP: &str = "a0000000-0000-4000-8000-000000000001";
const VAULT: &str = "https://vault.azure.net";
const LIMIT: Duration = Duration::from_secs(20);

async fn azure() -> Simulator {
    azure_with("").await
}

/// `more` of the application, one line for each field; the rest of the world after an empty line.
async fn azure_with(more: &str) -> Simulator {
    let yaml = format!(
        "tenant: {{id: {TENANT}}}\nvms: [{{name: node-1, identities: []}}]\napplications:\n  - name: app\n    clientID: {APP}\n    principalID: {APP}\n    secrets: [s3cr3t-value-1]\n{more}"
    );
    let world = World::from_yaml(&yaml).unwrap();
    Simulator::start(world, Listen::loopback()).await.unwrap()
}

fn client(config: &HttpsConfig) -> EntraClient {
    EntraClient::new(HttpsClient::new(config).unwrap())
}

/// Roots are of no matter over loopback, but a client has some.
fn plain(azure: &Simulator) -> EntraClient {
    client(&HttpsConfig {
        roots: Roots::Only(azure.ca_pem().to_owned()),
        ..HttpsConfig::default()
    })
}

struct Ask<'a> {
    authority: &'a str,
    tenant: &'a str,
    app: &'a str,
    resource: &'a str,
    secret: &'a str,
}

async fn ask(client: &EntraClient, ask: Ask<'_>) -> Result<Token, EntraError> {
    let endpoint = token_endpoint(ask.authority, ask.tenant.parse().unwrap()).unwrap();
    let secret = SecretString::from(ask.secret);
    let request = TokenRequest {
        endpoint: &endpoint,
        client_id: ask.app.parse().unwrap(),
        resource: ask.resource,
        proof: Proof::Secret(&secret),
        claims: None,
    };
    client.token(&request, LIMIT, clock::since_epoch).await
}

fn right(authority: &str) -> Ask<'_> {
    Ask {
        authority,
        tenant: TENANT,
        app: APP,
        resource: VAULT,
        secret: "s3cr3t-value-1",
    }
}

fn claims(token: &Token) -> serde_json::Value {
    let payload = token.expose().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn a_secret_gets_a_token_for_the_resource() {
    let azure = azure().await;
    let authority = format!("http://{}", azure.addresses().entra.unwrap());
    let client = plain(&azure);
    for resource in [VAULT, "https://management.azure.com/", "api://team/App x&y"] {
        let asked = Ask {
            resource,
            ..right(&authority)
        };
        let token = ask(&client, asked).await.unwrap();
        let claims = claims(&token);
        assert_eq!(claims["aud"], resource);
        assert_eq!(claims["appid"], APP);
        let off = claims["exp"]
            .as_u64()
            .unwrap()
            .abs_diff(token.expires_on.as_secs());
        assert!(off <= 30, "{off} s");
    }
}

#[tokio::test]
async fn refusals_are_typed() {
    let azure = azure().await;
    let authority = format!("http://{}", azure.addresses().entra.unwrap());
    let client = plain(&azure);
    let wrong = Ask {
        secret: "not-the-secret-at-all",
        ..right(&authority)
    };
    let error = ask(&client, wrong).await.unwrap_err();
    let EntraError::Credential {
        code: 7_000_215,
        description,
    } = error
    else {
        panic!("{error:?}");
    };
    assert!(description.starts_with("AADSTS7000215") && !description.contains("Trace ID"));
    let other = "b0000000-0000-4000-8000-000000000001";
    let unknown = Ask {
        app: other,
        ..right(&authority)
    };
    let error = ask(&client, unknown).await.unwrap_err();
    assert!(
        matches!(error, EntraError::Refused { code: 700_016, .. }),
        "{error:?}"
    );
    let elsewhere = Ask {
        tenant: other,
        ..right(&authority)
    };
    let error = ask(&client, elsewhere).await.unwrap_err();
    assert!(
        matches!(error, EntraError::Refused { code: 90_002, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn trouble_is_typed() {
    let azure = azure().await;
    let authority = format!("http://{}", azure.addresses().entra.unwrap());
    let client = plain(&azure);
    let status = |code| Effect::Status {
        code,
        retry_after: Some(7),
        body: None,
    };
    let seven = Some(Duration::from_secs(7));
    for (effect, expected) in [
        (status(429), "throttles"),
        (status(503), "unavailable"),
        (Effect::Reset, "unavailable"),
        (Effect::Truncate, "unavailable"),
        (Effect::Garbage, "nonsense"),
        (Effect::Html, "nonsense"),
        (Effect::Huge(4 << 20), "nonsense"),
        (Effect::Expired, "nonsense"),
        (Effect::Missing("expires_in".to_owned()), "nonsense"),
        (Effect::Missing("access_token".to_owned()), "nonsense"),
    ] {
        azure.clear_faults();
        azure.add_fault(Trouble::new(Target::Entra, effect.clone()));
        let error = ask(&client, right(&authority)).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{effect:?}: {error}");
        if let EntraError::Throttled { retry_after } | EntraError::Unavailable { retry_after, .. } =
            error
            && matches!(effect, Effect::Status { .. })
        {
            assert_eq!(retry_after, seven, "{effect:?}");
        }
    }
    azure.clear_faults();
    ask(&client, right(&authority)).await.unwrap();
}

/// A proxy that leads every tunnel to the simulator, and says where each was to lead.
async fn proxy(to: std::net::SocketAddr) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                tell.send(String::from_utf8(head).unwrap()).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut there = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut there).await;
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn the_real_authority_s_name_through_a_proxy_with_a_ca_of_ones_own() {
    let azure = azure().await;
    let (address, mut told) = proxy(azure.addresses().vault.unwrap()).await;
    let mut config = HttpsConfig {
        roots: Roots::SystemAnd(azure.ca_pem().to_owned()),
        proxies: ProxyRules::new(&address, "").unwrap(),
        ..HttpsConfig::default()
    };
    let authority = "https://login.microsoftonline.com";
    ask(&client(&config), right(authority)).await.unwrap();
    let head = told.recv().await.unwrap();
    assert!(
        head.starts_with("CONNECT login.microsoftonline.com:443 HTTP/1.1\r\n"),
        "{head}"
    );
    config.roots = Roots::System;
    if let Ok(https) = HttpsClient::new(&config) {
        let error = ask(&EntraClient::new(https), right(authority))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    }
}

fn certificate(name: &str) -> (String, Certificate) {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    let found = certificates_from_pem(&pem, &key.serialize_pem());
    (pem, found.unwrap().remove(0))
}

fn indented(pem: &str) -> String {
    let lines: Vec<_> = pem
        .lines()
        .map(|line| format!("        {line}\n"))
        .collect();
    lines.concat()
}

struct Signed<'a> {
    by: &'a Certificate,
    algorithm: AssertionAlgorithm,
    send_chain: bool,
    /// Seconds by which our clock is wrong.
    skew: i64,
}

async fn ask_signed(azure: &Simulator, how: Signed<'_>) -> Result<Token, EntraError> {
    let authority = format!("http://{}", azure.addresses().entra.unwrap());
    let endpoint = token_endpoint(&authority, TENANT.parse().unwrap()).unwrap();
    let now = clock::since_epoch().as_secs().strict_add_signed(how.skew);
    let assertion = how.by.assertion(&AssertionRequest {
        client_id: APP.parse().unwrap(),
        audience: &endpoint.to_string(),
        now: Duration::from_secs(now),
        algorithm: how.algorithm,
        send_chain: how.send_chain,
    });
    let assertion = assertion.unwrap();
    let request = TokenRequest {
        endpoint: &endpoint,
        client_id: APP.parse().unwrap(),
        resource: VAULT,
        proof: Proof::Assertion(&assertion),
        claims: None,
    };
    plain(azure)
        .token(&request, LIMIT, clock::since_epoch)
        .await
}

#[tokio::test]
async fn a_registered_certificate_gets_a_token_and_another_is_refused() {
    let (pem, registered) = certificate("registered");
    let azure = azure_with(&format!("    certificates:\n      - |\n{}", indented(&pem))).await;
    for algorithm in [AssertionAlgorithm::Ps256, AssertionAlgorithm::Rs256] {
        for (send_chain, skew) in [(false, 0), (true, 0), (false, 240), (false, -240)] {
            let by = &registered;
            let how = Signed {
                by,
                algorithm,
                send_chain,
                skew,
            };
            let token = ask_signed(&azure, how).await.unwrap();
            assert_eq!(claims(&token)["appid"], APP);
        }
    }
    let (_, other) = certificate("other");
    let algorithm = AssertionAlgorithm::Ps256;
    let how = Signed {
        by: &other,
        algorithm,
        send_chain: false,
        skew: 0,
    };
    let error = ask_signed(&azure, how).await.unwrap_err();
    assert!(
        matches!(error, EntraError::Credential { code: 700_027, .. }),
        "{error:?}"
    );
    for skew in [-1_200, 1_200] {
        let how = Signed {
            by: &registered,
            algorithm,
            send_chain: false,
            skew,
        };
        let error = ask_signed(&azure, how).await.unwrap_err();
        assert!(
            matches!(error, EntraError::Refused { code: 700_024, .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_authority_that_wants_the_older_algorithm_says_so() {
    let (pem, registered) = certificate("registered");
    let more = format!(
        "    certificates:\n      - |\n{}entra: {{assertionAlgorithms: [RS256]}}\n",
        indented(&pem)
    );
    let azure = azure_with(&more).await;
    let signed = |algorithm| Signed {
        by: &registered,
        algorithm,
        send_chain: false,
        skew: 0,
    };
    let error = ask_signed(&azure, signed(AssertionAlgorithm::Ps256))
        .await
        .unwrap_err();
    assert!(matches!(error, EntraError::Algorithm(_)), "{error:?}");
    ask_signed(&azure, signed(AssertionAlgorithm::Rs256))
        .await
        .unwrap();
}
