//! The contract with clients, requirement by requirement; the numbers are those of the list that
//! the protocol's clients were measured by.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::testkit::{
    AT_ONCE, Conversation, Options, Reply, VAULT, request, stage, stage_with, token_target,
};
use crate::world::{DESK_POD, PAYMENTS, PAYMENTS_POD, STRANGER_POD, TENANT, UNKNOWN_POD};

/// Seconds since the epoch by this machine's clock.
#[allow(clippy::disallowed_methods)] // what the answer is held against must not be the agent's clock
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn number(reply: &Reply, field: &str) -> u64 {
    let text = reply.text(field);
    assert!(
        text.bytes().all(|byte| byte.is_ascii_digit()),
        "{field}: {text}"
    );
    text.parse().unwrap()
}

#[tokio::test]
async fn r00_the_golden_body_byte_for_byte() {
    let stage = stage().await;
    let by_resource_id = format!("&msi_res_id={}", PAYMENTS.resource_id);
    let by_object_id = format!("&object_id={}", PAYMENTS.object_id);
    let by_client_id = format!("&client_id={}", PAYMENTS.client_id);
    for (more, resource_id, object_id) in [
        (String::new(), String::new(), String::new()),
        (by_client_id, String::new(), String::new()),
        (
            by_resource_id,
            format!(r#","msi_res_id":"{}""#, PAYMENTS.resource_id),
            String::new(),
        ),
        (
            by_object_id,
            String::new(),
            format!(r#","object_id":"{}""#, PAYMENTS.object_id),
        ),
    ] {
        let reply = stage.token(PAYMENTS_POD, &more).await;
        let claims = reply.claims();
        let (token, left) = (reply.text("access_token"), reply.text("expires_in"));
        let client_id = PAYMENTS.client_id;
        let want = format!(
            r#"{{"access_token":"{token}","client_id":"{client_id}","expires_in":"{left}","expires_on":"{}","ext_expires_in":"{left}"{resource_id},"not_before":"{}"{object_id},"resource":"{VAULT}","token_type":"Bearer"}}"#,
            claims["exp"], claims["nbf"]
        );
        assert_eq!(reply.body, want);
    }
}

#[tokio::test]
async fn r01_expires_on_is_a_string_of_whole_epoch_seconds() {
    let reply = stage().await.token(PAYMENTS_POD, "").await;
    assert_eq!(
        number(&reply, "expires_on"),
        reply.claims()["exp"].as_u64().unwrap()
    );
}

#[tokio::test]
async fn r02_expires_in_is_right_at_the_moment_of_the_answer() {
    let stage = stage().await;
    for (passed, upstream_calls) in [(0, 1), (7, 1), (600, 1)] {
        stage.let_pass(passed);
        let before = now();
        let reply = stage.token(PAYMENTS_POD, "").await;
        let after = now();
        let ahead = if passed == 600 { 607 } else { passed };
        let expires_on = number(&reply, "expires_on");
        // Whole seconds, rounded down.
        let right = expires_on - (after + ahead) - 1..=expires_on - (before + ahead);
        assert!(
            right.contains(&number(&reply, "expires_in")),
            "{right:?}: {reply:?}"
        );
        assert_eq!(reply.text("expires_in"), reply.text("ext_expires_in"));
        assert_eq!(stage.upstream().len(), upstream_calls);
    }
}

#[tokio::test]
async fn r03_resource_comes_back_byte_for_byte_and_reaches_the_audience() {
    let stage = stage().await;
    for (sent, meant) in [
        ("https://vault.azure.net", "https://vault.azure.net"),
        (
            "https%3A%2F%2Fmanagement.azure.com%2F",
            "https://management.azure.com/",
        ),
        (
            "https://management.azure.com/",
            "https://management.azure.com/",
        ),
        (
            "https://management.azure.com",
            "https://management.azure.com",
        ),
        ("https%3A%2F%2FVault.Azure.NET", "https://Vault.Azure.NET"),
        (
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d",
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d",
        ),
        (
            "api://aaaaaaaa-0000-4000-8000-00000000000a",
            "api://aaaaaaaa-0000-4000-8000-00000000000a",
        ),
        (
            "urn:ms-drs:enterpriseregistration.windows.net",
            "urn:ms-drs:enterpriseregistration.windows.net",
        ),
        (
            "https://a.example/%22x%22%5Cy",
            "https://a.example/\"x\"\\y",
        ),
        (
            "https://a.example/%C3%A9%26client_id=x",
            "https://a.example/é&client_id=x",
        ),
        ("https://a.example/1%2B1", "https://a.example/1+1"),
    ] {
        let reply = stage.token_for(PAYMENTS_POD, sent).await;
        assert_eq!(reply.claims()["aud"], meant);
        assert_eq!(reply.text("resource"), meant);
        assert_eq!(reply.text("token_type"), "Bearer");
    }
}

#[tokio::test]
async fn r04_no_null_no_empty_value_and_never_refresh_in() {
    // Azure may tell one; it is for us to use and not for the clients, which fail on it.
    let azure = "tokens: {refreshIn: 1h}";
    let stage = stage_with(Options {
        azure,
        ..Options::default()
    })
    .await;
    for _ in 0..2 {
        let reply = stage.token(PAYMENTS_POD, "").await;
        let body = reply.json();
        assert!(body.get("refresh_in").is_none(), "{body}");
        let texts = body.as_object().unwrap().values().map(Value::as_str);
        assert!(
            texts
                .into_iter()
                .all(|text| text.is_some_and(|text| !text.is_empty())),
            "{body}"
        );
    }
}

#[tokio::test]
async fn r05_a_token_near_its_end_is_replaced_before_it_is_handed_out() {
    let stage = stage().await;
    let ten_minutes = lanyard::sim::faults::Effect::Lifetime(Duration::from_mins(10));
    let fault = lanyard::sim::Fault::new(lanyard::sim::faults::Target::Imds, ten_minutes);
    stage.simulator.add_fault(fault.times(1));
    let first = stage.token(PAYMENTS_POD, "").await;
    assert!(number(&first, "expires_in") <= 600);
    stage.let_pass(301);
    let second = stage.token(PAYMENTS_POD, "").await;
    assert!(number(&second, "expires_in") > 300, "{second:?}");
    assert_ne!(first.text("access_token"), second.text("access_token"));
}

#[tokio::test]
async fn r06_all_api_versions_that_are_in_use() {
    let stage = stage().await;
    for version in [
        "2017-12-01",
        "2018-02-01",
        "2019-08-01",
        "2021-02-01",
        "2023-07-01",
    ] {
        let target =
            format!("/metadata/identity/oauth2/token?api-version={version}&resource={VAULT}");
        stage.get(PAYMENTS_POD, &target).await.is_token_of(PAYMENTS);
    }
}

#[tokio::test]
async fn r08_without_the_metadata_header_400_before_anything_is_looked_up() {
    let stage = stage().await;
    let token = token_target("");
    // Of an unknown pod everything that looks up would wait; of a stranger it would be refused.
    for pod in [UNKNOWN_POD, STRANGER_POD, PAYMENTS_POD] {
        for header in [
            "",
            "Metadata: false\r\n",
            "Metadata:\r\n",
            "Metadata: true\r\nMetadata: true\r\n",
            "X-Metadata: true\r\n",
        ] {
            let reply = stage
                .send(
                    pod,
                    format!("GET {token} HTTP/1.1\r\nHost: x\r\n{header}\r\n"),
                )
                .await;
            reply.is_error_at_once(400);
            assert_eq!(
                reply.text("error_description"),
                "Required metadata header not specified"
            );
            assert_eq!(reply.body.len(), 88, "as IMDS: {reply:?}");
        }
    }
    assert!(stage.upstream().is_empty());
}

#[tokio::test]
async fn r08_the_metadata_header_in_any_letter_case() {
    let stage = stage().await;
    let token = token_target("");
    for header in [
        "Metadata: true",
        "metadata:true",
        "METADATA: True",
        "Metadata:  TRUE ",
    ] {
        let reply = stage
            .send(
                PAYMENTS_POD,
                format!("GET {token} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n"),
            )
            .await;
        reply.is_token_of(PAYMENTS);
    }
}

#[tokio::test]
async fn r11_r12_every_400_is_a_json_object_without_retry_after() {
    let stage = stage().await;
    let token = "/metadata/identity/oauth2/token";
    for target in [
        token_target("&client_id=x"),
        token_target("&client_id="),
        token_target("&resource=again"),
        format!("{token}?resource={VAULT}"),
        format!("{token}?api-version=2018-02-01"),
        "/metadata/%".to_owned(),
        "/metadata/a%5cb".to_owned(),
    ] {
        stage.get(PAYMENTS_POD, &target).await.is_error_at_once(400);
    }
    // Several and no word which: Azure's answer for that.
    let several = stage.token(DESK_POD, "").await;
    several.is_error_at_once(400);
    assert!(
        several
            .text("error_description")
            .contains("Multiple user assigned identities"),
        "{several:?}"
    );
}

#[tokio::test]
async fn r16_the_resource_may_be_unescaped() {
    let stage = stage().await;
    let reply = stage
        .token_for(PAYMENTS_POD, "https://vault.azure.net")
        .await;
    reply.is_token_of(PAYMENTS);
}

#[tokio::test]
async fn r17_a_trailing_slash_and_a_doubled_leading_one() {
    let stage = stage().await;
    let query = format!("api-version=2018-02-01&resource={VAULT}");
    for path in [
        "/metadata/identity/oauth2/token",
        "/metadata/identity/oauth2/token/",
        "//metadata/identity/oauth2/token",
        "//metadata/identity/oauth2/token/",
        "/Metadata/identity/oauth2/token",
        "/METADATA/Identity/OAuth2/Token",
    ] {
        stage
            .get(PAYMENTS_POD, &format!("{path}?{query}"))
            .await
            .is_token_of(PAYMENTS);
    }
    for entry in stage.upstream() {
        assert!(
            entry.target.starts_with("/metadata/identity/oauth2/token?"),
            "{entry:?}"
        );
    }
}

#[tokio::test]
async fn r18_unknown_parameters_and_odd_headers_are_ignored() {
    let stage = stage().await;
    let target = token_target("&msi-res-id=typo&authority=x&api_version=1&&=&flag");
    for header in [
        "Content-Type: application/x-www-form-urlencoded;charset=utf-8",
        "Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
        "Accept-Language: *\r\nSec-Fetch-Mode: cors\r\nUser-Agent: node",
        "X-Identity-Header: left-over\r\nAuthorization: Basic eA==",
        "Expect: nothing",
    ] {
        let reply = stage
            .send(
                PAYMENTS_POD,
                format!("GET {target} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n{header}\r\n\r\n"),
            )
            .await;
        reply.is_token_of(PAYMENTS);
    }
    // None of it goes upstream.
    let expect = format!("client_id={}", PAYMENTS.client_id);
    for entry in stage.upstream() {
        assert!(
            entry.target.ends_with(&expect) && !entry.target.contains("typo"),
            "{entry:?}"
        );
    }
}

#[tokio::test]
async fn r20_the_region_question_is_answered_at_once() {
    let stage = stage().await;
    for pod in [PAYMENTS_POD, STRANGER_POD, UNKNOWN_POD] {
        for path in [
            "/metadata/instance/compute",
            "/metadata/instance/compute/location",
            "/metadata/instance",
        ] {
            let reply = stage
                .get(pod, &format!("{path}?api-version=2021-02-01"))
                .await;
            reply.is_error_at_once(403);
        }
    }
    assert!(stage.upstream().is_empty());
}

#[tokio::test]
async fn r21_keep_alive_with_content_length() {
    let stage = stage().await;
    let mut conversation = stage.connect(PAYMENTS_POD).await;
    for target in [
        token_target(""),
        "/metadata/identity/nothing".into(),
        "/".into(),
        token_target("&client_id=x"),
        token_target(""),
    ] {
        conversation.send(request(&target)).await;
        let reply = conversation.reply().await;
        assert_eq!(
            reply.header("content-length").unwrap().parse(),
            Ok(reply.body.len())
        );
        assert!(
            reply.header("transfer-encoding").is_none() && reply.header("connection").is_none()
        );
    }
    conversation.send(request(&token_target(""))).await;
    let reply = conversation.reply().await;
    reply.is_token_of(PAYMENTS);
    assert!(reply.took < AT_ONCE);
}

#[tokio::test]
async fn r22_the_token_is_azures_own_with_tid() {
    let stage = stage().await;
    let reply = stage.token(PAYMENTS_POD, "").await;
    assert_eq!(reply.claims()["tid"], TENANT);
    // As a service checks it: by the key that Azure publishes.
    let token = reply.text("access_token");
    let entra = stage.simulator.addresses().entra.unwrap();
    let mut conversation = Conversation::open("127.0.0.1", entra).await;
    conversation
        .send(request(&format!("/{TENANT}/discovery/keys")))
        .await;
    let keys = conversation.reply().await.body;
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&keys).unwrap();
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    rules.set_audience(&[VAULT]);
    rules.set_issuer(&[format!("https://sts.windows.net/{TENANT}/")]);
    let verified = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap();
    assert_eq!(verified.claims["xms_mirid"], PAYMENTS.resource_id);
    assert_eq!(verified.claims["oid"], PAYMENTS.object_id);
}
