//! The client against sockets on loopback that behave badly.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::http::BODY_LIMIT;
use super::*;

const NOW: Duration = Duration::from_hours(500_000);
const LIMIT: Duration = Duration::from_secs(10);
const TOKEN: &str = r#"{"access_token":"t","expires_on":"1800003600"}"#;

/// What the server does once a request's head has come.
#[derive(Clone)]
enum Act {
    Write(Vec<u8>),
    /// Writes, and then waits for the client to go away.
    Stall(Vec<u8>),
}

struct Server {
    client: ImdsClient,
    seen: Arc<Mutex<Vec<String>>>,
}

/// A server on loopback that acts the same way for each connection.
async fn server(act: Act) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = ImdsClient::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (act, heads) = (act.clone(), Arc::clone(&heads));
            tokio::spawn(async move {
                let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => head.extend_from_slice(&buffer[..count]),
                    }
                }
                heads.lock().push(String::from_utf8(head).unwrap());
                let (Act::Write(bytes) | Act::Stall(bytes)) = &act;
                let _ = stream.write_all(bytes).await;
                if matches!(act, Act::Stall(_)) {
                    let _ = stream.read(&mut buffer).await;
                }
            });
        }
    });
    Server { client, seen }
}

fn response(status: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    format!("{head}{body}").into_bytes()
}

async fn token(server: &Server, resource: &str, limit: Duration) -> Result<Token, ImdsError> {
    let id = "0000000A-0000-4000-8000-000000000001".parse().unwrap();
    server.client.token(id, resource, limit, || NOW).await
}

#[tokio::test]
async fn the_request_is_what_imds_expects_and_nothing_else() {
    let server = server(Act::Write(response("200 OK", TOKEN))).await;
    token(&server, "https://a b/?x=1&y=é#z", LIMIT)
        .await
        .unwrap();
    let seen = server.seen.lock().clone();
    let lines: Vec<_> = seen[0].lines().collect();
    assert_eq!(
        lines[0],
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fa%20b%2F%3Fx%3D1%26y%3D%C3%A9%23z&client_id=0000000a-0000-4000-8000-000000000001 HTTP/1.1"
    );
    let mut headers: Vec<_> = lines[1..]
        .iter()
        .filter(|line| !line.is_empty())
        .copied()
        .collect();
    headers.retain(|line| !line.to_ascii_lowercase().starts_with("host: "));
    assert_eq!(headers, ["metadata: true"]);
}

#[tokio::test]
async fn broken_answers_are_typed() {
    let cut = response("200 OK", TOKEN)[..80].to_vec();
    let huge = response("200 OK", &"x".repeat(10 * BODY_LIMIT));
    let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
    let cases = [
        (Act::Write(vec![]), "unavailable"),
        (Act::Write(cut), "unavailable"),
        (Act::Write(b"SSH-2.0-x\r\n".to_vec()), "unavailable"),
        (Act::Write(endless), "unavailable"),
        (Act::Write(huge), "larger than"),
        (Act::Write(response("200 OK", "<html>")), "nonsense"),
        (
            Act::Write(response("302 Found\r\nLocation: http://127.0.0.1:1/", "")),
            "nonsense",
        ),
    ];
    for (number, (act, expected)) in cases.into_iter().enumerate() {
        let server = server(act).await;
        let error = token(&server, "r", LIMIT).await.unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "case {number}: {error}"
        );
        assert_eq!(server.seen.lock().len(), 1, "case {number}: asked once");
    }
}

#[tokio::test]
async fn silence_ends_at_the_limit_before_and_within_the_body() {
    let mut begun = response("200 OK", TOKEN);
    begun.truncate(90);
    for act in [Act::Stall(vec![]), Act::Stall(begun)] {
        let server = server(act).await;
        let error = token(&server, "r", Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ImdsError::Unavailable(why) if why.contains("50ms")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let client = ImdsClient::new(&format!("http://127.0.0.1:{port}/")).unwrap();
    let metadata = client
        .metadata("/metadata/instance", "2021-02-01", None, LIMIT)
        .await;
    assert!(matches!(metadata, Err(ImdsError::Unavailable(_))));
}

#[tokio::test]
async fn metadata_is_passed_on_as_it_is_and_only_from_plain_paths() {
    let server = server(Act::Write(response("404 Not Found", "here"))).await;
    let get = async |path: &str| {
        server
            .client
            .metadata(path, "2021-02-01&x=", Some("text"), LIMIT)
            .await
    };
    let passed = get("/metadata/instance/compute").await.unwrap();
    assert_eq!(
        (passed.status.as_u16(), &passed.body[..]),
        (404, &b"here"[..])
    );
    assert_eq!(passed.content_type.unwrap(), "text/x");
    assert!(server.seen.lock()[0].starts_with(
        "GET /metadata/instance/compute?api-version=2021-02-01%26x%3D&format=text HTTP/1.1\r\n"
    ));
    for path in [
        "/metadata/../x",
        "/metadata//identity",
        "/metadata/identity%2foauth2",
        "/metadata\\x",
        "/x",
        "/metadata/a?b",
        "/metadata/a#b",
        "/metadata/a;b",
        "metadata/",
        "http://x/metadata/",
        "/metadata/./x",
    ] {
        assert!(get(path).await.is_err(), "{path}");
    }
    assert_eq!(server.seen.lock().len(), 1);
}

#[test]
fn endpoints_are_plain_http_without_a_path() {
    assert!(ImdsClient::new("http://169.254.169.254").is_ok());
    assert!(ImdsClient::new("http://[fd00::1]:80/").is_ok());
    for text in [
        "",
        "169.254.169.254",
        "https://x",
        "http://",
        "http://x/path",
        "http://u@x",
        "http://x?y",
    ] {
        assert!(ImdsClient::new(text).is_err(), "{text}");
    }
}
