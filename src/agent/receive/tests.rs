//! What clients really send, and what attackers do.

use hyper::Request;
use proptest::prelude::*;

use super::*;
use crate::model::presented::SecretDigest;
use crate::model::query::{Dialect, Selector};

const QUERY: &str = "api-version=2018-02-01&resource=https://vault.azure.net";

fn get(target: &str) -> Result<Ask, Fault> {
    ask("GET", target, &[("Metadata", "true")])
}

fn ask(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Ask, Fault> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    receive(&request.body(()).expect("a request").into_parts().0)
}

fn token(target: &str) -> TokenQuery {
    match get(target) {
        Ok(Ask::Token(query)) => query,
        other => panic!("{target}: {other:?}"),
    }
}

fn kind(answer: Result<Ask, Fault>) -> FaultKind {
    answer.expect_err("a fault").kind
}

/// What the webhook writes into pods' variables is where we listen.
#[test]
fn the_endpoint_that_pods_are_told_is_this_one() {
    let path = crate::api::APP_SERVICE_ENDPOINT.strip_prefix("http://169.254.169.254");
    assert_eq!(path, Some(path::APP_SERVICE));
}

#[test]
fn the_token_route_is_as_lenient_as_clients_need() {
    for path in [
        "/metadata/identity/oauth2/token",
        "/metadata/identity/oauth2/token/",
        "//metadata/identity/oauth2/token",
        "//metadata/identity/oauth2/token/",
        "/Metadata/identity/oauth2/token",
        "/METADATA/Identity/OAuth2/Token",
        "/metadata/identity/oauth2/%74oken",
    ] {
        assert_eq!(
            token(&format!("{path}?{QUERY}")).resource,
            "https://vault.azure.net",
            "{path}"
        );
    }
}

/// CVE-2022-23551 and its relatives: a path that IMDS could read as the token path is neither
/// taken for another route nor forwardable.
#[test]
fn path_tricks_end_in_an_error_from_us() {
    for path in [
        "/metadata/identity\\oauth2\\token",
        "/metadata\\identity/oauth2/token",
        "/metadata/identity%5coauth2%5Ctoken",
        "/metadata/identity%2foauth2%2Ftoken",
        "/metadata/identity/oauth2%2ftoken",
        "/metadata/identity/oauth2/token%00",
        "/metadata/identity/oauth2/token%2500",
        "/metadata/%2569dentity/oauth2/token",
        "/metadata/instance/../identity/oauth2/token",
        "/metadata/instance/%2e%2e/identity/oauth2/token",
        "/metadata/./identity/oauth2/token",
        "/metadata//identity/oauth2/token",
        "///metadata/identity/oauth2/token",
        "/metadata/identity/oauth2/token//",
        "/metadata/identity;x/oauth2/token",
        "/metadata/identity/oauth2/token;v=1",
        "/metadata/identity/oauth2/token%20",
        "/metadata/identity/oauth2/token%zz",
        "/metadata/identity/oauth2/token%c0%af",
        "/metadata/identity/oauth2/tok%e9n",
        "http://169.254.169.254/metadata/identity/oauth2/token",
    ] {
        assert_eq!(
            kind(get(&format!("{path}?{QUERY}"))),
            FaultKind::BadRequest,
            "{path}"
        );
    }
}

#[test]
fn identity_paths_that_could_leak_the_node_do_not_exist_here() {
    for path in [
        "/metadata/identity/getplatformmetadata",
        "/metadata/identity/issuecredential",
        "/metadata/identity/credential",
        "/metadata/identity/oauth2/tokenx",
        "/metadata/identity/oauth2/token/x",
        "/metadata/identity",
        "/host/token",
        "/",
        "/machine",
    ] {
        assert_eq!(
            kind(get(&format!("{path}?{QUERY}"))),
            FaultKind::PathNotFound,
            "{path}"
        );
        // IMDSv2's probe comes without the header and takes 404 for "not here".
        assert_eq!(
            kind(ask("POST", path, &[])),
            FaultKind::PathNotFound,
            "{path} without the header"
        );
    }
}

#[test]
fn the_metadata_header_is_asked_for_before_the_query() {
    for headers in [
        &[][..],
        &[("Metadata", "false")],
        &[("Metadata", "true"), ("Metadata", "true")],
    ] {
        let answer = ask("GET", "/metadata/identity/oauth2/token", headers);
        assert_eq!(
            kind(answer),
            FaultKind::MetadataHeaderMissing,
            "{headers:?}"
        );
    }
    assert!(
        ask(
            "GET",
            &format!("/metadata/identity/oauth2/token?{QUERY}"),
            &[("metadata", "TRUE")]
        )
        .is_ok()
    );
}

#[test]
fn forwarded_requests_and_other_methods_are_refused() {
    let target = format!("/metadata/identity/oauth2/token?{QUERY}");
    let forwarded = [("Metadata", "true"), ("X-Forwarded-For", "10.0.0.1")];
    assert_eq!(kind(ask("GET", &target, &forwarded)), FaultKind::Forwarded);
    for method in ["POST", "PUT", "HEAD", "DELETE", "OPTIONS", "BREW"] {
        assert_eq!(
            kind(ask(method, &target, &[("Metadata", "true")])),
            FaultKind::MethodNotAllowed,
            "{method}"
        );
    }
}

#[test]
fn required_parameters_come_once() {
    for (query, says) in [
        ("api-version=2018-02-01", "'resource' is missing"),
        ("api-version=2018-02-01&resource=", "'resource' is missing"),
        (
            "api-version=2018-02-01&resource=a&resource=a",
            "'resource' is given more than once",
        ),
        ("resource=a", "'api-version' is missing"),
        (
            "resource=a&api-version=2018-02-01&api-version=2018-02-01",
            "'api-version' is given more than once",
        ),
        ("resource=a&api-version=2016-01-01", "Invalid api-version"),
        ("resource=a&api-version=latest", "Invalid api-version"),
        (
            "resource=a%0d%0aX:y&api-version=2018-02-01",
            "Invalid resource",
        ),
        (
            "resource=%ff&api-version=2018-02-01",
            "not valid URL encoding",
        ),
        (
            "resource=%4&api-version=2018-02-01",
            "not valid URL encoding",
        ),
    ] {
        let fault = get(&format!("/metadata/identity/oauth2/token?{query}")).expect_err(query);
        assert_eq!(fault.kind, FaultKind::BadRequest);
        assert!(fault.public.contains(says), "{query}: {}", fault.public);
    }
    let long = format!(
        "/metadata/identity/oauth2/token?{QUERY}&x={}",
        "y".repeat(9000)
    );
    assert_eq!(kind(get(&long)), FaultKind::BadRequest);
}

#[test]
fn versions_that_clients_use_are_taken() {
    for version in [
        "2017-12-01",
        "2018-02-01",
        "2019-08-01",
        "2021-02-01",
        "2025-04-07",
    ] {
        token(&format!(
            "/metadata/identity/oauth2/token?resource=a&api-version={version}"
        ));
    }
}

#[test]
fn resource_survives_byte_for_byte_escaped_or_not() {
    for (written, meant) in [
        ("https://vault.azure.net", "https://vault.azure.net"),
        (
            "https%3A%2F%2Fmanagement.azure.com%2F",
            "https://management.azure.com/",
        ),
        (
            "api://0a1b2c3d-0000-4000-8000-00000000abcd",
            "api://0a1b2c3d-0000-4000-8000-00000000abcd",
        ),
        (
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d",
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d",
        ),
        (
            "urn:ms-drs:enterpriseregistration.windows.net",
            "urn:ms-drs:enterpriseregistration.windows.net",
        ),
    ] {
        let query = token(&format!(
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource={written}"
        ));
        assert_eq!(query.resource, meant);
    }
}

#[test]
fn every_spelling_of_a_selector_is_understood() {
    let id = "0a1b2c3d-0000-4000-8000-00000000abcd";
    let arm = "/subscriptions/s/resourceGroups/r/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
    let of = |parameter: &str| {
        token(&format!(
            "/metadata/identity/oauth2/token?{QUERY}&{parameter}"
        ))
        .selector
    };
    assert_eq!(of("bypass_cache=true&msi-res-id=x&x=y"), Selector::Default);
    assert_eq!(
        of(&format!("client_id={}", id.to_uppercase())),
        Selector::ClientId(id.parse().unwrap())
    );
    for name in ["object_id", "principal_id"] {
        assert_eq!(
            of(&format!("{name}={id}")),
            Selector::ObjectId(id.parse().unwrap())
        );
    }
    for name in ["msi_res_id", "mi_res_id", "resource_id"] {
        let escaped = arm.replace('/', "%2F").to_uppercase();
        assert_eq!(
            of(&format!("{name}={escaped}")),
            Selector::ResourceId(arm.parse().unwrap()),
            "{name}"
        );
    }
    assert_eq!(of("client_id=payments"), Selector::Unmatchable);
}

#[test]
fn two_selectors_or_an_empty_one_are_refused() {
    for parameters in [
        "client_id=a&object_id=b",
        "client_id=a&client_id=a",
        "msi_res_id=a&mi_res_id=a",
        "client_id=",
        "client_id",
    ] {
        let target = format!("/metadata/identity/oauth2/token?{QUERY}&{parameters}");
        assert_eq!(kind(get(&target)), FaultKind::BadRequest, "{parameters}");
    }
}

#[test]
fn other_metadata_paths_come_out_plain() {
    let Ok(Ask::Metadata(query)) =
        get("/metadata/Instance/compute/?api-version=2021-02-01&format=text")
    else {
        panic!("a metadata query")
    };
    assert_eq!(query.path.as_str(), "/metadata/instance/compute");
    assert_eq!(
        (query.api_version.as_str(), query.format.as_deref()),
        ("2021-02-01", Some("text"))
    );
    assert_eq!(
        get("/metadata/identity/info?api-version=2018-02-01"),
        Ok(Ask::TenantInfo)
    );
}

proptest! {
    /// Whatever is sent: what may be forwarded is plain, and never an identity path, not even for
    /// a lenient second parser.
    #[test]
    fn nothing_forwardable_could_be_read_as_an_identity_path(path in "(/|//)?(metadata|METADATA|%6detadata)?(/|\\\\|%2f|%5c|;|\\.\\.|%2e|[a-zA-Z0-9%./\\\\;_-]){0,24}(identity|oauth2|token|instance)?") {
        let Ok(target) = path.parse::<hyper::Uri>() else { return Ok(()) };
        let mut parts = Request::new(()).into_parts().0;
        parts.uri = target;
        parts.headers.insert("metadata", "true".parse().unwrap());
        let with_version = format!("{}?api-version=2018-02-01", parts.uri.path());
        if let Ok(uri) = with_version.parse() { parts.uri = uri; }
        if let Ok(Ask::Metadata(query)) = receive(&parts) {
            let path = query.path.as_str();
            prop_assert!(path.starts_with("/metadata"));
            prop_assert!(path.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(&b)));
            prop_assert!(path.split('/').skip(1).all(|s| !s.is_empty() && !s.bytes().all(|b| b == b'.')));
            prop_assert_ne!(path.split('/').nth(2), Some("identity"));
        }
    }
}

#[test]
fn a_probe_needs_no_header_and_nothing_but_a_nonce() {
    let probe = |method, target| ask(method, target, &[]);
    let Ok(Ask::Probe(nonce)) = probe("GET", "/lanyard/v1/probe?nonce=abc-1") else {
        panic!("no probe");
    };
    assert_eq!(nonce.as_str(), "abc-1");
    assert_eq!(
        kind(probe("GET", "/lanyard/v1/probe?nonce=a%22")),
        FaultKind::BadRequest
    );
    assert_eq!(
        kind(probe("PUT", "/lanyard/v1/probe?nonce=a")),
        FaultKind::MethodNotAllowed
    );
    for other in ["/lanyard/v1/probe/", "/Lanyard/v1/probe", "/lanyard/v1"] {
        assert_eq!(
            kind(probe("GET", other)),
            FaultKind::PathNotFound,
            "{other}"
        );
    }
}

#[test]
fn a_challenge_is_a_json_object_and_once() {
    let path = format!("/metadata/identity/oauth2/token?{QUERY}");
    let query = token(&format!(
        "{path}&claims=%7B%22access_token%22%3A%7B%22nbf%22%3A%7B%22value%22%3A%221%22%7D%7D%7D"
    ));
    assert_eq!(
        query.claims.as_deref(),
        Some(r#"{"access_token":{"nbf":{"value":"1"}}}"#)
    );
    assert!(token(&format!("{path}&claims=")).claims.is_none());
    let long = format!("%7B%22a%22%3A%22{}%22%7D", "a".repeat(4096));
    for claims in [
        "claims=1",
        "claims=%5B%5D",
        "claims=%7B",
        "claims=%7B%7D&claims=%7B%7D",
        &format!("claims={long}"),
    ] {
        assert_eq!(
            kind(get(&format!("{path}&{claims}"))),
            FaultKind::BadRequest,
            "{claims}"
        );
    }
}

#[test]
fn bypass_cache_is_true_or_false() {
    let path = format!("/metadata/identity/oauth2/token?{QUERY}");
    for (text, wanted) in [
        ("bypass_cache=true", true),
        ("bypass_cache=True", true),
        ("bypass_cache=false", false),
        ("bypass_cache=", false),
        ("", false),
    ] {
        assert_eq!(
            token(&format!("{path}&{text}")).bypass_cache,
            wanted,
            "{text}"
        );
    }
    for text in ["bypass_cache=yes", "bypass_cache=true&bypass_cache=true"] {
        assert_eq!(
            kind(get(&format!("{path}&{text}"))),
            FaultKind::BadRequest,
            "{text}"
        );
    }
}

fn app_service(target: &str, headers: &[(&str, &str)]) -> AppServiceAsk {
    match ask("GET", target, headers) {
        Ok(Ask::AppService(ask)) => ask,
        other => panic!("{target}: {other:?}"),
    }
}

#[test]
fn each_dialect_of_app_service_has_its_own_header() {
    let new = "api-version=2019-08-01&resource=r";
    let old = "api-version=2017-09-01&resource=r";
    let (identity, secret) = (("X-Identity-Header", "one"), ("Secret", "two"));
    let shown = |query: &str, headers: &[(&str, &str)]| {
        app_service(&format!("/msi/token?{query}"), headers).secret
    };
    let digest = |text: &str| Some(SecretDigest::of(text.as_bytes()));
    assert_eq!(shown(new, &[identity, secret]), digest("one"));
    assert_eq!(shown(old, &[identity, secret]), digest("two"));
    assert_eq!(shown(new, &[secret]), None);
    assert_eq!(shown(old, &[identity]), None);
    assert_eq!(
        shown("", &[identity]),
        digest("one"),
        "whatever else is wrong"
    );
    assert_eq!(shown(new, &[identity, identity]), None);
    assert_eq!(shown(new, &[("X-Identity-Header", "")]), None);
}

#[test]
fn app_services_path_is_one_path_and_no_metadata() {
    let query = "api-version=2019-08-01&resource=r";
    for path in ["/msi/token", "/msi/token/", "//msi/token", "/MSI/Token"] {
        let ask = app_service(&format!("{path}?{query}"), &[]);
        assert_eq!(
            ask.query.unwrap().dialect,
            Dialect::AppService2019,
            "{path}"
        );
    }
    for path in ["/msi", "/msi/tokens", "/msi/token/x", "/metadata/msi/token"] {
        let found = get(&format!("{path}?{query}"));
        assert!(!matches!(found, Ok(Ask::AppService(_))), "{path}");
    }
    for path in ["/msi%2ftoken", "/msi//token", "/msi/../msi/token"] {
        assert_eq!(
            kind(get(&format!("{path}?{query}"))),
            FaultKind::BadRequest,
            "{path}"
        );
    }
}

#[test]
fn an_empty_clientid_is_none_and_only_there() {
    let query = |more: &str| {
        app_service(
            &format!("/msi/token?api-version=2017-09-01&resource=r{more}"),
            &[],
        )
        .query
    };
    assert_eq!(query("&clientid=").unwrap().selector, Selector::Default);
    let id = "11111111-1111-4111-8111-111111111111";
    let chosen = query(&format!("&clientid={id}")).unwrap().selector;
    assert_eq!(chosen, Selector::ClientId(id.parse().unwrap()));
    assert!(query(&format!("&clientid={id}&client_id={id}")).is_err());
    assert!(query("&client_id=").is_err());
    let imds = token(&format!(
        "/metadata/identity/oauth2/token?{QUERY}&clientid={id}"
    ));
    assert_eq!(
        imds.selector,
        Selector::Default,
        "IMDS has no such parameter"
    );
}
