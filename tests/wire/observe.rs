//! An agent that only observes: who is granted is answered by the agent; what would be refused gets
//! IMDS's own answer, as if nobody stood in between, and is counted.

use lanyard::agent::config::Enforcement;
use lanyard::agent::observe::table::What;

use crate::testkit::{
    Conversation, Options, Reply, Stage, request, stage, stage_with, token_target,
};
use crate::world::{NODE_CLIENT, PAYMENTS, PAYMENTS_POD, STRANGER_POD, TELLER_POD, UNKNOWN_POD};

async fn observing() -> Stage {
    let options = Options {
        enforcement: Enforcement::Observe,
        ..Options::default()
    };
    stage_with(options).await
}

/// The same bytes, sent to IMDS itself.
async fn directly(stage: &Stage, bytes: &str) -> Reply {
    let imds = stage.simulator.addresses().imds.unwrap();
    let mut conversation = Conversation::open("127.0.0.1", imds).await;
    conversation.send(bytes).await;
    conversation.reply().await
}

#[tokio::test]
async fn what_would_be_refused_gets_imdss_own_answer() {
    let stage = observing().await;
    let compute = "/metadata/instance/compute?api-version=2021-02-01";
    for bytes in [
        request(compute),
        request("/metadata/instance?api-version=2021-02-01"),
        request("/metadata/instance/compute/userData?api-version=2021-01-01&format=text"),
        request("/metadata/nothing?api-version=2021-02-01"),
        request("//metadata/identity/oauth2/token"),
        // Without the header, of another method, with a body.
        format!("GET {compute} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"),
        format!(
            "POST {compute} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
    ] {
        for pod in [STRANGER_POD, UNKNOWN_POD] {
            let (got, expected) = (
                stage.send(pod, &bytes).await,
                directly(&stage, &bytes).await,
            );
            assert_eq!(
                (got.status, &got.body),
                (expected.status, &expected.body),
                "{bytes}"
            );
            assert_eq!(
                got.header("content-type"),
                expected.header("content-type"),
                "{bytes}"
            );
        }
    }
    let token = stage.token(STRANGER_POD, "").await;
    assert_eq!(token.status, 200, "{}", token.body);
    assert!(
        token.body.contains(NODE_CLIENT),
        "as before: the node's own"
    );
}

#[tokio::test]
async fn what_was_passed_on_is_counted_and_remembered_without_its_token() {
    let stage = observing().await;
    for _ in 0..3 {
        assert_eq!(stage.token(STRANGER_POD, "").await.status, 200);
    }
    let path = "/metadata/instance/compute/location?api-version=2021-02-01&format=text";
    assert_eq!(stage.get(TELLER_POD, path).await.status, 200);
    let scrape = stage.scrape();
    for series in [
        "lanyard_enforcing 0",
        "lanyard_observed_total{outcome=\"identity_not_found\"} 3",
        "lanyard_observed_total{outcome=\"path_forbidden\"} 1",
        "lanyard_requests_failed_total{kind=\"identity_not_found\"} 0",
    ] {
        assert!(scrape.contains(series), "{series}\n{scrape}");
    }
    let report = stage.observer.report();
    let [path, token] = &report.lines[..] else {
        panic!("{report:?}");
    };
    assert_eq!((&*path.who.namespace, path.count), ("bank", 1));
    assert!(
        matches!(&path.what, What::Path { path } if path == "/metadata/instance/compute/location")
    );
    assert_eq!(
        (&*token.who.namespace, token.count, token.status),
        ("shop", 3, 200)
    );
    let answerer = token.answerer.as_ref().unwrap();
    assert_eq!(answerer.client_id.as_deref(), Some(NODE_CLIENT));
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("eyJ"), "{json}");
}

#[tokio::test]
async fn who_is_granted_is_answered_by_the_agent() {
    let stage = observing().await;
    let token = stage.token(PAYMENTS_POD, "").await;
    assert_eq!(token.status, 200);
    assert!(token.body.contains(PAYMENTS.client_id));
    assert!(stage.observer.report().lines.is_empty());
}

#[tokio::test]
async fn a_namespaces_label_is_enough_to_be_refused() {
    let stage = stage_with(Options {
        enforcement: Enforcement::Observe,
        pod_wait: std::time::Duration::from_millis(100),
        ..Options::default()
    })
    .await;
    let label = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{team: shop, lanyard.dev/enforce: {value}}}}}"
        )
    };
    stage.apply(&label("\"true\""));
    assert_eq!(stage.token(STRANGER_POD, "").await.status, 400);
    let compute = "/metadata/instance/compute?api-version=2021-02-01";
    assert_eq!(stage.get(STRANGER_POD, compute).await.status, 403);
    assert_eq!(stage.token(PAYMENTS_POD, "").await.status, 200);
    assert_eq!(
        stage.get(TELLER_POD, compute).await.status,
        200,
        "another namespace"
    );
    // Who is not known yet may be of it.
    let upstream = stage.upstream().len();
    for target in [
        compute,
        "/metadata/identity/info/?api-version=1",
        &token_target(""),
    ] {
        let bytes = request(target).replacen("GET", "PUT", 1);
        for bytes in [request(target), bytes] {
            let reply = stage.send(UNKNOWN_POD, &bytes).await;
            assert!(reply.status >= 400, "{bytes}: {}", reply.body);
        }
    }
    assert_eq!(stage.upstream().len(), upstream, "nothing reached IMDS");
    stage.apply(&label("\"false\""));
    assert_eq!(stage.token(STRANGER_POD, "").await.status, 200);
}

#[tokio::test]
async fn without_an_answer_of_imds_there_is_one_of_ours() {
    let mut stage = observing().await;
    stage.azure_goes_away().await;
    let reply = stage.token(STRANGER_POD, "").await;
    assert_eq!(reply.status, 503, "{}", reply.body);
}

#[tokio::test]
async fn an_agent_that_enforces_passes_nothing_on() {
    let stage = stage().await;
    let before = stage.upstream().len();
    stage.send(STRANGER_POD, request(&token_target(""))).await;
    assert_eq!(stage.upstream().len(), before);
    assert!(stage.scrape().contains("lanyard_enforcing 1"));
}
