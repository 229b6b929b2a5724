//! A stand-in for the API server, as far as credentials need one: Secrets by name, tokens of service
//! accounts, Events.
//!
//! In: Secrets that a test writes, and how calls are to fail. Out: what the agent asked, the Events it
//! told, tokens signed by a key that [`ApiServer::issuer`] publishes. A list of all Secrets is refused:
//! the chart's roles do not give it.

mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use lanyard::kubernetes::{self, Cluster};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::issuer::Signer;
pub use shapes::Event;
use shapes::{Answer, Data, line, object, plain, status, value};

/// What calls of one sort come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Works,
    /// This status.
    Refuses(u16),
    /// An answer after so many milliseconds.
    Slow(u64),
}

/// Sorts of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// GET and watch of Secrets.
    Secrets,
    /// `TokenRequest`.
    Tokens,
}

#[derive(Default)]
struct State {
    version: u64,
    secrets: BTreeMap<(String, String), (u64, Data)>,
    /// Namespace, Secret's name, version, line: a watch that begins behind a version hears the rest.
    told: Vec<((String, String), u64, Bytes)>,
    watches: Vec<((String, String), mpsc::UnboundedSender<Bytes>)>,
    moods: BTreeMap<Call, Mood>,
    gone_pods: BTreeSet<String>,
    requested: Vec<Value>,
    tokens: Vec<String>,
    events: Vec<Value>,
    asked: Vec<String>,
}

/// The server.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    signer: Arc<Signer>,
    address: SocketAddr,
}

impl ApiServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            state: Arc::default(),
            signer: Arc::new(Signer::generate()),
            address: listener.local_addr().unwrap(),
        };
        server.state.lock().version = 100;
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        server
    }

    /// A connection as the agent makes it.
    pub async fn cluster(&self) -> Cluster {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: fake\n\
             clusters: [{{name: fake, cluster: {{server: 'http://{}'}}}}]\n\
             users: [{{name: fake, user: {{token: agents-own}}}}]\n\
             contexts: [{{name: fake, context: {{cluster: fake, user: fake}}}}]\n",
            self.address
        );
        std::fs::write(file.path(), config).unwrap();
        kubernetes::connect(Some(file.path())).await.unwrap()
    }

    /// `iss` of the service accounts' tokens, where their keys are published, too.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates or replaces a Secret.
    pub fn secret(&self, namespace: &str, name: &str, data: &[(&str, &[u8])]) {
        let encoded = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value)));
        let encoded: Data = encoded.collect();
        let key = (namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let known = state
            .secrets
            .insert(key.clone(), (version, encoded.clone()));
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        let object = object(&key, version, &encoded);
        state.tell(key, version, kind, &object);
    }

    /// Deletes a Secret.
    pub fn delete_secret(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let (_, data) = state.secrets.remove(&key).unwrap();
        let object = object(&key, version, &data);
        state.tell(key, version, "DELETED", &object);
    }

    /// What calls of one sort come to from now on. Watches that are open end.
    pub fn mood(&self, call: Call, mood: Mood) {
        let mut state = self.state.lock();
        state.moods.insert(call, mood);
        state.watches.clear();
    }

    /// A pod is no more: tokens bound to it are not given.
    pub fn pod_is_gone(&self, name: &str) {
        self.state.lock().gone_pods.insert(name.to_owned());
    }

    /// The Events so far: reason, and what it is about as `Kind/namespace/name`, and the note.
    pub fn events(&self) -> Vec<Event> {
        self.state.lock().events.iter().map(Event::of).collect()
    }

    /// Everything that was written here, as text.
    pub fn written(&self) -> String {
        let state = self.state.lock();
        json!([state.events, state.asked]).to_string()
    }

    /// The bodies of the `TokenRequest`s so far.
    pub fn requested(&self) -> Vec<Value> {
        self.state.lock().requested.clone()
    }

    /// The service accounts' tokens that were given.
    pub fn tokens(&self) -> Vec<String> {
        self.state.lock().tokens.clone()
    }

    /// How many calls had this in their method, path and query.
    pub fn asked(&self, part: &str) -> usize {
        let state = self.state.lock();
        let calls = state.asked.iter().filter(|call| call.contains(part));
        calls.count()
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let call = format!("{method} {path}?{query}");
        self.state.lock().asked.push(call);
        let body = request.into_body().collect().await;
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts[..] {
            [".well-known", "openid-configuration"] => {
                let issuer = self.issuer();
                let keys = format!("{issuer}/openid/v1/jwks");
                plain(200, &json!({"issuer": issuer, "jwks_uri": keys}))
            }
            ["openid", "v1", "jwks"] => plain(200, &self.signer.jwks()),
            [
                "api",
                "v1",
                "namespaces",
                namespace,
                "secrets",
                ref name @ ..,
            ] => {
                if let Some(refused) = self.refusal(Call::Secrets).await {
                    return refused;
                }
                self.secrets(namespace, name.first().copied(), query)
            }
            [
                "api",
                "v1",
                "namespaces",
                namespace,
                "serviceaccounts",
                account,
                "token",
            ] => {
                if let Some(refused) = self.refusal(Call::Tokens).await {
                    return refused;
                }
                self.token(namespace, account, &body)
            }
            ["apis", "events.k8s.io", "v1", "namespaces", _, "events", ..] => {
                self.event(&method, &body)
            }
            _ => status(404, "not found"),
        }
    }

    async fn refusal(&self, call: Call) -> Option<Answer> {
        let mood = self.state.lock().moods.get(&call).copied();
        match mood.unwrap_or_default() {
            Mood::Works => None,
            Mood::Refuses(code) => Some(status(code, "told to")),
            Mood::Slow(milliseconds) => {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                None
            }
        }
    }

    fn secrets(&self, namespace: &str, name: Option<&str>, query: &str) -> Answer {
        let selected = value(query, "fieldSelector");
        let selected = selected
            .as_deref()
            .and_then(|field| field.strip_prefix("metadata.name%3D"));
        let Some(name) = name.or(selected) else {
            return status(403, "secrets is forbidden: only by name");
        };
        let key = (namespace.to_owned(), name.to_owned());
        if matches!(value(query, "watch").as_deref(), Some("true" | "1")) {
            return self.watch(key, query);
        }
        let state = self.state.lock();
        match state.secrets.get(&key) {
            Some((version, data)) => plain(200, &object(&key, *version, data)),
            None => status(404, &format!("secrets \"{name}\" not found")),
        }
    }

    fn watch(&self, key: (String, String), query: &str) -> Answer {
        let (lines, said) = mpsc::unbounded_channel();
        let from = value(query, "resourceVersion").and_then(|from| from.parse().ok());
        let mut state = self.state.lock();
        match from {
            Some(from) if from > 0 => {
                let missed = state.told.iter();
                for (_, _, line) in missed.filter(|(of, version, _)| *of == key && *version > from)
                {
                    let _ = lines.send(line.clone());
                }
            }
            // From "now": begins with what is there.
            _ => {
                if let Some((version, data)) = state.secrets.get(&key) {
                    let _ = lines.send(line("ADDED", &object(&key, *version, data)));
                }
            }
        }
        state.watches.push((key, lines));
        drop(state);
        let frames = stream::unfold(said, |mut said| async move {
            let line: Bytes = said.recv().await?;
            Some((Ok(Frame::data(line)), said))
        });
        Response::new(BodyExt::boxed(StreamBody::new(Box::pin(frames))))
    }

    fn token(&self, namespace: &str, account: &str, body: &[u8]) -> Answer {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let bound = &asked["spec"]["boundObjectRef"];
        let pod = bound["name"].as_str().unwrap_or_default().to_owned();
        let mut state = self.state.lock();
        state.requested.push(asked.clone());
        if state.gone_pods.contains(&pod) {
            return status(404, &format!("pods \"{pod}\" not found"));
        }
        let token = self.signer.token(
            &self.issuer(),
            &format!("system:serviceaccount:{namespace}:{account}"),
            &asked["spec"]["audiences"],
            asked["spec"]["expirationSeconds"].as_i64().unwrap_or(3600),
            (&pod, bound["uid"].as_str().unwrap_or_default()),
        );
        state.tokens.push(token.0.clone());
        let mut answer = asked;
        answer["status"] = json!({"token": token.0, "expirationTimestamp": token.1});
        plain(201, &answer)
    }

    fn event(&self, method: &Method, body: &[u8]) -> Answer {
        let event: Value = serde_json::from_slice(body).unwrap_or_default();
        if method == Method::POST {
            self.state.lock().events.push(event.clone());
        }
        plain(201, &event)
    }
}

impl State {
    fn tell(&mut self, key: (String, String), version: u64, kind: &str, object: &Value) {
        let line = line(kind, object);
        for (watched, lines) in &self.watches {
            if *watched == key {
                let _ = lines.send(line.clone());
            }
        }
        self.told.push((key, version, line));
    }
}
