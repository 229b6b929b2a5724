//! Two controllers and an API server that hangs, is slow, or does what it was asked long after nobody
//! waits any more. Time is paused: it passes when everybody waits.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;

/// How the way to the API server is.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Until a request is there.
    to: Duration,
    /// Until its answer is back.
    from: Duration,
}

const AWAY: Duration = Duration::from_hours(1000);

#[derive(Default)]
struct Stored {
    lease: Option<Value>,
    version: u64,
}

/// One lease, as one client sees it.
#[derive(Clone, Default)]
struct Server {
    stored: Arc<Mutex<Stored>>,
    way: Arc<Mutex<Way>>,
}

impl Server {
    /// The same server, as another client sees it.
    fn for_another(&self) -> Self {
        Self {
            stored: self.stored.clone(),
            way: Arc::default(),
        }
    }

    fn answer(&self, method: &Method, body: &Value) -> (u16, Value) {
        let mut stored = self.stored.lock();
        let refusal = |code: u16| {
            (
                code,
                json!({"kind": "Status", "code": code, "message": "no", "reason": "", "status": "Failure"}),
            )
        };
        match (method, &stored.lease) {
            (&Method::GET, Some(lease)) => (200, lease.clone()),
            (&Method::GET | &Method::PUT, None) => refusal(404),
            (&Method::POST, Some(_)) => refusal(409),
            (_, before) => {
                let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
                if before
                    .as_ref()
                    .is_some_and(|before| version(before) != version(body))
                {
                    return refusal(409);
                }
                let mut lease = body.clone();
                stored.version += 1;
                lease["metadata"]["resourceVersion"] = json!(stored.version.to_string());
                stored.lease = Some(lease.clone());
                (200, lease)
            }
        }
    }

    fn spec(&self) -> Value {
        let stored = self.stored.lock();
        stored
            .lease
            .as_ref()
            .map_or(Value::Null, |lease| lease["spec"].clone())
    }
}

impl tower_service::Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (server, way) = (self.clone(), *self.way.lock());
        // Apart: what is on its way arrives, whether somebody waits for the answer or not.
        let work = tokio::spawn(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            sleep(way.to).await;
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (status, answer) = server.answer(&parts.method, &body);
            sleep(way.from).await;
            let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
            *response.status_mut() = status.try_into().unwrap();
            response
        });
        Box::pin(async move { Ok(work.await.unwrap()) })
    }
}

struct Candidate {
    guard: Guard,
    way: Arc<Mutex<Way>>,
    stop: CancellationToken,
    stopped: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

fn candidate(server: &Server, name: &str) -> Candidate {
    let server = server.for_another();
    let cluster = Cluster {
        client: kube::Client::new(server.clone(), "lanyard"),
    };
    let (guard, keeper) = lease(
        &cluster,
        Settings::new("lanyard", "lanyard-controller", name),
    );
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
    let ended = keeper.run(
        stop.clone().cancelled_owned(),
        stopped.clone().cancelled_owned(),
    );
    Candidate {
        guard,
        way: server.way,
        stop,
        stopped,
        ended: tokio::spawn(ended),
    }
}

const S: fn(u64) -> Duration = Duration::from_secs;

#[tokio::test(start_paused = true)]
async fn one_holds_it_for_as_long_as_it_lives() {
    let server = Server::default();
    let first = candidate(&server, "first");
    first.guard.held().await;
    let second = candidate(&server, "second");
    for _ in 0..100 {
        sleep(S(1)).await;
        assert!(first.guard.until().unwrap() - Instant::now() > S(11));
        assert_eq!(second.guard.until(), None);
    }
    let spec = server.spec();
    assert!(
        spec["holderIdentity"]
            .as_str()
            .unwrap()
            .starts_with("first_")
    );
    assert_eq!(spec["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_stops_before_another_one_begins() {
    let server = Server::default();
    let first = candidate(&server, "first");
    first.guard.held().await;
    let second = candidate(&server, "second");
    sleep(S(10)).await;
    let cut = Instant::now();
    *first.way.lock() = Way {
        to: AWAY,
        from: S(0),
    };
    first.guard.lost().await;
    let lost = cut.elapsed();
    assert!(lost > S(10) && lost <= S(15), "{lost:?}");
    assert_eq!(second.guard.until(), None);
    second.guard.held().await;
    assert!(cut.elapsed() < S(20), "failover took {:?}", cut.elapsed());
    assert_eq!(server.spec()["leaseTransitions"], 1);
    // It comes back: as a candidate.
    *first.way.lock() = Way::default();
    sleep(S(30)).await;
    assert!(first.guard.until().is_none() && second.guard.until().is_some());
    assert!(!first.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_given_back_when_nothing_is_under_way_any_more() {
    let server = Server::default();
    let first = candidate(&server, "first");
    first.guard.held().await;
    let second = candidate(&server, "second");
    sleep(S(5)).await;
    first.stop.cancel();
    first.guard.lost().await;
    sleep(S(4)).await;
    assert_eq!(second.guard.until(), None, "a write may be under way");
    let stopped = Instant::now();
    first.stopped.cancel();
    first.ended.await.unwrap();
    second.guard.held().await;
    assert!(stopped.elapsed() <= S(2), "{:?}", stopped.elapsed());
    assert_eq!(server.spec()["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn never_do_two_hold_it_however_the_way_to_the_server_is() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let server = Server::default();
        let all = [
            candidate(&server, "a"),
            candidate(&server, "b"),
            candidate(&server, "c"),
        ];
        let mut held = 0;
        for _ in 0..600 {
            for one in &all {
                if random.f64() < 0.03 {
                    let mut pause = || match random.u8(0..4) {
                        0 | 1 => Duration::ZERO,
                        2 => Duration::from_millis(random.u64(0..2500)),
                        _ => S(random.u64(0..60)),
                    };
                    *one.way.lock() = Way {
                        to: pause(),
                        from: pause(),
                    };
                }
            }
            if random.f64() < 0.005 {
                let lease = &mut server.stored.lock().lease;
                if let Some(lease) = lease {
                    lease["metadata"]["labels"] = json!({"edited": "yes"});
                }
            }
            sleep(Duration::from_millis(random.u64(1..500))).await;
            let holders = all.iter().filter(|one| one.guard.until().is_some()).count();
            assert!(holders <= 1, "seed {seed}");
            held += holders;
        }
        assert!(held > 0, "seed {seed}: nobody ever held it");
        for one in all {
            one.ended.abort();
        }
    }
}
