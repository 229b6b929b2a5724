//! The listener for host-network pods in front of the pipeline: whoever asks there is who his socket says.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::namer::Namer;
use crate::agent::obtain::TokenSource;
use crate::agent::origin::Origin;
use crate::agent::pipeline::Pipeline;
use crate::serve::{self, Peer};

/// The pipeline, asked from the node's own network.
pub struct OnHost<S: TokenSource> {
    /// The pipeline.
    pub pipeline: Arc<Pipeline<S>>,
    /// Who tells pods apart.
    pub namer: Namer,
}

impl<S: TokenSource> serve::Answer for OnHost<S> {
    /// All who ask have the node's address: each pod's connections are counted by themselves.
    fn whose(&self, peer: SocketAddr) -> Option<Peer> {
        self.namer.whose(peer)
    }

    /// Asked anew for each request: nothing that is remembered of a port can outlive its socket.
    async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let origin = match self.namer.name(peer).await {
            Ok(uid) => Origin::Host(uid),
            Err(why) => Origin::Nobody(peer, why),
        };
        self.pipeline.answer_to(&origin, request).await
    }
}
