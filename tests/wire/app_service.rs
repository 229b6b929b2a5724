//! App Service's dialects: what each client of them sends, and who shows which secret.
//!
//! Bytes are as the clients' own code makes them. A wrong secret costs no call to anybody.

use crate::secrecy::{capture, captured};
use crate::testkit::{Options, Reply, Stage, VAULT, stage, stage_with};
use crate::world::{self, DESK_POD, PAYMENTS, PAYMENTS_POD, REPORTS, REPORTS_POD, STRANGER_POD};

/// Secrets as two pods' specs write them.
const SECRET: &str = "3q2-7wEjRWeJq83vEjRWeJq83vEjRWeJq83vASNFZ4k";
const ANOTHER: &str = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k";
const NEW: &str = "2019-08-01";
const OLD: &str = "2017-09-01";

/// A pod of team shop whose one container has these variables, as YAML.
fn pod(name: &str, ip: &str, variables: &str) -> String {
    let pod = world::pod("shop", name, ip);
    let written = format!("containers: [{{name: main, env: [{variables}]}}]");
    pod.replace("containers: []", &written)
}

async fn set() -> Stage {
    give(stage().await)
}

fn give(stage: Stage) -> Stage {
    for (name, ip, secret) in [
        ("payments", PAYMENTS_POD, SECRET),
        ("reports", REPORTS_POD, ANOTHER),
        ("desk", DESK_POD, SECRET),
        ("stranger", STRANGER_POD, SECRET),
    ] {
        let variables = format!("{{name: IDENTITY_HEADER, value: {secret}}}");
        stage.apply(&pod(name, ip, &variables));
    }
    stage
}

fn target(version: &str, more: &str) -> String {
    format!("/msi/token?api-version={version}&resource={VAULT}{more}")
}

fn request(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n")
}

/// Asks in the newer dialect.
async fn ask(stage: &Stage, pod: &str, secret: &str, more: &str) -> Reply {
    let header = format!("X-IDENTITY-HEADER: {secret}\r\n");
    stage.send(pod, request(&target(NEW, more), &header)).await
}

#[track_caller]
fn is_refused(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["statusCode"], status, "{reply:?}");
    assert!(body["message"].is_string(), "{reply:?}");
    assert_eq!(body.as_object().unwrap().len(), 2, "{reply:?}");
    assert!(!reply.body.contains(SECRET) && !reply.body.contains(ANOTHER));
}

#[tokio::test]
async fn every_client_of_both_dialects_gets_its_token() {
    let stage = set().await;
    let new = format!("X-IDENTITY-HEADER: {SECRET}\r\n");
    let old = format!("secret: {SECRET}\r\n");
    let with_metadata = |header: &str| format!("{header}Metadata: true\r\n");
    for (client, target, headers) in [
        (
            "azure-identity for Python",
            target(NEW, ""),
            with_metadata(&new),
        ),
        ("for Node, Go, Java, MSAL", target(NEW, ""), new.clone()),
        (
            "for Rust",
            target(NEW, ""),
            with_metadata(&new.to_lowercase().replace(&SECRET.to_lowercase(), SECRET)),
        ),
        ("adal", target(OLD, ""), old.clone()),
        (
            "msrestazure",
            target(OLD, "").replace("/msi/token?", "/msi/token/?"),
            old.clone(),
        ),
        (
            "Go's Azure ML, without a client id",
            target(OLD, "&clientid="),
            old.clone(),
        ),
        (
            "Node's and .NET's Azure ML",
            target(OLD, ""),
            with_metadata(&old),
        ),
    ] {
        let reply = stage.send(PAYMENTS_POD, request(&target, &headers)).await;
        assert_eq!(reply.status, 200, "{client}: {reply:?}");
        reply.is_token_of(PAYMENTS);
        let body = reply.json();
        for field in [
            "access_token",
            "client_id",
            "expires_on",
            "not_before",
            "resource",
            "token_type",
        ] {
            assert!(body[field].is_string(), "{client}: {field}: {reply:?}");
        }
        assert!(reply.text("expires_on").parse::<u64>().is_ok(), "{client}");
        assert_eq!(
            (reply.text("resource").as_str(), body.get("expires_in")),
            (VAULT, None)
        );
    }
    assert!(
        stage
            .scrape()
            .contains("lanyard_tokens_served_by_dialect_total{dialect=\"app_service_2019\"} 3")
    );
}

#[tokio::test]
async fn every_selector_chooses_in_both_dialects() {
    let stage = set().await;
    for identity in [PAYMENTS, REPORTS] {
        for selector in [
            format!("&client_id={}", identity.client_id),
            format!("&object_id={}", identity.object_id),
            format!("&principal_id={}", identity.object_id),
            format!("&mi_res_id={}", identity.resource_id),
            format!("&resource_id={}", identity.resource_id),
        ] {
            ask(&stage, DESK_POD, SECRET, &selector)
                .await
                .is_token_of(identity);
        }
        let clientid = target(OLD, &format!("&clientid={}", identity.client_id));
        let old = request(&clientid, &format!("secret: {SECRET}\r\n"));
        stage.send(DESK_POD, old).await.is_token_of(identity);
    }
    // IMDS knows no `clientid`.
    let reply = stage.token(PAYMENTS_POD, "&clientid=").await;
    reply.is_token_of(PAYMENTS);
    for more in [
        &format!("&client_id={}", REPORTS.client_id),
        "&clientid=12345678-0000-4000-8000-000000000000",
    ] {
        is_refused(&ask(&stage, PAYMENTS_POD, SECRET, more).await, 400);
    }
    is_refused(&ask(&stage, STRANGER_POD, SECRET, "").await, 400);
}

#[tokio::test]
async fn only_the_pods_own_secret_from_the_pods_own_address_opens() {
    let stage = set().await;
    let headers = |text: &str| request(&target(NEW, ""), text);
    for (what, bytes) in [
        ("none", headers("")),
        ("none, and IMDS's own header", headers("Metadata: true\r\n")),
        (
            "another pod's",
            headers(&format!("X-IDENTITY-HEADER: {ANOTHER}\r\n")),
        ),
        (
            "a part",
            headers(&format!("X-IDENTITY-HEADER: {}\r\n", &SECRET[1..])),
        ),
        (
            "more",
            headers(&format!("X-IDENTITY-HEADER: {SECRET}x\r\n")),
        ),
        ("empty", headers("X-IDENTITY-HEADER: \r\n")),
        (
            "another case",
            headers(&format!("X-IDENTITY-HEADER: {}\r\n", SECRET.to_uppercase())),
        ),
        (
            "twice",
            headers(&format!(
                "X-IDENTITY-HEADER: {SECRET}\r\nX-IDENTITY-HEADER: {SECRET}\r\n"
            )),
        ),
        (
            "the other dialect's header",
            headers(&format!("secret: {SECRET}\r\n")),
        ),
        (
            "the newer one's header",
            request(
                &target(OLD, ""),
                &format!("X-IDENTITY-HEADER: {SECRET}\r\n"),
            ),
        ),
        (
            "none, and nonsense asked for",
            request("/msi/token?api-version=x", ""),
        ),
    ] {
        let reply = stage.send(PAYMENTS_POD, bytes).await;
        assert_eq!(reply.status, 401, "{what}: {reply:?}");
        is_refused(&reply, 401);
    }
    // The right secret of somebody else, from here.
    is_refused(&ask(&stage, REPORTS_POD, SECRET, "").await, 401);
    // Whose spec has none.
    is_refused(&ask(&stage, world::TELLER_POD, SECRET, "").await, 401);
    assert_eq!(stage.upstream(), [], "nobody was asked for anything");
    assert!(
        stage.scrape().contains("kind=\"app_service_header\"} 13"),
        "{}",
        stage.scrape()
    );
}

#[tokio::test]
async fn what_else_is_wrong_is_told_to_who_has_shown_the_secret() {
    let stage = set().await;
    let header = format!("X-IDENTITY-HEADER: {SECRET}\r\n");
    for target in [
        target("2018-02-01", ""),
        format!("/msi/token?resource={VAULT}"),
        format!("/msi/token?api-version={NEW}"),
        target(NEW, "&resource=https://other"),
        target(NEW, "&client_id="),
    ] {
        is_refused(
            &stage.send(PAYMENTS_POD, request(&target, &header)).await,
            400,
        );
    }
    let post = request(&target(NEW, ""), &header).replacen("GET", "POST", 1);
    is_refused(&stage.send(PAYMENTS_POD, post).await, 405);
    let proxied = request(
        &target(NEW, ""),
        &format!("{header}X-Forwarded-For: 10.0.0.1\r\n"),
    );
    is_refused(&stage.send(PAYMENTS_POD, proxied).await, 400);
    assert_eq!(stage.upstream(), []);
}

#[tokio::test]
async fn the_secret_is_what_the_spec_writes_out_and_nothing_else() {
    let stage = stage().await;
    for (variables, status) in [
        ("{name: MSI_SECRET, value: VALUE}", 200),
        ("{name: OTHER, value: VALUE}", 401),
        ("{name: IDENTITY_HEADER, value: ''}", 401),
        (
            "{name: IDENTITY_HEADER, valueFrom: {secretKeyRef: {name: s, key: VALUE}}}",
            401,
        ),
        ("{name: IDENTITY_HEADER, value: 'VALUE$(X)'}", 401),
        (
            "{name: IDENTITY_HEADER, value: other}, {name: MSI_SECRET, value: VALUE}",
            200,
        ),
    ] {
        stage.apply(&pod(
            "payments",
            PAYMENTS_POD,
            &variables.replace("VALUE", SECRET),
        ));
        let reply = ask(&stage, PAYMENTS_POD, SECRET, "").await;
        assert_eq!(reply.status, status, "{variables}: {reply:?}");
    }
    // A pod is made anew with another secret: the old one is void at once.
    stage.apply(&pod(
        "payments",
        PAYMENTS_POD,
        &format!("{{name: IDENTITY_HEADER, value: {ANOTHER}}}"),
    ));
    is_refused(&ask(&stage, PAYMENTS_POD, SECRET, "").await, 401);
    ask(&stage, PAYMENTS_POD, ANOTHER, "")
        .await
        .is_token_of(PAYMENTS);
}

/// IMDS has no such path, and is nobody to show a secret to.
#[tokio::test]
async fn an_agent_that_only_observes_answers_by_itself() {
    let options = Options {
        enforcement: lanyard::agent::config::Enforcement::Observe,
        ..Options::default()
    };
    let stage = give(stage_with(options).await);
    is_refused(&ask(&stage, PAYMENTS_POD, ANOTHER, "").await, 401);
    is_refused(&ask(&stage, STRANGER_POD, SECRET, "").await, 400);
    assert_eq!(stage.upstream(), []);
    ask(&stage, PAYMENTS_POD, SECRET, "")
        .await
        .is_token_of(PAYMENTS);
}

#[tokio::test]
async fn a_secret_is_in_no_log_and_no_metric() {
    capture();
    let stage = set().await;
    ask(&stage, PAYMENTS_POD, SECRET, "")
        .await
        .is_token_of(PAYMENTS);
    is_refused(&ask(&stage, PAYMENTS_POD, ANOTHER, "").await, 401);
    is_refused(&ask(&stage, REPORTS_POD, SECRET, "").await, 401);
    let told = captured() + &stage.scrape();
    assert!(told.contains("app_service_2019"), "{told}");
    for secret in [SECRET, ANOTHER] {
        assert!(
            !told.contains(secret) && !told.contains(&secret[4..24]),
            "a secret was told"
        );
    }
}
