//! The pages of the health socket: the admin pages, and `/observed`. That one names service accounts
//! and what they ask for, so it is for who is in the container only, never for a network.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::table::Report;
use crate::agent::respond;
use crate::serve::Answer;

/// Answers at the health socket.
#[derive(Clone)]
pub struct Local<A> {
    /// All other pages.
    pub pages: A,
    /// What was observed.
    pub observed: Arc<dyn Fn() -> Report + Send + Sync>,
}

impl<A: Answer> Answer for Local<A> {
    async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/observed" || request.method() != Method::GET {
            return self.pages.answer(peer, request).await;
        }
        match serde_json::to_vec(&(self.observed)()) {
            Ok(json) => respond::json(StatusCode::OK, json),
            Err(_) => respond::json(StatusCode::INTERNAL_SERVER_ERROR, "{}"),
        }
    }
}
