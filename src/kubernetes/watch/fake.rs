//! An API server for tests: lists, watches and answers on a loopback port, and fails as it is told.
//! It knows of objects only what lists and watches need: a path, a name, a version.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What calls of one sort come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Works,
    /// This status.
    Refuses(u16),
    /// No answer, ever; a watch begins, and says nothing.
    Hangs,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    /// Of a collection, perhaps of one name in it.
    watches: Vec<(String, Option<String>, mpsc::UnboundedSender<Bytes>)>,
    /// What was told: a watch that begins behind a version hears what came after it.
    told: Vec<(String, String, u64, Bytes)>,
    lists: HashMap<String, Mood>,
    watching: HashMap<String, Mood>,
    ready: Mood,
    asked: Vec<String>,
}

/// The server.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    pub address: SocketAddr,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            state: Arc::default(),
            address: listener.local_addr().unwrap(),
        };
        fake.state.lock().version = 100;
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = serving.clone();
                let service = service_fn(move |request| {
                    let fake = fake.clone();
                    async move { Ok::<_, Infallible>(fake.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        fake
    }

    pub fn cluster(&self) -> crate::kubernetes::Cluster {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        crate::kubernetes::Cluster {
            client: kube::Client::try_from(config).unwrap(),
        }
    }

    /// Creates or replaces an object of a collection, and tells whoever watches.
    pub fn put(&self, plural: &str, object: Value) -> u64 {
        let version = self.put_silently(plural, object);
        let text = version.to_string();
        let state = self.state.lock();
        let changed = state.objects.iter().find(|(key, object)| {
            key.0 == plural && object["metadata"]["resourceVersion"].as_str() == Some(&text)
        });
        let object = changed.unwrap().1.clone();
        drop(state);
        self.tell(plural, "MODIFIED", &object);
        version
    }

    /// The same without a word to whoever watches.
    pub fn put_silently(&self, plural: &str, mut object: Value) -> u64 {
        let mut state = self.state.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        state.objects.insert((plural.to_owned(), name), object);
        state.version
    }

    /// Deletes an object, and tells whoever watches.
    pub fn delete(&self, plural: &str, name: &str) {
        let gone = self.delete_silently(plural, name);
        self.tell(plural, "DELETED", &gone);
    }

    /// The same without a word.
    pub fn delete_silently(&self, plural: &str, name: &str) -> Value {
        let mut state = self.state.lock();
        state.version += 1;
        let key = (plural.to_owned(), name.to_owned());
        let mut gone = state.objects.remove(&key).unwrap();
        gone["metadata"]["resourceVersion"] = json!(state.version.to_string());
        gone
    }

    /// Sends a line to whoever watches.
    pub fn tell(&self, plural: &str, kind: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": object})));
        let mut state = self.state.lock();
        let version = object["metadata"]["resourceVersion"].as_str();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if let Some(version) = version.and_then(|version| version.parse().ok()) {
            state.version = state.version.max(version);
            let told = (plural.to_owned(), name.to_owned(), version, line.clone());
            state.told.push(told);
        }
        for (watched, only, lines) in &state.watches {
            if watched == plural
                && only
                    .as_ref()
                    .is_none_or(|only| only == name || name.is_empty())
                && state.watching.get(plural).copied().unwrap_or_default() == Mood::Works
            {
                let _ = lines.send(line.clone());
            }
        }
    }

    /// Ends all watches as the server does after their time.
    pub fn end_watches(&self) {
        self.state.lock().watches.clear();
    }

    pub fn lists(&self, plural: &str, mood: Mood) {
        self.state.lock().lists.insert(plural.to_owned(), mood);
    }

    pub fn watches(&self, plural: &str, mood: Mood) {
        self.state.lock().watching.insert(plural.to_owned(), mood);
    }

    pub fn ready(&self, mood: Mood) {
        self.state.lock().ready = mood;
    }

    /// How many calls had this in their path and query.
    pub fn asked(&self, part: &str) -> usize {
        let state = self.state.lock();
        state
            .asked
            .iter()
            .filter(|call| call.contains(part))
            .count()
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let mut plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        let secret = path
            .rsplit_once("/secrets/")
            .map(|(_, name)| name.to_owned());
        if secret.is_some() {
            "secrets".clone_into(&mut plural);
        }
        let mood = {
            let mut state = self.state.lock();
            state.asked.push(format!("{path}?{query}"));
            let moods = if query.contains("watch=true") {
                &state.watching
            } else {
                &state.lists
            };
            if plural == "readyz" {
                state.ready
            } else {
                moods.get(&plural).copied().unwrap_or_default()
            }
        };
        match mood {
            Mood::Refuses(status) => plain(
                status,
                &json!({"kind": "Status", "code": status, "message": "told to"}),
            ),
            _ if query.contains("watch=true") => self.watch(plural, &query),
            Mood::Hangs => {
                tokio::time::sleep(Duration::from_hours(1)).await;
                plain(500, &json!({}))
            }
            Mood::Works if plural == "readyz" => plain(200, &json!("ok")),
            Mood::Works if path.contains("/nodes/") => self.one("nodes", &plural),
            Mood::Works if secret.is_some() => self.one("secrets", &secret.unwrap()),
            Mood::Works => self.list(&plural, &query),
        }
    }

    fn one(&self, plural: &str, name: &str) -> Answer {
        let key = (plural.to_owned(), name.to_owned());
        match self.state.lock().objects.get(&key) {
            Some(object) => plain(200, object),
            None => plain(
                404,
                &json!({"kind": "Status", "code": 404, "message": "not found"}),
            ),
        }
    }

    fn watch(&self, plural: String, query: &str) -> Answer {
        let (lines, said) = mpsc::unbounded_channel();
        let only = value(query, "fieldSelector");
        let only = only.and_then(|only| only.strip_prefix("metadata.name%3D").map(str::to_owned));
        let is_told =
            |of: &str, name: &str| of == plural && only.as_ref().is_none_or(|only| only == name);
        let from = value(query, "resourceVersion").unwrap();
        let mut state = self.state.lock();
        if from.is_empty() {
            let there = state.objects.iter();
            for (_, object) in there.filter(|((of, name), _)| is_told(of, name)) {
                let line = format!("{}\n", json!({"type": "ADDED", "object": object}));
                lines.send(line.into()).unwrap();
            }
        } else {
            let from: u64 = from.parse().unwrap();
            let missed = state.told.iter();
            for (_, _, _, line) in
                missed.filter(|(of, name, version, _)| is_told(of, name) && *version > from)
            {
                lines.send(line.clone()).unwrap();
            }
        }
        state.watches.push((plural, only, lines));
        drop(state);
        let frames = stream::unfold(said, |mut said| async move {
            let line: Bytes = said.recv().await?;
            Some((Ok(Frame::data(line)), said))
        });
        Response::new(BodyExt::boxed(StreamBody::new(Box::pin(frames))))
    }

    fn list(&self, plural: &str, query: &str) -> Answer {
        let ip = query
            .split_once("status.podIP%3D")
            .map(|(_, rest)| rest.split('&').next().unwrap());
        let state = self.state.lock();
        let all = state.objects.iter().filter(|((of, _), _)| of == plural);
        let all = all.map(|(_, object)| object);
        let all: Vec<_> = all
            .filter(|pod| ip.is_none_or(|ip| pod["status"]["podIP"] == ip))
            .collect();
        let from: usize = value(query, "continue")
            .and_then(|from| from.parse().ok())
            .unwrap_or_default();
        let limit: usize = value(query, "limit").unwrap().parse().unwrap();
        let to = all.len().min(from + limit);
        let next = if to < all.len() {
            to.to_string()
        } else {
            String::new()
        };
        let metadata = json!({"resourceVersion": state.version.to_string(), "continue": next});
        plain(200, &json!({"metadata": metadata, "items": &all[from..to]}))
    }
}

/// A parameter of a query.
fn value(query: &str, key: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
}

fn plain(status: u16, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status.try_into().unwrap();
    answer
}
