//! Other metadata: closed, unless an `AzureMetadataException` opens exactly this path for the pod's
//! service account; what is passed on carries nothing of the client's but the path's own parameters.

use crate::testkit::{Stage, request, stage};
use crate::world::{PAYMENTS_POD, REPORTS_POD, STRANGER_POD, TELLER_POD, TENANT, UNKNOWN_POD};

const LOCATION: &str = "/metadata/instance/compute/location";

fn exception(name: &str, accounts: &str, paths: &str, more: &str) -> String {
    format!(
        "apiVersion: lanyard.dev/v1alpha1\nkind: AzureMetadataException\nmetadata: {{name: {name}}}\n\
         spec: {{namespace: shop, serviceAccounts: [{accounts}], paths: [{paths}]{more}}}"
    )
}

async fn opened(paths: &str, more: &str) -> Stage {
    let stage = stage().await;
    stage.apply(&exception("open", "payments", paths, more));
    stage
}

#[tokio::test]
async fn everything_is_closed_by_default() {
    let stage = stage().await;
    for path in [
        "/metadata",
        "/metadata/instance",
        "/metadata/instance/compute",
        LOCATION,
        "/metadata/instance/compute/userData",
        "/metadata/versions",
        "/metadata/scheduledevents",
        "/metadata/attested/document",
        "/metadata/loadbalancer",
        "/metadata/instance/network",
    ] {
        let reply = stage
            .get(PAYMENTS_POD, &format!("{path}?api-version=2021-02-01"))
            .await;
        reply.is_error_at_once(403);
        assert!(
            reply
                .text("error_description")
                .contains("AzureMetadataException"),
            "{reply:?}"
        );
    }
    assert!(stage.upstream().is_empty());
}

#[tokio::test]
async fn an_open_path_is_passed_on_with_its_own_parameters_and_nothing_else() {
    let stage = opened(LOCATION, "").await;
    let target = format!(
        "{LOCATION}?resource=x&format=text&client_id=y&api-version=2021-02-01&bypass_cache=true"
    );
    let sent = format!(
        "GET {target} HTTP/1.1\r\nHost: evil.example\r\nMetadata: true\r\nUser-Agent: program/1\r\nCookie: a=b\r\n\
         x-ms-client-request-id: 0a1b\r\nx-client-SKU: MSAL.Go\r\nConnection: close\r\n\r\n"
    );
    let reply = stage.send(PAYMENTS_POD, sent).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, "westeurope"),
        "{reply:?}"
    );
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let upstream = stage.upstream();
    assert_eq!(upstream.len(), 1);
    assert_eq!(upstream[0].method, "GET");
    assert_eq!(
        upstream[0].target,
        format!("{LOCATION}?api-version=2021-02-01&format=text")
    );
    let imds = stage.simulator.addresses().imds.unwrap().to_string();
    let headers = [
        ("host".to_owned(), imds),
        ("metadata".to_owned(), "true".to_owned()),
    ];
    assert_eq!(upstream[0].headers, headers);
}

#[tokio::test]
async fn an_open_path_in_the_spellings_that_the_token_route_allows() {
    let stage = opened(LOCATION, "").await;
    for path in [
        "/metadata/instance/compute/location/",
        "//metadata/instance/compute/location",
        "/Metadata/Instance/Compute/Location",
    ] {
        let reply = stage
            .get(
                PAYMENTS_POD,
                &format!("{path}?api-version=2021-02-01&format=text"),
            )
            .await;
        assert_eq!(reply.body, "westeurope", "{path}");
    }
    for entry in stage.upstream() {
        assert!(
            entry.target.starts_with(&format!("{LOCATION}?")),
            "{entry:?}"
        );
    }
}

#[tokio::test]
async fn an_open_path_opens_nothing_beside_it() {
    let stage = opened(LOCATION, "").await;
    for path in [
        "/metadata/instance/compute/location/more",
        "/metadata/instance/compute",
        "/metadata/instance/compute/locations",
        "/metadata/instance/compute/name",
        "/metadata/instance",
    ] {
        let reply = stage
            .get(
                PAYMENTS_POD,
                &format!("{path}?api-version=2021-02-01&format=text"),
            )
            .await;
        reply.is_error_at_once(403);
    }
    // Nor for anybody else: another account, another namespace, an address that is nobody's.
    let target = format!("{LOCATION}?api-version=2021-02-01&format=text");
    for pod in [REPORTS_POD, STRANGER_POD, TELLER_POD] {
        stage.get(pod, &target).await.is_error_at_once(403);
    }
    stage.get(UNKNOWN_POD, &target).await.is_error_at_once(503);
    for method in ["POST", "PUT", "HEADER", "DELETE"] {
        let sent = request(&target).replacen("GET", method, 1);
        stage.send(PAYMENTS_POD, sent).await.is_error_at_once(405);
    }
    let without = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    stage
        .send(PAYMENTS_POD, without)
        .await
        .is_error_at_once(400);
    for query in [
        "",
        "?format=text",
        "?api-version=2016-01-01",
        "?api-version=2021-02-01&format=xml",
        "?api-version=2021-02-01&api-version=2021-02-01",
    ] {
        stage
            .get(PAYMENTS_POD, &format!("{LOCATION}{query}"))
            .await
            .is_error_at_once(400);
    }
    assert!(stage.upstream().is_empty(), "{:?}", stage.upstream());
}

#[tokio::test]
async fn a_stranger_may_be_given_a_path_and_still_gets_no_token() {
    let stage = stage().await;
    stage.apply(&exception("open", "stranger", LOCATION, ""));
    let reply = stage
        .get(
            STRANGER_POD,
            &format!("{LOCATION}?api-version=2021-02-01&format=text"),
        )
        .await;
    assert_eq!(reply.body, "westeurope");
    stage.token(STRANGER_POD, "").await.is_identity_not_found();
}

#[tokio::test]
async fn the_nodes_secrets_stay_out_unless_an_operator_says_so() {
    // Without `allowNodeIdentity` such a path cannot even be listed.
    let plain = "/metadata/instance, /metadata/instance/compute";
    let paths = "/metadata/instance, /metadata/instance/compute, /metadata/instance/compute/userData, /metadata/instance/compute/customData";
    let stage = opened(plain, "").await;
    for path in ["/metadata/instance", "/metadata/instance/compute"] {
        let reply = stage
            .get(PAYMENTS_POD, &format!("{path}?api-version=2021-02-01"))
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let body = reply.json();
        assert!(reply.body.contains("westeurope"), "{body}");
        let text = reply.body.to_lowercase();
        assert!(
            !text.contains("userdata") && !text.contains("customdata") && !text.contains("bm9kzs"),
            "{body}"
        );
    }
    let before = stage.upstream().len();
    for path in [
        "/metadata/instance/compute/userData",
        "/metadata/instance/compute/CUSTOMDATA",
        "/metadata/instance/compute/userdata/",
    ] {
        let reply = stage
            .get(
                PAYMENTS_POD,
                &format!("{path}?api-version=2021-02-01&format=text"),
            )
            .await;
        reply.is_error_at_once(403);
    }
    assert_eq!(stage.upstream().len(), before);

    stage.apply(&exception(
        "open",
        "payments",
        paths,
        ", allowNodeIdentity: true",
    ));
    let reply = stage
        .get(PAYMENTS_POD, "/metadata/instance?api-version=2021-02-01")
        .await;
    assert_eq!(reply.json()["compute"]["userData"], "bm9kZS11c2VyLWRhdGE=");
    let reply = stage
        .get(
            PAYMENTS_POD,
            "/metadata/instance/compute/userData?api-version=2021-02-01&format=text",
        )
        .await;
    assert_eq!(reply.body, "bm9kZS11c2VyLWRhdGE=");
}

#[tokio::test]
async fn identity_paths_cannot_be_opened_by_any_exception() {
    for path in [
        "/metadata/identity/oauth2/token",
        "/metadata/identity",
        "/Metadata/Identity/info",
        "/metadata/identity/",
    ] {
        let value = serde_saphyr::from_str(&exception(
            "bad",
            "payments",
            path,
            ", allowNodeIdentity: true",
        ))
        .unwrap();
        assert!(lanyard::api::object::read(value, "1").is_err(), "{path}");
    }
    let stage = opened("/metadata/instance", ", allowNodeIdentity: true").await;
    for path in [
        "/metadata/identity/getplatformmetadata",
        "/metadata/identity/issuecredential",
        "/metadata/identity/credential",
    ] {
        for method in ["GET", "POST"] {
            for header in ["Metadata: true\r\n", ""] {
                let sent = format!(
                    "{method} {path}?cred-api-version=2.0&api-version=2018-02-01 HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 0\r\n\r\n"
                );
                let reply = stage.send(PAYMENTS_POD, sent).await;
                reply.is_error_at_once(404);
            }
        }
    }
    assert!(stage.upstream().is_empty());
}

#[tokio::test]
async fn the_tenant_is_answered_by_the_agent_itself() {
    let stage = stage().await;
    let target = "/metadata/identity/info?api-version=2018-02-01";
    for path in [target, "//metadata/identity/info/?api-version=2018-02-01"] {
        let reply = stage.get(PAYMENTS_POD, path).await;
        assert_eq!(
            (reply.status, reply.body),
            (200, format!(r#"{{"tenantId":"{TENANT}"}}"#))
        );
    }
    stage
        .get(STRANGER_POD, target)
        .await
        .is_identity_not_found();
    stage
        .get(PAYMENTS_POD, "/metadata/identity/info")
        .await
        .is_error_at_once(400);
    let without = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    stage
        .send(PAYMENTS_POD, without)
        .await
        .is_error_at_once(400);
    assert!(stage.upstream().is_empty());
}

/// Many requests of one pod for an open path: its share, then "try again"; others go on.
#[tokio::test]
async fn passing_on_has_its_bounds() {
    let stage = opened(LOCATION, "").await;
    let target = format!("{LOCATION}?api-version=2021-02-01&format=text");
    let mut refused = 0;
    // At once: one after the other they would come at the very pace at which the share fills up.
    let get = || stage.get(PAYMENTS_POD, &target);
    let replies = tokio::join!(get(), get(), get(), get(), get(), get());
    for reply in <[_; 6]>::from(replies) {
        if reply.status != 200 {
            reply.is_error_at_once(429);
            refused += 1;
        }
    }
    assert!(refused > 0);
    stage.apply(&exception("other", "reports", LOCATION, ""));
    assert_eq!(stage.get(REPORTS_POD, &target).await.body, "westeurope");
}
