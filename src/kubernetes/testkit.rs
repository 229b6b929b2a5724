//! An API server that has one answer, for tests of single calls.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::{Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::Value;

use super::Cluster;

/// The server; it remembers what it was asked.
#[derive(Clone)]
pub struct Canned {
    status: u16,
    body: String,
    asked: Arc<Mutex<Vec<(String, Body)>>>,
}

/// A server with this answer, and its client.
pub fn server(status: u16, body: &Value) -> (Canned, Cluster) {
    let server = Canned {
        status,
        body: body.to_string(),
        asked: Arc::default(),
    };
    let client = kube::Client::new(server.clone(), "default");
    (server, Cluster { client })
}

impl Canned {
    /// The first request that was not taken yet: method and path, and its body.
    pub async fn asked(&self) -> (String, Value) {
        let (path, body) = self.asked.lock().remove(0);
        let body = body.collect().await.unwrap().to_bytes();
        (path, serde_json::from_slice(&body).unwrap())
    }
}

impl tower_service::Service<Request<Body>> for Canned {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = format!("{} {}", request.method(), request.uri());
        self.asked.lock().push((path, request.into_body()));
        let mut answer = Response::new(Body::from(self.body.clone().into_bytes()));
        *answer.status_mut() = self.status.try_into().unwrap();
        ready(Ok(answer))
    }
}
