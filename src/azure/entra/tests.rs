//! What goes over the wire, and that silence ends.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::azure::https::HttpsConfig;

const NOW: Duration = Duration::from_hours(500_000);
const APP: &str = "a0000000-0000-4000-8000-00000000000B";

/// Answers one request and gives back what it read.
async fn once(answer: &'static str) -> (Uri, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = format!("http://{}", listener.local_addr().unwrap());
    let endpoint = token_endpoint(&authority, APP.parse().unwrap()).unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut buffer) = (String::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "cut off: {read}");
            read.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            let Some((head, body)) = read.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if length.unwrap().parse::<usize>().unwrap() == body.len() {
                break;
            }
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        if answer.is_empty() {
            let _ = stream.read(&mut buffer).await;
        }
        read
    });
    (endpoint, served)
}

const TOKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 41\r\n\r\n{\"access_token\":\"t\",\"expires_in\":\"3600\" }";

/// Over plain HTTP: whom it trusts does not matter.
fn client() -> EntraClient {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let roots = crate::azure::https::Roots::Only(params.self_signed(&key).unwrap().pem());
    let config = HttpsConfig {
        roots,
        ..HttpsConfig::default()
    };
    EntraClient::new(HttpsClient::new(&config).unwrap())
}

async fn ask(endpoint: &Uri, proof: Proof<'_>, claims: Option<&str>) -> Result<Token, EntraError> {
    let request = TokenRequest {
        endpoint,
        client_id: APP.parse().unwrap(),
        resource: "https://a b/?x=1&y=é",
        proof,
        claims,
    };
    client()
        .token(&request, Duration::from_secs(20), || NOW)
        .await
}

fn fields(body: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = body.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

#[tokio::test]
async fn the_request_is_what_entra_expects_and_nothing_else() {
    let secret = SecretString::from("q8Q~x+y/z&=% é");
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#;
    let (endpoint, served) = once(TOKEN).await;
    let token = ask(&endpoint, Proof::Secret(&secret), Some(claims))
        .await
        .unwrap();
    assert_eq!(token.left(NOW).as_secs(), 3_600);
    let read = served.await.unwrap();
    let (head, body) = read.split_once("\r\n\r\n").unwrap();
    let path = format!("/{}/oauth2/v2.0/token", APP.to_ascii_lowercase());
    assert!(
        head.starts_with(&format!("POST {path} HTTP/1.1\r\n")),
        "{head}"
    );
    let mut names: Vec<_> = head
        .lines()
        .skip(1)
        .map(|line| line.split_once(':').unwrap().0)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "content-length", "content-type", "host"]);
    assert!(
        head.contains("content-type: application/x-www-form-urlencoded"),
        "{head}"
    );
    let expected = [
        ("client_id", &*APP.to_ascii_lowercase()),
        ("client_secret", secret.expose_secret()),
        ("claims", claims),
        ("grant_type", "client_credentials"),
        ("scope", "https://a b/?x=1&y=é/.default"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(fields(body), expected.into());
}

#[tokio::test]
async fn an_assertion_goes_with_its_type() {
    let jwt = SecretString::from("eyJ.eyJ.sig");
    let (endpoint, served) = once(TOKEN).await;
    ask(&endpoint, Proof::Assertion(&jwt), None).await.unwrap();
    let read = served.await.unwrap();
    let sent = fields(read.split_once("\r\n\r\n").unwrap().1);
    assert_eq!(sent["client_assertion"], "eyJ.eyJ.sig");
    assert_eq!(sent["client_assertion_type"], JWT_BEARER);
    let names: Vec<_> = sent.keys().collect();
    assert!(
        !names.contains(&&"claims".to_owned()) && !names.contains(&&"client_secret".to_owned())
    );
}

#[tokio::test]
async fn silence_ends_at_the_limit() {
    let (endpoint, served) = once("").await;
    let secret = SecretString::from("s");
    let request = TokenRequest {
        endpoint: &endpoint,
        client_id: APP.parse().unwrap(),
        resource: "r",
        proof: Proof::Secret(&secret),
        claims: None,
    };
    let limit = Duration::from_millis(50);
    let error = client().token(&request, limit, || NOW).await.unwrap_err();
    let why = "no answer within 50ms".to_owned();
    assert_eq!(
        error,
        EntraError::Unavailable {
            why,
            retry_after: None
        }
    );
    served.abort();
}

#[test]
fn a_request_shows_no_proof() {
    let secret = SecretString::from("q8Q~hunter2");
    let proof = Proof::Secret(&secret);
    assert!(!format!("{proof:?}").contains("hunter2"));
}
