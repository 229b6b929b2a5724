//! `/host/token`: what the Secrets Store CSI driver's provider sends and gets, and what becomes of everybody else, over
//! a reviewer in memory. The same on a real API server: tests/apiserver.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use lanyard::agent::config::Enforcement;
use lanyard::agent::host_token::{Door, HostToken, ReviewMetrics, Reviewer, Reviews};
use lanyard::agent::obtain::Sources;
use lanyard::kubernetes::{Failure, Reviewed, TokenReview};
use lanyard::model::ids::ObjectName;
use lanyard::serve::{ConnMetrics, Limits, local, serve};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::time::timeout;

use crate::secrecy::{capture, captured};
use crate::testkit::{Options, PATIENCE, Reply, Stage, VAULT, stage, stage_with};
use crate::world::{self, PAYMENTS, PAYMENTS_POD, REPORTS, UNKNOWN_POD};

const NODE: &str = "node-1";
const NODE_KEY: &str = "authentication.kubernetes.io/node-name";
/// The provider's bearer token, and one of somebody who may nothing.
const PROVIDER: &str = "ey.provider-s-own-token.c2ln";
const OTHER: &str = "ey.somebody-else-s-token.c2ln";
const ABROAD: &str = "ey.token-of-another-node.c2ln";
const FROM: &str = "127.0.0.1";

/// An API server's words about tokens.
#[derive(Default)]
struct Words {
    users: HashMap<String, Reviewed>,
    /// User and pod.
    allowed: HashSet<(String, String)>,
}

#[derive(Clone, Default)]
struct Fake {
    words: Arc<Mutex<Words>>,
    away: Arc<AtomicBool>,
    asked_who: Arc<AtomicUsize>,
    asked_may: Arc<AtomicUsize>,
}

impl Fake {
    fn user(name: &str, node: &str) -> Reviewed {
        Reviewed {
            username: format!("system:serviceaccount:kube-system:{name}"),
            extra: BTreeMap::from([(NODE_KEY.to_owned(), vec![node.to_owned()])]),
            ..Reviewed::default()
        }
    }

    fn new() -> Self {
        let fake = Self::default();
        let mut words = fake.words.lock();
        for (token, name, node) in [
            (PROVIDER, "provider", NODE),
            (OTHER, "other", NODE),
            (ABROAD, "provider", "node-2"),
        ] {
            words.users.insert(token.to_owned(), Self::user(name, node));
        }
        drop(words);
        for pod in [
            "shop/payments",
            "shop/desk",
            "shop/stranger",
            "shop/gone",
            "shop/none",
        ] {
            fake.allow(pod);
        }
        fake
    }

    fn allow(&self, pod: &str) {
        let who = Self::user("provider", NODE).username;
        self.words.lock().allowed.insert((who, pod.to_owned()));
    }

    async fn ready(&self) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.away.load(SeqCst) {
            return Err(Failure::Unreachable("connection refused".to_owned()));
        }
        Ok(())
    }
}

impl Reviewer for Fake {
    async fn who(&self, token: &SecretString, _: Duration) -> Result<TokenReview, Failure> {
        self.asked_who.fetch_add(1, SeqCst);
        self.ready().await?;
        let found = self.words.lock().users.get(token.expose_secret()).cloned();
        let unproven = || TokenReview::Unproven("invalid bearer token".to_owned());
        Ok(found.map_or_else(unproven, TokenReview::Proven))
    }

    async fn may(&self, who: &Reviewed, pod: &ObjectName, _: Duration) -> Result<bool, Failure> {
        self.asked_may.fetch_add(1, SeqCst);
        self.ready().await?;
        let asked = (who.username.clone(), pod.to_string());
        Ok(self.words.lock().allowed.contains(&asked))
    }
}

struct Doors {
    stage: Stage,
    fake: Fake,
    loopback: SocketAddr,
    folder: tempfile::TempDir,
}

async fn doors() -> Doors {
    doors_of(stage().await).await
}

async fn doors_of(stage: Stage) -> Doors {
    let fake = Fake::new();
    let metrics = ReviewMetrics::register(&stage.registry).unwrap();
    let answerer = |door| -> Arc<HostToken<Sources, Fake>> {
        let reviews = Reviews::new(fake.clone(), metrics.clone());
        Arc::new(HostToken::new(
            door,
            stage.pipeline.clone(),
            reviews,
            NODE.to_owned(),
        ))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let loopback = listener.local_addr().unwrap();
    let conn = ConnMetrics::new(&stage.registry, "host_token").unwrap();
    let serving = serve(
        listener,
        Limits::default(),
        answerer(Door::Loopback),
        stage.drain.clone(),
        conn,
    );
    tokio::spawn(serving);
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    local::own_folder(&own, "token.sock").unwrap();
    let socket = local::bind(&own.join("token.sock")).unwrap();
    tokio::spawn(local::serve(
        socket,
        8,
        answerer(Door::Socket),
        stage.drain.clone(),
    ));
    Doors {
        stage,
        fake,
        loopback,
        folder,
    }
}

fn request(pod: &str, bearer: Option<&str>, more: &str) -> String {
    let (namespace, name) = pod.split_once('/').unwrap();
    let bearer = bearer.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    // As the provider's own code writes it, but for the bearer token.
    format!(
        "GET /host/token/?resource={VAULT}{more} HTTP/1.1\r\nHost: localhost:2579\r\nUser-Agent: Go-http-client/1.1\r\n\
         Podname: {name}\r\nPodns: {namespace}\r\n{bearer}Accept-Encoding: gzip\r\n\r\n"
    )
}

impl Doors {
    async fn send(&self, bytes: String) -> Reply {
        let mut one = crate::testkit::Conversation::open(FROM, self.loopback).await;
        one.send(bytes).await;
        one.reply().await
    }

    async fn ask(&self, pod: &str, bearer: &str) -> Reply {
        self.send(request(pod, Some(bearer), "")).await
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("own/token.sock")
    }

    fn reviews(&self) -> (usize, usize) {
        (
            self.fake.asked_who.load(SeqCst),
            self.fake.asked_may.load(SeqCst),
        )
    }
}

#[track_caller]
fn is_token_of(reply: &Reply, identity: world::Identity) {
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["clientid"], identity.client_id);
    let token = body["token"].as_object().unwrap();
    let mut keys: Vec<_> = token.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "access_token",
            "expires_in",
            "expires_on",
            "not_before",
            "refresh_token",
            "resource",
            "token_type"
        ]
    );
    assert!(token.values().all(Value::is_string), "{body}");
    assert_eq!(
        (&token["resource"], &token["refresh_token"]),
        (&VAULT.into(), &"".into())
    );
    let jwt = token["access_token"].as_str().unwrap();
    assert_eq!(crate::testkit::claims_of(jwt)["appid"], identity.client_id);
}

#[tokio::test]
async fn the_provider_gets_what_the_pod_itself_would_get() {
    let doors = doors().await;
    is_token_of(&doors.ask("shop/payments", PROVIDER).await, PAYMENTS);
    // The pod that is named decides, and its bindings: several identities, none, one that it has not.
    let ambiguous = doors.ask("shop/desk", PROVIDER).await;
    ambiguous.is_error(400);
    let named = format!("&client_id={}", REPORTS.client_id);
    let chosen = doors
        .send(request("shop/desk", Some(PROVIDER), &named))
        .await;
    is_token_of(&chosen, REPORTS);
    doors
        .ask("shop/stranger", PROVIDER)
        .await
        .is_identity_not_found();
    let foreign = doors
        .send(request("shop/payments", Some(PROVIDER), &named))
        .await;
    foreign.is_identity_not_found();
    let scraped = doors.stage.scrape();
    for series in [
        "lanyard_tokens_served_by_dialect_total{dialect=\"host_token\"} 2",
        "lanyard_host_token_reviews_total{outcome=\"allowed\",review=\"token\"} 1",
        "lanyard_host_token_reviews_total{outcome=\"remembered\",review=\"token\"} 4",
        "lanyard_host_token_reviews_total{outcome=\"allowed\",review=\"access\"} 3",
    ] {
        assert!(scraped.contains(series), "{series}");
    }
}

#[tokio::test]
async fn whoever_proves_nothing_or_may_not_gets_nothing_and_learns_nothing() {
    let doors = doors().await;
    let without = doors.send(request("shop/payments", None, "")).await;
    without.is_error_at_once(401);
    assert_eq!(without.header("www-authenticate"), Some("Bearer"));
    assert_eq!(doors.reviews(), (0, 0), "there was nothing to ask about");
    doors
        .ask("shop/payments", "ey.invented.c2ln")
        .await
        .is_error_at_once(401);
    assert_eq!(doors.reviews(), (1, 0));
    // Somebody, who may nothing: the same words, whether there is such a pod or not.
    let real = doors.ask("shop/payments", OTHER).await;
    let invented = doors.ask("shop/none", OTHER).await;
    real.is_error_at_once(403);
    assert_eq!((real.status, real.body), (invented.status, invented.body));
    doors
        .ask("shop/payments", ABROAD)
        .await
        .is_error_at_once(403);
    // Who may for some pods may for those.
    doors
        .ask("bank/teller", PROVIDER)
        .await
        .is_error_at_once(403);
    doors.ask("shop/none", PROVIDER).await.is_error(404);
    let malformed = doors
        .send(request("shop/payments", Some(PROVIDER), "&client_id="))
        .await;
    malformed.is_error_at_once(400);
    assert!(doors.stage.upstream().is_empty(), "IMDS was asked");
    let scraped = doors.stage.scrape();
    for (kind, count) in [
        ("host_token_unproven", 2),
        ("host_token_forbidden", 4),
        ("pod_not_here", 1),
    ] {
        let series = format!("lanyard_requests_failed_total{{kind=\"{kind}\"}} {count}");
        assert!(scraped.contains(&series), "{series}");
    }
}

#[tokio::test]
async fn a_pod_that_ended_or_is_not_known_is_not_here() {
    let doors = doors().await;
    doors.stage.apply(&world::pod_in_phase(
        "shop",
        "gone",
        "127.0.0.30",
        "Succeeded",
    ));
    doors.ask("shop/gone", PROVIDER).await.is_error(404);
    // One that comes while it is asked for is waited for.
    let ask = request("shop/none", Some(PROVIDER), "");
    let mut asking = crate::testkit::Conversation::open(FROM, doors.loopback).await;
    asking.send(ask).await;
    doors.stage.until_waiting().await;
    doors.stage.apply(&world::pod("shop", "none", UNKNOWN_POD));
    asking.reply().await.is_identity_not_found();
}

#[tokio::test]
async fn without_the_api_server_nobody_is_let_in() {
    let doors = doors().await;
    is_token_of(&doors.ask("shop/payments", PROVIDER).await, PAYMENTS);
    doors.fake.away.store(true, SeqCst);
    // Known a moment ago, for that pod only.
    is_token_of(&doors.ask("shop/payments", PROVIDER).await, PAYMENTS);
    doors.ask("shop/desk", PROVIDER).await.is_error_at_once(503);
    doors
        .ask("shop/payments", OTHER)
        .await
        .is_error_at_once(503);
    // Pods go on.
    doors
        .stage
        .token(PAYMENTS_POD, "")
        .await
        .is_token_of(PAYMENTS);
    doors.fake.away.store(false, SeqCst);
    doors.ask("shop/desk", PROVIDER).await.is_error(400);
}

#[tokio::test]
async fn many_who_ask_at_once_cause_one_review_of_their_token() {
    let doors = doors().await;
    let asks = (0..40).map(|_| doors.ask("shop/payments", PROVIDER));
    for reply in futures_util::future::join_all(asks).await {
        is_token_of(&reply, PAYMENTS);
    }
    assert_eq!(doors.reviews(), (1, 1));
}

#[tokio::test]
async fn whoever_invents_tokens_keeps_nobody_out() {
    let doors = doors().await;
    is_token_of(&doors.ask("shop/payments", PROVIDER).await, PAYMENTS);
    let tokens: Vec<_> = (0..100).map(|n| format!("ey.invented-{n}.c2ln")).collect();
    let asks = tokens.iter().map(|token| doors.ask("shop/payments", token));
    let flood = futures_util::future::join_all(asks).await;
    let limited = flood.iter().filter(|reply| reply.status == 429).count();
    let unproven = flood.iter().filter(|reply| reply.status == 401).count();
    assert_eq!(limited + unproven, flood.len());
    assert!(limited >= 70, "{limited}");
    // Another pod: what is remembered does not help.
    doors
        .ask("shop/stranger", PROVIDER)
        .await
        .is_identity_not_found();
    // And not at all at the other door.
    let reply = at_socket(
        &doors.socket(),
        request("shop/payments", Some(PROVIDER), ""),
    )
    .await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

async fn at_socket(path: &Path, request: String) -> String {
    let asking = async {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(PATIENCE, asking).await.expect("an answer in time")
}

#[tokio::test]
async fn the_socket_is_roots_and_says_the_same() {
    let doors = doors().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let path = doors.socket();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    capture();
    for (pod, bearer, status) in [
        ("shop/payments", Some(PROVIDER), 200),
        ("shop/payments", None, 401),
        ("shop/payments", Some(OTHER), 403),
        ("shop/none", Some(PROVIDER), 404),
    ] {
        let answer = at_socket(&path, request(pod, bearer, "")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let log = captured();
    assert!(log.contains("the host's socket, uid "), "{log}");
}

/// Invariant 4, and who is told of what.
#[tokio::test]
async fn the_audit_says_who_asked_on_whose_behalf_and_never_a_token() {
    let doors = doors().await;
    capture();
    let given = doors.ask("shop/payments", PROVIDER).await;
    let given = given.json()["token"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    doors
        .ask("shop/stranger", PROVIDER)
        .await
        .is_identity_not_found();
    doors.ask("shop/payments", OTHER).await.is_error(403);
    doors
        .ask("shop/payments", "ey.invented-by-somebody.c2ln")
        .await
        .is_error(401);
    let log = captured();
    let line = |words: &[&str]| {
        let mut lines = log.lines().filter(|line| line.contains("token decision"));
        assert!(
            lines.any(|line| words.iter().all(|word| line.contains(word))),
            "{words:?}: {log}"
        );
    };
    let by = "asked_by=\"system:serviceaccount:kube-system:provider\"";
    line(&["pod=shop/payments", by, "granted", "host_token"]);
    line(&["pod=shop/stranger", by, "identity_not_found"]);
    line(&[
        "the node's loopback",
        "kube-system:other",
        "host_token_forbidden",
        "on behalf of shop/payments",
    ]);
    line(&[
        "the node's loopback",
        "host_token_unproven",
        "invalid bearer token",
    ]);
    let all = log + &doors.stage.scrape();
    let pieces = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    for piece in [
        pieces(&given),
        pieces(PROVIDER),
        pieces(OTHER),
        pieces("ey.invented-by-somebody.c2ln"),
    ]
    .concat()
    {
        assert!(piece.len() < 8 || !all.contains(&piece), "{piece}");
    }
}

#[tokio::test]
async fn an_agent_that_observes_passes_nothing_of_it_on() {
    let options = Options {
        enforcement: Enforcement::Observe,
        ..Options::default()
    };
    let doors = doors_of(stage_with(options).await).await;
    doors
        .ask("shop/stranger", PROVIDER)
        .await
        .is_identity_not_found();
    doors.ask("shop/payments", OTHER).await.is_error(403);
    assert!(doors.stage.upstream().is_empty());
}

/// The pods' listener knows nothing of it.
#[tokio::test]
async fn pods_do_not_find_it() {
    let doors = doors().await;
    let reply = doors
        .stage
        .send(PAYMENTS_POD, request("shop/payments", Some(PROVIDER), ""))
        .await;
    reply.is_error_at_once(404);
    let imds = doors
        .send(crate::testkit::request(&crate::testkit::token_target("")))
        .await;
    imds.is_error_at_once(404);
    assert_eq!(doors.reviews(), (0, 0));
}
