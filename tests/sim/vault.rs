//! The Key Vault over real TLS: whom it challenges, refuses, and serves.

use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use lanyard::sim::{Listen, Simulator, World};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{Answer, get, token_target};
use crate::world::{PAYMENTS, PAYMENTS_OID, REPORTS, TENANT, WORLD, start};

/// A GET over TLS that trusts the simulator's authority only.
async fn fetch(simulator: &Simulator, host: &str, target: &str, headers: &str) -> Answer {
    fetch_as(simulator, (host, host), target, headers).await
}

/// The same with a host name in the handshake and another one in `Host`.
async fn fetch_as(
    simulator: &Simulator,
    (sni, host): (&str, &str),
    target: &str,
    headers: &str,
) -> Answer {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(simulator.addresses().vault.unwrap())
        .await
        .unwrap();
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .expect("trusted TLS");
    let text =
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    Answer::parse(&bytes)
}

const SECRET: &str = "/secrets/db-password?api-version=7.4";

async fn secret(simulator: &Simulator, token: &str) -> Answer {
    let headers = format!("Authorization: Bearer {token}\r\n");
    fetch(simulator, "demo.vault.azure.net", SECRET, &headers).await
}

async fn token(simulator: &Simulator, client_id: &str, resource: &str) -> String {
    let target = format!(
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}&client_id={client_id}"
    );
    let answer = get(simulator.addresses().imds.unwrap(), &target).await;
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_allowed_identity_reads_the_secret() {
    let simulator = start("").await;
    for resource in ["https://vault.azure.net", "https://vault.azure.net/"] {
        let token = token(&simulator, PAYMENTS, resource).await;
        let answer = secret(&simulator, &token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = answer.json();
        assert_eq!(body["value"], "hunter2");
        let id = body["id"].as_str().unwrap();
        assert!(id.starts_with("https://demo.vault.azure.net/secrets/db-password/"));
        assert_eq!(body["attributes"]["enabled"], true);
        let versioned = id.strip_prefix("https://demo.vault.azure.net").unwrap();
        let headers = format!("Authorization: Bearer {token}\r\n");
        // The second is how the SDK for JavaScript writes it.
        for version in ["api-version=7.4", "api%2Dversion=7.4"] {
            let target = format!("{versioned}?{version}");
            let again = fetch(&simulator, "demo.vault.azure.net", &target, &headers).await;
            assert_eq!(again.json()["value"], "hunter2");
        }
    }
    let last = simulator.journal().pop().unwrap();
    assert_eq!(last.identity.as_deref(), Some("payments"));
    assert!(
        !format!("{:?}", simulator.journal()).contains("eyJ"),
        "no token in the journal"
    );
}

#[tokio::test]
async fn another_identity_is_forbidden_and_told_which() {
    let simulator = start("").await;
    let token = token(&simulator, REPORTS, "https://vault.azure.net").await;
    let answer = secret(&simulator, &token).await;
    assert_eq!(answer.status, 403);
    let body = answer.json();
    assert_eq!(body["error"]["code"], "Forbidden");
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains(&format!("appid={REPORTS}"))
    );
}

#[tokio::test]
async fn without_a_good_token_comes_the_challenge() {
    let simulator = start("").await;
    let good = token(&simulator, PAYMENTS, "https://vault.azure.net").await;
    let cut = good.rfind('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(&good[cut + 1..]).unwrap();
    signature[7] ^= 1;
    let tampered = format!("{}.{}", &good[..cut], URL_SAFE_NO_PAD.encode(signature));
    let elsewhere = token(&simulator, PAYMENTS, "https://management.azure.com/").await;
    for (token, why) in [
        (tampered.as_str(), "signature"),
        (elsewhere.as_str(), "audience"),
        ("nonsense", "not a JWT"),
    ] {
        let answer = secret(&simulator, token).await;
        assert_eq!(answer.status, 401);
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    simulator.roll_keys().unwrap();
    assert_eq!(
        secret(&simulator, &good).await.status,
        200,
        "the old key is still published"
    );
    simulator.drop_old_keys();
    let dropped = secret(&simulator, &good).await;
    assert!(dropped.status == 401 && dropped.text().contains("signing key"));
    let bare = fetch(&simulator, "demo.vault.azure.net", SECRET, "").await;
    assert_eq!(bare.status, 401);
    let challenge = format!(
        "Bearer authorization=\"https://login.microsoftonline.com/{TENANT}\", resource=\"https://vault.azure.net\""
    );
    assert_eq!(bare.header("www-authenticate"), Some(challenge.as_str()));
}

/// A signing key that the test knows, too, so that it can make tokens IMDS would not.
fn known_key() -> String {
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let text = STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

async fn forge(simulator: &Simulator, key: &str, change: impl FnOnce(&mut Value)) -> String {
    let good = token(simulator, PAYMENTS, "https://vault.azure.net").await;
    let kid = jsonwebtoken::decode_header(&good).unwrap().kid;
    let part = good.split('.').nth(1).unwrap();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    change(&mut claims);
    let header = Header {
        kid,
        ..Header::new(Algorithm::RS256)
    };
    let key = EncodingKey::from_rsa_pem(key.as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

#[tokio::test]
async fn each_claim_is_checked_though_the_signature_is_good() {
    let key = known_key();
    let listen = Listen {
        signing_key: Some(key.clone()),
        ..Listen::loopback()
    };
    let simulator = Simulator::start(World::from_yaml(WORLD).unwrap(), listen)
        .await
        .unwrap();
    let unchanged = forge(&simulator, &key, |_| {}).await;
    assert_eq!(
        secret(&simulator, &unchanged).await.status,
        200,
        "the forger can forge"
    );
    let by_guid = forge(&simulator, &key, |claims| {
        claims["aud"] = json!("cfa8b339-82a2-471a-a3c9-0fc0be7a4093");
    })
    .await;
    assert_eq!(secret(&simulator, &by_guid).await.status, 200);
    let cases: [(&str, Value, &str); 4] = [
        ("aud", json!("https://management.azure.com/"), "audience"),
        (
            "iss",
            json!("https://sts.windows.net/ffffffff-0000-4000-8000-000000000001/"),
            "issuer",
        ),
        ("exp", json!(1_700_000_000), "expired"),
        ("nbf", json!(4_000_000_000_u64), "not valid yet"),
    ];
    for (claim, value, why) in cases {
        let forged = forge(&simulator, &key, |claims| claims[claim] = value).await;
        let answer = secret(&simulator, &forged).await;
        assert_eq!(answer.status, 401, "{claim}");
        assert!(answer.text().contains(why), "{claim}: {}", answer.text());
    }
    let stranger = forge(&simulator, &key, |claims| claims["oid"] = json!("nobody")).await;
    assert_eq!(secret(&simulator, &stranger).await.status, 403);
    let upper = forge(&simulator, &key, |claims| {
        claims["oid"] = json!(PAYMENTS_OID.to_uppercase());
    })
    .await;
    assert_eq!(
        secret(&simulator, &upper).await.status,
        200,
        "GUIDs have no letter case"
    );
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let simulator = start("").await;
    let token = token(&simulator, PAYMENTS, "https://vault.azure.net").await;
    let headers = format!("Authorization: Bearer {token}\r\n");
    for (host, target, status, code) in [
        (
            "demo.vault.azure.net",
            "/secrets/nothing?api-version=7.4",
            404,
            "SecretNotFound",
        ),
        (
            "demo.vault.azure.net",
            "/secrets/db-password/0?api-version=7.4",
            404,
            "SecretNotFound",
        ),
        (
            "demo.vault.azure.net",
            "/secrets/db-password",
            400,
            "BadParameter",
        ),
        (
            "demo.vault.azure.net",
            "/keys/a?api-version=7.4",
            404,
            "NotFound",
        ),
    ] {
        let answer = fetch(&simulator, host, target, &headers).await;
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(answer.json()["error"]["code"], code, "{target}");
    }
    let list = fetch(
        &simulator,
        "localhost",
        "/secrets?api-version=7.4",
        &headers,
    )
    .await;
    assert_eq!(
        list.json()["value"][0]["id"],
        "https://demo.vault.azure.net/secrets/db-password"
    );
    assert!(!list.text().contains("hunter2"));
}

#[tokio::test]
async fn entra_answers_beside_the_vaults_and_faults_reach_them() {
    let simulator = start("faults: [{target: vault, status: 503, retryAfter: 1, count: 1}]").await;
    let keys = fetch(
        &simulator,
        "login.microsoftonline.com",
        "/common/discovery/keys",
        "",
    )
    .await;
    assert_eq!(keys.json()["keys"][0]["kty"], "RSA");
    let broken = fetch(&simulator, "demo.vault.azure.net", SECRET, "").await;
    assert_eq!(
        (broken.status, broken.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(broken.json()["error"]["code"], "ServiceUnavailable");
    assert_eq!(
        get(simulator.addresses().imds.unwrap(), &token_target(""))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn entra_has_further_names_and_the_handshake_s_counts() {
    let names = "entra: {hosts: [tokens.contoso.com], authorityHost: 'https://login.contoso.com'}";
    let simulator = start(names).await;
    let discovery = format!("/{TENANT}/v2.0/.well-known/openid-configuration");
    for (sni, host) in [
        ("login.contoso.com", "login.contoso.com"),
        ("login.microsoftonline.us", "login.microsoftonline.us"),
        ("tokens.contoso.com", "10.0.0.9:443"),
    ] {
        let answer = fetch_as(&simulator, (sni, host), &discovery, "").await;
        assert_eq!(answer.status, 200, "{host}");
        let keys = format!("https://login.contoso.com/{TENANT}/discovery/v2.0/keys");
        assert_eq!(answer.json()["jwks_uri"], keys);
        assert_eq!(simulator.journal().pop().unwrap().sni.as_deref(), Some(sni));
    }
    let vault = fetch_as(
        &simulator,
        ("demo.vault.azure.net", "10.0.0.9"),
        &discovery,
        "",
    )
    .await;
    assert_eq!(vault.status, 404);
}

#[tokio::test]
async fn resource_manager_answers_beside_the_vaults_by_its_names() {
    let simulator = start("arm: {hosts: [arm.contoso.com]}").await;
    let vm = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/simulated/providers\
              /Microsoft.Compute/virtualMachines/node-1?api-version=2024-11-01";
    let token = token(&simulator, PAYMENTS, "https://management.azure.com").await;
    let headers = format!("Authorization: Bearer {token}\r\n");
    for (sni, host) in [
        ("management.azure.com", "management.azure.com"),
        ("arm.contoso.com", "10.0.0.9:443"),
    ] {
        let answer = fetch_as(&simulator, (sni, host), vm, &headers).await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
        assert_eq!(answer.json()["identity"]["type"], "UserAssigned");
        let last = simulator.journal().pop().unwrap();
        assert_eq!(last.listener, lanyard::sim::journal::Listener::Arm);
        assert_eq!(last.identity.as_deref(), Some("payments"));
    }
}

#[tokio::test]
async fn a_vault_may_be_open_to_everybody_with_a_good_token() {
    let simulator = start("").await;
    let open = World::from_yaml(&WORLD.replace("{get: [payments]}", "{get: ['*']}"));
    let open = Simulator::start(open.unwrap(), Listen::loopback())
        .await
        .unwrap();
    for (simulator, status) in [(&simulator, 403), (&open, 200)] {
        let token = token(simulator, REPORTS, "https://vault.azure.net").await;
        assert_eq!(secret(simulator, &token).await.status, status);
    }
    let nobody = fetch(&open, "demo.vault.azure.net", SECRET, "").await;
    assert_eq!(nobody.status, 401);
}
