//! A pod's own listener in front of the pipeline: whoever asks there is that pod.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::Face;
use crate::agent::obtain::TokenSource;
use crate::agent::origin::Origin;
use crate::agent::pipeline::Pipeline;
use crate::serve;

/// The pipeline, asked from inside a pod.
pub struct Inside<S: TokenSource> {
    /// The pipeline.
    pub pipeline: Arc<Pipeline<S>>,
    /// Who asks.
    pub origin: Origin,
    /// Where.
    pub face: Face,
}

impl<S: TokenSource> serve::Answer for Inside<S> {
    /// The peer's address says nothing: every process of the pod has it.
    async fn answer(&self, _: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.face {
            Face::Imds => self.pipeline.answer_to(&self.origin, request).await,
            Face::VmExtension => {
                let answer = self.pipeline.answer_as_vm_extension(&self.origin, request);
                answer.await
            }
        }
    }
}
