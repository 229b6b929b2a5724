//! Each client's own requests, as measured on the wire: query order, headers, probes. What matters
//! is that every one of them gets the right identity, whatever its habits.

use crate::testkit::{AT_ONCE, Options, stage, stage_with};
use crate::world::{DESK_POD, PAYMENTS, PAYMENTS_POD, REPORTS, UNKNOWN_POD};

const PATH: &str = "/metadata/identity/oauth2/token";

/// Client, query (`{}` = where its selector goes), names of its selectors for client id, object id
/// and resource id (empty: it has none), headers besides Host.
type Client = (&'static str, &'static str, [&'static str; 3], &'static str);

const CLIENTS: &[Client] = &[
    (
        "py",
        "api-version=2018-02-01&resource=https://vault.azure.net{}",
        ["client_id", "object_id", "msi_res_id"],
        "User-Agent: azsdk-python-identity/1.27.0 Python/3.13\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nMetadata: true\r\nx-client-SKU: MSAL.Python\r\nx-client-Ver: 1.39.0\r\nx-ms-client-request-id: 0a1b\r\n",
    ),
    (
        "aio",
        "api-version=2018-02-01&resource=https://vault.azure.net{}",
        ["client_id", "object_id", "resource_id"],
        "Metadata: true\r\nUser-Agent: azsdk-python-identity/1.27.0\r\nx-ms-client-request-id: 0a1b\r\nAccept: */*\r\n",
    ),
    (
        "node",
        "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net{}",
        ["client_id", "object_id", "msi_res_id"],
        "Metadata: true\r\nx-client-SKU: msal.js.node\r\nx-client-VER: 5.6.0\r\nx-ms-client-request-id: 0a1b\r\nContent-Type: application/x-www-form-urlencoded;charset=utf-8\r\nAccept-Encoding: gzip,deflate\r\nConnection: keep-alive\r\n",
    ),
    (
        "nmsal",
        "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net{}",
        ["client_id", "object_id", "msi_res_id"],
        "connection: keep-alive\r\nMetadata: true\r\nx-client-SKU: msal.js.node\r\nContent-Type: application/x-www-form-urlencoded;charset=utf-8\r\naccept: */*\r\naccept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\n",
    ),
    // The last two selectors sort before `resource`.
    (
        "go",
        "api-version=2018-02-01{}&resource=https%3A%2F%2Fvault.azure.net",
        ["client_id", "object_id", "msi_res_id"],
        "User-Agent: Go-http-client/1.1\r\nMetadata: true\r\nX-Client-Sku: MSAL.Go\r\nX-Client-Ver: 1.10.1\r\nX-Ms-Client-Request-Id: 0a1b\r\nAccept-Encoding: gzip\r\n",
    ),
    (
        "adal",
        "api-version=2018-02-01{}&resource=https%3A%2F%2Fvault.azure.net",
        ["client_id", "", "mi_res_id"],
        "User-Agent: Go/go1.25 (amd64-linux) go-autorest/adal/v1.0.0\r\nMetadata: true\r\nAccept-Encoding: gzip\r\n",
    ),
    (
        "java",
        "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net{}",
        ["client_id", "object_id", ""],
        "Metadata: true\r\nx-client-SKU: MSAL.Java\r\nx-client-VER: 1.26.0\r\nx-ms-client-request-id: 0a1b\r\nAccept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\r\nConnection: keep-alive\r\n",
    ),
    (
        "java by resource id",
        "api-version=2018-02-01{}&resource=https%3A%2F%2Fvault.azure.net",
        ["", "", "mi_res_id"],
        "Metadata: true\r\nUser-Agent: Java/17\r\n",
    ),
    (
        "rust",
        "api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net{}",
        ["client_id", "object_id", "msi_res_id"],
        "metadata: true\r\nx-ms-client-request-id: 0a1b\r\nx-identity-header: left-over\r\n",
    ),
    (
        "net",
        "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net{}",
        ["client_id", "object_id", "msi_res_id"],
        "Metadata: true\r\nx-client-SKU: MSAL.NetCore\r\nx-client-Ver: 4.80.0\r\nx-ms-client-request-id: 0a1b\r\n",
    ),
    (
        "Terraform",
        "api-version=2018-02-01{}&resource=https%3A%2F%2Fvault.azure.net",
        ["client_id", "", ""],
        "Metadata: true\r\nUser-Agent: HashiCorp Terraform\r\n",
    ),
    (
        "object_store",
        "api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net{}",
        ["client_id", "object_id", "msi_res_id"],
        "metadata: true\r\nX-Identity-Header: left-over\r\n",
    ),
    (
        "curl, any order",
        "resource=https://vault.azure.net{}&api-version=2018-02-01",
        ["client_id", "object_id", "msi_res_id"],
        "User-Agent: curl/8.14\r\nAccept: */*\r\nMetadata:true\r\n",
    ),
];

fn bytes(path: &str, query: &str, headers: &str) -> String {
    format!("GET {path}?{query} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n")
}

#[tokio::test]
async fn every_clients_request_without_a_selector_gets_the_pods_identity() {
    let stage = stage().await;
    for (name, query, _, headers) in CLIENTS {
        let reply = stage
            .send(PAYMENTS_POD, bytes(PATH, &query.replace("{}", ""), headers))
            .await;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        reply.is_token_of(PAYMENTS);
    }
}

#[tokio::test]
async fn every_clients_selectors_get_what_they_name() {
    let stage = stage().await;
    let mut asked = 0;
    for (name, query, selectors, headers) in CLIENTS {
        for identity in [PAYMENTS, REPORTS] {
            let values = [identity.client_id, identity.object_id, identity.resource_id];
            for (selector, value) in selectors.iter().zip(values).filter(|(s, _)| !s.is_empty()) {
                let escaped = value.replace('/', "%2F");
                for value in [value, &escaped] {
                    let query = query.replace("{}", &format!("&{selector}={value}"));
                    let reply = stage.send(DESK_POD, bytes(PATH, &query, headers)).await;
                    assert_eq!(reply.status, 200, "{name} {selector}: {reply:?}");
                    reply.is_token_of(identity);
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 100, "{asked}");
}

#[tokio::test]
async fn the_paths_that_pod_host_variables_lead_to() {
    let stage = stage().await;
    let query = "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
    // node: a trailing slash; node and java: a doubled one when the variable ends in one.
    for path in [
        "/metadata/identity/oauth2/token/",
        "//metadata/identity/oauth2/token",
        "//metadata/identity/oauth2/token/",
    ] {
        stage
            .send(PAYMENTS_POD, bytes(path, query, "Metadata: true\r\n"))
            .await
            .is_token_of(PAYMENTS);
    }
}

/// Section 2: the probe is answered in the time that the strictest client gives it, whoever asks,
/// and by a 400 that does not look like a refused identity.
#[tokio::test]
async fn r09_every_clients_probe_is_a_400_at_once() {
    let stage = stage().await;
    let full = "api-version=2018-02-01&resource=https://vault.azure.net";
    for pod in [PAYMENTS_POD, UNKNOWN_POD] {
        for (client, query, headers) in [
            (
                "py, aio",
                full.to_owned(),
                "User-Agent: azsdk-python-identity/1.27.0\r\n",
            ),
            (
                "py by client id",
                format!("{full}&client_id={}", PAYMENTS.client_id),
                "",
            ),
            (
                "py by object id",
                format!("{full}&object_id={}", PAYMENTS.object_id),
                "",
            ),
            (
                "py by resource id",
                format!("{full}&resource_id={}", PAYMENTS.resource_id),
                "",
            ),
            ("node", String::new(), "Accept: application/json\r\n"),
            (
                "go",
                String::new(),
                "User-Agent: azsdk-go-azidentity/v1.15.0\r\n",
            ),
            (
                "java",
                "api-version=2018-02-01".to_owned(),
                "User-Agent: Java/17\r\nAccept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\r\n",
            ),
            (
                "adal",
                "api-version=2018-02-01".to_owned(),
                "User-Agent: Go-http-client/1.1\r\n",
            ),
            (
                "net",
                format!("{full}&msi-res-id={}", PAYMENTS.resource_id),
                "",
            ),
        ] {
            let target = if query.is_empty() {
                PATH.to_owned()
            } else {
                format!("{PATH}?{query}")
            };
            let sent = format!("GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n");
            let reply = stage.send(pod, sent).await;
            reply.is_error_at_once(400);
            assert!(
                !reply.body.contains("Identity not found"),
                "{client}: {reply:?}"
            );
        }
    }
    assert!(stage.upstream().is_empty());
}

/// MSAL.NET asks this first; 404 = "no such version here". It must never be forwarded.
#[tokio::test]
async fn the_probe_of_the_second_version_is_404_with_and_without_the_header() {
    let stage = stage_with(Options::default()).await;
    for headers in ["", "Metadata: true\r\n"] {
        let query = "cred-api-version=2.0";
        let path = "/metadata/identity/getplatformmetadata";
        let reply = stage.send(PAYMENTS_POD, bytes(path, query, headers)).await;
        reply.is_error_at_once(404);
        assert!(reply.took < AT_ONCE);
    }
    assert!(stage.upstream().is_empty());
}
