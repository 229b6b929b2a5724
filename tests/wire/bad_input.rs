//! Bad input, each kind by its name: a clear JSON error with the right status at once, the agent
//! unhurt, other pods served, nothing asked upstream.

use std::time::Duration;

use lanyard::serve::Limits;

use crate::testkit::{Options, Reply, Stage, VAULT, request, stage, stage_with, token_target};
use crate::world::{PAYMENTS, PAYMENTS_POD, REPORTS, REPORTS_POD, STRANGER_POD};

/// Sends bytes that deserve `status`, and wants an honest pod served afterwards.
async fn refused(stage: &Stage, bytes: impl AsRef<[u8]>, status: u16) -> Reply {
    let reply = stage.send(PAYMENTS_POD, bytes).await;
    reply.is_error_at_once(status);
    assert!(stage.upstream().is_empty(), "{:?}", stage.upstream());
    reply
}

/// At the end of each test: the agent is unhurt.
async fn unhurt(stage: &Stage) {
    stage.token(REPORTS_POD, "").await.is_token_of(REPORTS);
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
}

fn with(header: &str) -> String {
    let target = token_target("");
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n")
}

#[tokio::test]
async fn no_metadata_header() {
    let stage = stage().await;
    refused(&stage, with("Accept: */*"), 400).await;
    unhurt(&stage).await;
}

#[tokio::test]
async fn x_forwarded_for_in_any_form() {
    let stage = stage().await;
    for header in [
        "X-Forwarded-For: 10.0.0.1",
        "x-forwarded-for:",
        "X-FORWARDED-FOR: a\r\nX-Forwarded-For: b",
    ] {
        refused(&stage, with(&format!("Metadata: true\r\n{header}")), 400).await;
    }
    unhurt(&stage).await;
}

#[tokio::test]
async fn wrong_methods() {
    let stage = stage().await;
    let target = token_target("");
    for method in [
        "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "get",
    ] {
        let bytes = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\nContent-Length: 0\r\n\r\n"
        );
        let reply = refused(&stage, bytes, 405).await;
        assert_eq!(reply.header("allow"), Some("GET"));
        assert_eq!(reply.text("error"), "method_not_allowed");
    }
    // HEAD has no body; its status must not say that there is a token.
    let mut conversation = stage.connect(PAYMENTS_POD).await;
    conversation
        .send(format!(
            "HEAD {target} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n"
        ))
        .await;
    assert_eq!(conversation.reply_to("HEAD").await.status, 405);
    let connect = "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n";
    refused(&stage, connect, 400).await;
    unhurt(&stage).await;
}

#[tokio::test]
async fn resource_missing_empty_repeated_or_odd() {
    let stage = stage().await;
    let path = "/metadata/identity/oauth2/token?api-version=2018-02-01";
    for (query, what) in [
        ("", "Required query variable 'resource' is missing"),
        ("&resource", "Required query variable 'resource' is missing"),
        (
            "&resource=",
            "Required query variable 'resource' is missing",
        ),
        (
            "&Resource=https://vault.azure.net",
            "Required query variable 'resource' is missing",
        ),
        (
            "&resource=a&resource=a",
            "Query variable 'resource' is given more than once",
        ),
        (
            "&resource=a&resourc%65=b",
            "Query variable 'resource' is given more than once",
        ),
        ("&resource=a%0d%0aX:%20y", "Invalid resource"),
        ("&resource=%00", "Invalid resource"),
    ] {
        let reply = refused(&stage, request(&format!("{path}{query}")), 400).await;
        assert_eq!(reply.text("error_description"), what, "{query}");
    }
    let long = "r".repeat(1025);
    refused(&stage, request(&format!("{path}&resource={long}")), 400).await;
    unhurt(&stage).await;
}

#[tokio::test]
async fn api_version_missing_repeated_or_too_old() {
    let stage = stage().await;
    for query in [
        "",
        "api-version=&",
        "api-version&",
        "API-VERSION=2018-02-01&",
        "api-version=2017-09-01&",
        "api-version=2017-04-02&",
        "api-version=1.0&",
        "api-version=2018-2-1&",
        "api-version=latest&",
        "api-version=2018-02-01&api-version=2018-02-01&",
        "api-version=2018-02-01%20&",
        "api-version=2018-02-01%26x=y&",
    ] {
        let target = format!("/metadata/identity/oauth2/token?{query}resource={VAULT}");
        let reply = refused(&stage, request(&target), 400).await;
        assert!(
            reply.text("error_description").contains("api-version"),
            "{query}: {reply:?}"
        );
    }
    unhurt(&stage).await;
}

#[tokio::test]
async fn two_selectors_at_once_also_when_they_agree() {
    let stage = stage().await;
    let (client, object, arm) = (PAYMENTS.client_id, PAYMENTS.object_id, PAYMENTS.resource_id);
    for selectors in [
        format!("&client_id={client}&client_id={client}"),
        format!("&client_id={client}&client_id={}", REPORTS.client_id),
        format!("&client_id={client}&object_id={object}"),
        format!("&object_id={object}&principal_id={object}"),
        format!("&msi_res_id={arm}&mi_res_id={arm}"),
        format!("&client_id={client}&cli%65nt_id={client}"),
        format!("&client_id={client}&resource_id={arm}"),
    ] {
        refused(&stage, request(&token_target(&selectors)), 400).await;
    }
    unhurt(&stage).await;
}

#[tokio::test]
async fn an_unknown_client_id_and_somebody_elses() {
    let stage = stage().await;
    for client in [
        "12345678-0000-4000-8000-000000000000",
        REPORTS.client_id,
        "not-a-guid",
        "%F0%9F%94%91",
    ] {
        for pod in [PAYMENTS_POD, STRANGER_POD] {
            stage
                .token(pod, &format!("&client_id={client}"))
                .await
                .is_identity_not_found();
        }
    }
    assert!(stage.upstream().is_empty());
    unhurt(&stage).await;
}

#[tokio::test]
async fn a_query_of_64_kib() {
    let stage = stage().await;
    let long = "q".repeat(64 * 1024);
    for target in [
        token_target(&format!("&x={long}")),
        token_target(&"&a=b".repeat(16 * 1024)),
    ] {
        let reply = refused(&stage, request(&target), 414).await;
        assert_eq!(reply.header("connection"), Some("close"));
    }
    // Short enough for a head, too long for a query.
    let longish = "q".repeat(9 * 1024);
    refused(
        &stage,
        request(&token_target(&format!("&x={longish}"))),
        400,
    )
    .await;
    unhurt(&stage).await;
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_headers_gets_408() {
    let limits = Limits {
        head: Duration::from_millis(300),
        ..Limits::default()
    };
    let stage = stage_with(Options {
        limits,
        ..Options::default()
    })
    .await;
    let started = format!("GET {} HTTP/1.1\r\nHost: x\r\nMetada", token_target(""));
    for sent in [String::new(), "GET /meta".to_owned(), started] {
        let mut conversation = stage.connect(PAYMENTS_POD).await;
        conversation.send(&sent).await;
        let reply = conversation.reply().await;
        reply.is_error(408);
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(conversation.rest().await, b"");
    }
    unhurt(&stage).await;
}

#[tokio::test]
async fn idle_connections_over_a_pods_limit_are_closed_at_once_and_others_served() {
    let limits = Limits {
        connections_per_peer: 4,
        ..Limits::default()
    };
    let stage = stage_with(Options {
        limits,
        ..Options::default()
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..4 {
        // Answered once, so that it is known to be admitted.
        let mut conversation = stage.connect(PAYMENTS_POD).await;
        conversation.send(request("/")).await;
        conversation.reply().await.is_error(404);
        held.push(conversation);
    }
    for _ in 0..20 {
        let over = stage.connect(PAYMENTS_POD).await;
        assert_eq!(over.rest().await, b"", "closed at once, without a word");
    }
    stage.token(REPORTS_POD, "").await.is_token_of(REPORTS);
    // Those within the limit go on.
    held[0].send(request(&token_target(""))).await;
    held[0].reply().await.is_token_of(PAYMENTS);
    drop(held);
    let limited = "lanyard_connections_limited_total{limit=\"peer\",listener=\"pods\"} 20";
    assert!(stage.scrape().contains(limited), "{}", stage.scrape());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stage = stage().await;
    let mut conversation = stage.connect(PAYMENTS_POD).await;
    let token = request(&token_target(""));
    let refused = request(&token_target("&client_id=x"));
    conversation
        .send(format!(
            "{token}{refused}{token}{}{token}",
            request("/nothing")
        ))
        .await;
    conversation.reply().await.is_token_of(PAYMENTS);
    conversation.reply().await.is_error(400);
    conversation.reply().await.is_token_of(PAYMENTS);
    conversation.reply().await.is_error(404);
    conversation.reply().await.is_token_of(PAYMENTS);
    assert_eq!(stage.upstream().len(), 1);
}

#[tokio::test]
async fn http_1_0_is_answered_and_the_connection_ends() {
    let stage = stage().await;
    let target = token_target("");
    for host in ["Host: 169.254.169.254\r\n", ""] {
        let mut conversation = stage.connect(PAYMENTS_POD).await;
        conversation
            .send(format!(
                "GET {target} HTTP/1.0\r\n{host}Metadata: true\r\n\r\n"
            ))
            .await;
        conversation.reply().await.is_token_of(PAYMENTS);
        assert_eq!(conversation.rest().await, b"");
    }
    refused_by_http_1_0(&stage).await;
}

async fn refused_by_http_1_0(stage: &Stage) {
    let mut conversation = stage.connect(PAYMENTS_POD).await;
    conversation
        .send("GET /metadata/..%2f HTTP/1.0\r\nMetadata: true\r\n\r\n")
        .await;
    conversation.reply().await.is_error(400);
    assert_eq!(conversation.rest().await, b"");
}

#[tokio::test]
async fn a_body_with_a_get_is_not_the_next_request() {
    let stage = stage().await;
    let target = token_target("");
    // The body is a request for somebody else's identity: it must not be taken for one.
    let smuggled = request(&token_target(&format!("&client_id={}", REPORTS.client_id)));
    let mut conversation = stage.connect(PAYMENTS_POD).await;
    let length = smuggled.len();
    conversation
        .send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\nContent-Length: {length}\r\n\r\n{smuggled}"))
        .await;
    conversation.reply().await.is_token_of(PAYMENTS);
    // Either the body was skipped and the connection goes on, or it was closed: no second answer.
    let extra = tokio::time::timeout(Duration::from_millis(200), conversation.rest()).await;
    assert!(
        extra.is_err() || extra.as_ref().is_ok_and(Vec::is_empty),
        "{extra:?}"
    );
    for framing in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: gzip",
        "Content-Length: -1",
    ] {
        let bytes =
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n{framing}\r\n\r\nhello");
        stage.send(PAYMENTS_POD, bytes).await.is_error_at_once(400);
    }
    unhurt(&stage).await;
}

#[tokio::test]
async fn what_is_not_utf8() {
    let stage = stage().await;
    let mut raw = b"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=\xff\xfe HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n".to_vec();
    refused(&stage, &raw, 400).await;
    raw.splice(14..14, [0xc3, 0x28]);
    refused(&stage, &raw, 400).await;
    for target in [
        token_target("&x=%ff&client_id=%ff"),
        token_target("&%c3%28=y"),
        "/metadata/%ff".to_owned(),
    ] {
        refused(&stage, request(&target), 400).await;
    }
    // In a header nobody reads it is nobody's harm; in Metadata it is not `true`.
    let mut header = with("Metadata: true").into_bytes();
    header.truncate(header.len() - 2);
    header.extend_from_slice(b"X-Odd: \xff\xfe\r\n\r\n");
    stage
        .send(PAYMENTS_POD, &header)
        .await
        .is_token_of(PAYMENTS);
    let mut header = with("Host: y").into_bytes();
    header.truncate(header.len() - 2);
    header.extend_from_slice(b"Metadata: tr\xfce\r\n\r\n");
    stage
        .send(PAYMENTS_POD, &header)
        .await
        .is_error_at_once(400);
    unhurt(&stage).await;
}

#[tokio::test]
async fn bytes_that_are_no_http() {
    let stage = stage().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metadata/identity/oauth2/token\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nMetadata : true\r\n\r\n",
        b"GET / HTTP/1.1\r\n Metadata: true\r\n\r\n",
    ] {
        refused(&stage, bytes, 400).await;
    }
    unhurt(&stage).await;
}
