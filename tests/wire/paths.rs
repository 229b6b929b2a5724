//! Invariant 1, deny by default: no trick with a path reaches the real metadata service. The
//! simulator is as lenient with paths as that one, so a disguised path that were passed on would be
//! understood there; its journal shows that nothing is.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::testkit::{Stage, VAULT, request, stage, token_target};
use crate::world::{PAYMENTS, PAYMENTS_POD, STRANGER_POD};

/// One metadata path is open to the pods that ask here, so that there is a way through to abuse.
const OPEN: &str = "/metadata/instance/compute/location";

async fn stage_with_an_open_path() -> Stage {
    let stage = stage().await;
    stage.apply(&format!(
        "apiVersion: lanyard.dev/v1alpha1\nkind: AzureMetadataException\nmetadata: {{name: open}}\n\
         spec: {{namespace: shop, serviceAccounts: [payments, stranger], paths: [{OPEN}]}}"
    ));
    stage
}

/// Every one is the token path to a lenient server.
const DISGUISED: &[&str] = &[
    "/metadata\\identity\\oauth2\\token",
    "/metadata/identity\\oauth2/token",
    "\\metadata\\identity\\oauth2\\token",
    "/metadata%5cidentity%5Coauth2/token",
    "/metadata/identity%5coauth2%5ctoken",
    "/metadata/identity%2foauth2%2ftoken",
    "/metadata%2fidentity%2foauth2%2ftoken",
    "/%2fmetadata/identity/oauth2/token",
    "/metadata/identity/oauth2%2Ftoken",
    "/metadata/instance/../identity/oauth2/token",
    "/metadata/instance/%2e%2e/identity/oauth2/token",
    "/metadata/instance/.%2e/identity/oauth2/token",
    "/metadata/instance/..;/identity/oauth2/token",
    "/metadata/instance/%252e%252e/identity/oauth2/token",
    "/metadata/./identity/oauth2/token",
    "/metadata/%2e/identity/oauth2/token",
    "/../metadata/identity/oauth2/token",
    "/metadata//identity/oauth2/token",
    "/metadata/identity//oauth2/token",
    "///metadata/identity/oauth2/token",
    "/metadata/identity/oauth2/token//",
    "/metadata;a=b/identity/oauth2/token",
    "/metadata/identity;x/oauth2/token",
    "/metadata/identity/oauth2/token;",
    "/metadata/%2569dentity/oauth2/token",
    "/metadata/identity/oauth2/%2574oken",
    "/metadata/identity/oauth2/token%00",
    "/metadata/identity/oauth2/token%20",
    "/metadata/identity/oauth2/token%3f",
    "/metadata/identity/oauth2/token%23",
    "/metadata/identity/oauth2/tok%c4%b1n",
    "/metadata/identity/oauth2/t%ef%bd%8fken",
    "/metadata/%69%64entity%2foauth2/token",
    "/metadata/instance/compute/location/../../../identity/oauth2/token",
    "/metadata/instance/compute/location%2f..%2f..%2f..%2fidentity%2foauth2%2ftoken",
    "/metadata/instance/compute/location;/../../../identity/oauth2/token",
    "/metadata/instance/compute/location\\..\\..\\..\\identity\\oauth2\\token",
];

/// Identity paths that are plain and still never ours to pass on.
const OTHERS: &[&str] = &[
    "/metadata/identity",
    "/metadata/identity/",
    "/metadata/identity/oauth2",
    "/metadata/identity/oauth2/token/more",
    "/metadata/identity/oauth2/tokens",
    "/metadata/identity/getplatformmetadata",
    "/metadata/identity/issuecredential",
    "/metadata/identity/credential",
    "/Metadata/Identity/GetPlatformMetadata",
    "/machine/plugins",
    "/metadata.identity/oauth2/token",
    "/",
    "/metadatas/identity/oauth2/token",
];

#[tokio::test]
async fn every_path_trick_ends_in_an_error_from_us() {
    let stage = stage_with_an_open_path().await;
    let query = format!("api-version=2018-02-01&resource={VAULT}");
    for path in DISGUISED.iter().chain(OTHERS) {
        for pod in [PAYMENTS_POD, STRANGER_POD] {
            let reply = stage.get(pod, &format!("{path}?{query}")).await;
            assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
            reply.is_error_at_once(reply.status);
        }
    }
    assert!(stage.upstream().is_empty(), "{:?}", stage.upstream());
    stage.token(PAYMENTS_POD, "").await.is_token_of(PAYMENTS);
}

#[tokio::test]
async fn other_forms_of_the_request_target_end_in_an_error_from_us() {
    let stage = stage_with_an_open_path().await;
    let token = token_target("");
    for target in [
        format!("http://169.254.169.254{token}"),
        format!("HTTP://169.254.169.254{token}"),
        format!("http://127.0.0.1{token}"),
        format!("http://user@169.254.169.254{token}"),
        format!("https://169.254.169.254{token}"),
        format!("http://169.254.169.254{OPEN}?api-version=2021-02-01&format=text"),
        "*".to_owned(),
        "metadata/identity/oauth2/token".to_owned(),
        "169.254.169.254:80".to_owned(),
        "?api-version=2018-02-01".to_owned(),
    ] {
        let reply = stage.get(PAYMENTS_POD, &target).await;
        reply.is_error_at_once(400);
    }
    assert!(stage.upstream().is_empty(), "{:?}", stage.upstream());
}

#[tokio::test]
async fn the_simulator_would_have_understood_the_tricks() {
    // Else the tests above would prove nothing.
    let stage = stage().await;
    let query = format!(
        "api-version=2018-02-01&resource={VAULT}&client_id={}",
        PAYMENTS.client_id
    );
    let imds = stage.simulator.addresses().imds.unwrap();
    let mut understood = 0;
    for path in DISGUISED
        .iter()
        .filter(|path| path.starts_with('/'))
        .take(12)
    {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(imds).await.unwrap();
        let bytes = request(&format!("{path}?{query}"))
            .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        understood += usize::from(answer.starts_with("HTTP/1.1 200"));
    }
    assert!(understood >= 10, "{understood}");
}

/// A piece of a path: what leads somewhere, and what a second parser might read differently.
fn piece() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "metadata",
        "identity",
        "oauth2",
        "token",
        "instance",
        "compute",
        "location",
        "network",
        "userData",
        "info",
        "getplatformmetadata",
        "issuecredential",
        "versions",
        "Metadata",
        "IDENTITY",
        "scheduledevents",
        "attested",
        "document",
        "location%20",
        "toke%6e",
        "a.b",
    ]);
    let tricks = prop::sample::select(vec![
        "..", ".", "", "%2e%2e", "%2E.", "..;", ";", ";x=y", "%5c", "\\", "%2f", "%252f", "%00",
        "%", "%zz", "~", "@", ":80", "*", "%3f", "%23", "\u{e9}", "%c0%af", "%u002f", "...",
    ]);
    prop_oneof![
        6 => words.prop_map(str::to_owned),
        3 => tricks.prop_map(str::to_owned),
        1 => "[!-~]{0,6}".prop_map(|text| text.replace(['?', '#'], "")),
    ]
}

/// Paths around the ones that exist: known beginnings, then pieces with separators of all kinds.
fn path() -> impl Strategy<Value = String> {
    let start = prop::sample::select(vec![
        "",
        "/metadata",
        "/metadata/identity",
        "/metadata/identity/oauth2",
        "/metadata/instance",
        "/metadata/instance/compute",
        OPEN,
        "//metadata",
        "/metadata/identity/oauth2/token",
    ]);
    let separator =
        prop::sample::select(vec!["/", "/", "/", "/", "//", "\\", "%2f", "%5c", ";", ""]);
    let tail = prop::collection::vec((separator, piece()), 0..6);
    (start, tail).prop_map(|(start, tail)| {
        tail.iter()
            .fold(start.to_owned(), |path, (separator, piece)| {
                path + separator + piece
            })
    })
}

/// Separators that one parser or another takes for `/`, or for nothing.
const SEPARATORS: &[&str] = &[
    "//", "\\", "/./", "/.;/", "/x/../", "/%2e/", "%2f", "%2F", "%5c", "%252f", "%c0%af", "/;/",
    ";/", "%00/", "/%20",
];

/// A path that exists, with one slash disguised, one letter escaped, or something behind it.
fn disguise() -> impl Strategy<Value = String> {
    let routes = prop::sample::select(vec![
        OPEN,
        OPEN,
        "/metadata/identity/oauth2/token",
        "/metadata/identity/info",
        "/metadata/identity/getplatformmetadata",
        "/metadata/instance",
    ]);
    let separator = prop::sample::select(SEPARATORS);
    (routes, separator, any::<prop::sample::Index>(), 0..4).prop_map(
        |(route, separator, at, how)| {
            let slashes: Vec<_> = route.match_indices('/').map(|(at, _)| at).collect();
            match how {
                0 => format!("{route}{separator}"),
                1 => {
                    let (before, after) = route.split_at(at.index(route.len()));
                    let (letter, after) = after.split_at(1);
                    format!("{before}%{:02x}{after}", letter.as_bytes()[0])
                }
                _ => {
                    let at = slashes[at.index(slashes.len())];
                    format!("{}{separator}{}", &route[..at], &route[at + 1..])
                }
            }
        },
    )
}

fn target() -> impl Strategy<Value = String> {
    let query = prop::sample::select(vec![
        "?api-version=2018-02-01&resource=https://vault.azure.net",
        "?api-version=2021-02-01&format=text",
        "?api-version=2021-02-01",
        "?cred-api-version=2.0",
        "",
    ]);
    let origin = prop::sample::select(vec!["", "", "", "", "", "", "http://169.254.169.254"]);
    (origin, prop_oneof![path(), disguise()], query)
        .prop_map(|(origin, path, query)| format!("{origin}{path}{query}"))
}

/// What a request upstream may look like: a token by the pod's own client id, or the open path.
fn is_allowed_upstream(sent: &str) -> bool {
    let token = format!("&client_id={}", PAYMENTS.client_id);
    let is_token = sent
        .starts_with("/metadata/identity/oauth2/token?api-version=2018-02-01&resource=")
        && sent.ends_with(&token);
    let is_open = sent.strip_prefix(OPEN).is_some_and(|rest| {
        matches!(
            rest,
            "?api-version=2021-02-01"
                | "?api-version=2021-02-01&format=text"
                | "?api-version=2018-02-01"
        )
    });
    is_token || is_open
}

/// The spellings of a route that are no trick: any case, escaped letters, a doubled leading slash, a
/// trailing one. Whatever else gets through is a hole.
fn is_route(target: &str, route: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let mut plain = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).unwrap_or_default();
        match u8::from_str_radix(digits, 16).map(char::from) {
            Ok(letter) if letter.is_ascii_alphanumeric() => plain.push(letter),
            _ => return false,
        }
        rest = &rest[at + 3..];
    }
    plain.push_str(rest);
    let path = plain.to_ascii_lowercase();
    let path = path
        .strip_prefix('/')
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(&path);
    path.strip_suffix('/').unwrap_or(path) == route
}

#[test]
fn random_paths_never_get_through() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stage = runtime.block_on(stage_with_an_open_path());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let through = std::cell::Cell::new(0);
    let outcome = runner.run(&target(), |target| {
        stage.simulator.clear_journal();
        let reply = runtime.block_on(stage.get(PAYMENTS_POD, &target));
        let known = [
            "/metadata/identity/oauth2/token",
            "/metadata/identity/info",
            OPEN,
        ];
        let known = known.iter().any(|route| is_route(&target, route));
        through.set(through.get() + usize::from(known));
        prop_assert!(
            known || matches!(reply.status, 400 | 403 | 404),
            "{} answered {:?}",
            target,
            reply
        );
        prop_assert!(reply.took < crate::testkit::PATIENCE);
        for sent in stage.upstream() {
            prop_assert!(known, "{} was passed on as {}", target, sent.target);
            prop_assert!(
                is_allowed_upstream(&sent.target),
                "{} was passed on as {}",
                target,
                sent.target
            );
        }
        prop_assert!(!reply.body.contains("MUST-NEVER-LEAK") && !reply.body.contains("bm9kZS"));
        Ok(())
    });
    outcome.unwrap();
    // Else nothing was near enough to a way in to prove anything.
    assert!(through.get() > 10, "{}", through.get());
}
