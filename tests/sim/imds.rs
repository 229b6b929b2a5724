//! The instance metadata service: its answers, its errors, its limits, its journal.

use lanyard::sim::Simulator;

use crate::client::{get, request, token_target};
use crate::world::{PAYMENTS, PAYMENTS_OID, REPORTS, start};

fn imds(simulator: &Simulator) -> std::net::SocketAddr {
    simulator.addresses().imds.expect("IMDS listens")
}

#[tokio::test]
async fn a_token_answer_has_imds_keys_in_their_order_and_strings_only() {
    let simulator = start("").await;
    let answer = get(
        imds(&simulator),
        &token_target(&format!("&client_id={PAYMENTS}")),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert!(answer.header("server").unwrap().starts_with("IMDS/"));
    assert!(answer.header("x-ms-request-id").is_some());
    let keys: Vec<&str> = answer
        .text()
        .split("\",\"")
        .map(|part| part.trim_start_matches("{\"").split('"').next().unwrap())
        .collect();
    let golden = [
        "access_token",
        "client_id",
        "expires_in",
        "expires_on",
        "ext_expires_in",
        "not_before",
        "resource",
        "token_type",
    ];
    assert_eq!(keys, golden);
    let body = answer.json();
    assert!(
        body.as_object()
            .unwrap()
            .values()
            .all(serde_json::Value::is_string)
    );
    assert_eq!(body["resource"], "https://vault.azure.net");
    assert_eq!(body["client_id"], PAYMENTS);
    assert_eq!(body["token_type"], "Bearer");
    let number = |name: &str| body[name].as_str().unwrap().parse::<i64>().unwrap();
    assert_eq!(number("expires_on") - number("not_before"), 86_400);
    assert!((86_300..=86_400).contains(&number("expires_in")));
}

#[tokio::test]
async fn every_refusal_has_azures_status_and_words() {
    let simulator = start("").await;
    let address = imds(&simulator);
    let token = "/metadata/identity/oauth2/token";
    let cases = [
        (
            "GET",
            token_target(""),
            "",
            400,
            "Required metadata header not specified",
        ),
        (
            "GET",
            token.to_owned(),
            "Metadata: false\r\n",
            400,
            "Required metadata header",
        ),
        (
            "GET",
            token_target(""),
            "Metadata: true\r\nX-Forwarded-For: 1.2.3.4\r\n",
            400,
            "X-Forwarded-For",
        ),
        ("POST", token_target(""), "Metadata: true\r\n", 405, "GET"),
        (
            "GET",
            token.to_owned(),
            "Metadata: true\r\n",
            400,
            "'api-version' is missing",
        ),
        (
            "GET",
            format!("{token}?api-version=2018-02-01"),
            "Metadata: true\r\n",
            400,
            "'resource' is missing",
        ),
        (
            "GET",
            format!("{token}?api-version=1999-01-01&resource=r"),
            "Metadata: true\r\n",
            400,
            "not supported",
        ),
        (
            "GET",
            token_target(""),
            "Metadata: true\r\n",
            400,
            "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request",
        ),
        (
            "GET",
            token_target("&client_id=unknown"),
            "Metadata: true\r\n",
            400,
            "\"Identity not found\"",
        ),
        (
            "GET",
            "/nothing".to_owned(),
            "Metadata: true\r\n",
            404,
            "error",
        ),
    ];
    for (method, target, headers, status, words) in cases {
        let answer = request(address, method, &target, headers).await;
        assert_eq!(
            answer.status,
            status,
            "{method} {target}: {}",
            answer.text()
        );
        assert!(
            answer.text().contains(words),
            "{method} {target}: {}",
            answer.text()
        );
        assert!(answer.json()["error"].is_string());
        assert!(answer.header("retry-after").is_none());
    }
    let probe = request(address, "GET", token, "").await;
    assert_eq!(
        probe.body.len(),
        88,
        "the length that the real service's answer has"
    );
}

#[tokio::test]
async fn the_asker_s_address_decides_the_machine() {
    let simulator = start("").await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stream = socket.connect(imds(&simulator)).await.unwrap();
    let text = format!(
        "GET {} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\nConnection: close\r\n\r\n",
        token_target("")
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes())
        .await
        .unwrap();
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes)
        .await
        .unwrap();
    let answer = crate::client::Answer::parse(&bytes);
    assert_eq!(
        answer.json()["client_id"],
        REPORTS,
        "node-2 has one identity"
    );
    let journal = simulator.journal();
    assert_eq!(journal[0].vm.as_deref(), Some("node-2"));
    assert!(journal[0].source.starts_with("127.0.0.2:"));
}

#[tokio::test]
async fn disguised_token_paths_reach_the_token() {
    let simulator = start("imds: {throttle: false}").await;
    let query = format!("?api-version=2018-02-01&resource=r&object_id={PAYMENTS_OID}");
    for path in [
        "/METADATA/identity/oauth2/token",
        "//metadata/identity/oauth2/token/",
        "/metadata\\identity\\oauth2\\token",
        "/metadata/instance/..%2fidentity%5coauth2/token",
    ] {
        let answer = get(imds(&simulator), &format!("{path}{query}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn instance_documents_answer_at_once() {
    let simulator = start("").await;
    let address = imds(&simulator);
    let compute = get(address, "/metadata/instance/compute?api-version=2021-02-01").await;
    assert_eq!(compute.json()["location"], "westeurope");
    let name = "/metadata/instance/compute/userData?api-version=2021-02-01&format=text";
    assert_eq!(get(address, name).await.text(), "c2VjcmV0");
    let unknown = get(address, "/metadata/instance/compute").await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.json()["newest-versions"][0].is_string());
    let leak = get(
        address,
        "/metadata/identity/getplatformmetadata?cred-api-version=2.0",
    )
    .await;
    assert!(leak.text().contains("MUST-NEVER-LEAK"));
    let info = get(address, "/metadata/identity/info?api-version=2018-02-01").await;
    assert!(info.json()["tenantId"].is_string());
}

#[tokio::test]
async fn a_token_is_cached_for_each_identity_and_resource() {
    let simulator = start("").await;
    let address = imds(&simulator);
    let mut tokens = Vec::new();
    for query in ["&client_id=", "&client_id=", "/&client_id="] {
        let answer = get(address, &token_target(&format!("{query}{PAYMENTS}"))).await;
        tokens.push(answer.json()["access_token"].clone());
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(
        tokens[0], tokens[2],
        "the trailing slash makes another audience"
    );
    let stats = simulator.stats();
    assert_eq!((stats.tokens_issued, stats.tokens_signed), (3, 2));
}

#[tokio::test]
async fn twenty_a_second_and_five_at_once() {
    let simulator = start("imds: {latency: 1s}").await;
    let address = imds(&simulator);
    let target = token_target(&format!("&client_id={PAYMENTS}"));
    let mut six = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let target = target.clone();
        six.spawn(async move { get(address, &target).await });
    }
    let answers = six.join_all().await;
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 429)
        .collect();
    assert_eq!(refused.len(), 1, "six at once, five pass");
    assert_eq!(refused[0].header("retry-after"), Some("1"));
    assert_eq!(refused[0].json()["error"], "too_many_requests");
    assert_eq!(simulator.stats().throttled, 1);
    assert_eq!(simulator.stats().most_concurrent, 5);
}

#[tokio::test]
async fn assignment_changes_take_effect_and_unknown_names_are_refused() {
    let simulator = start("").await;
    simulator.assign("node-1", &["reports"]).unwrap();
    let address = imds(&simulator);
    assert_eq!(
        get(address, &token_target("")).await.json()["client_id"],
        REPORTS
    );
    let gone = get(address, &token_target(&format!("&client_id={PAYMENTS}"))).await;
    assert_eq!(gone.json()["error_description"], "Identity not found");
    assert!(
        simulator
            .assign("node-1", &["nobody"])
            .unwrap_err()
            .to_string()
            .contains("nobody")
    );
    assert!(
        simulator
            .assign("node-9", &[])
            .unwrap_err()
            .to_string()
            .contains("node-9")
    );
}

#[tokio::test]
async fn the_journal_tells_who_asked_and_got_what() {
    let simulator = start("").await;
    let target = token_target(&format!("&client_id={PAYMENTS}"));
    let headers = "Metadata: true\r\nUser-Agent: probe/1\r\n";
    request(imds(&simulator), "GET", &target, headers).await;
    let journal = simulator.journal();
    assert_eq!(journal.len(), 1);
    let entry = &journal[0];
    assert_eq!((entry.seq, entry.status), (1, Some(200)));
    assert_eq!(entry.identity.as_deref(), Some("payments"));
    assert_eq!(entry.resource.as_deref(), Some("https://vault.azure.net"));
    assert_eq!(entry.target, target);
    assert!(
        entry
            .headers
            .contains(&("user-agent".to_owned(), "probe/1".to_owned()))
    );
    simulator.clear_journal();
    assert!(simulator.journal().is_empty());
}

#[tokio::test]
async fn dropping_it_stops_it() {
    let simulator = start("").await;
    let address = imds(&simulator);
    drop(simulator);
    let gone = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .expect("gone");
}

#[tokio::test]
async fn shutting_down_closes_the_port() {
    let simulator = start("").await;
    let address = imds(&simulator);
    simulator.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
