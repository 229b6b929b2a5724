//! A question that is an object: its text goes there, the answer's comes back. Tokens are in either.

use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use kube::client::Body;
use serde_json::Value;
use zeroize::Zeroizing;

use super::Cluster;
use super::collection::{Failure, causes};

/// Tokens have a few kilobytes, and so has a user with all of his groups.
const LONGEST: usize = 256 << 10;

impl Cluster {
    /// The answer, whole. Blocks for as long as the caller lets it.
    pub(super) async fn post(
        &self,
        path: &str,
        object: &Value,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let request = Request::post(path)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(object.to_string().into_bytes()))
            .map_err(|error| Failure::Nonsense(error.to_string()))?;
        let answer = self.send(request).await?;
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| Failure::Unreachable(causes(error.as_ref())))?;
        Ok(Zeroizing::new(body.to_bytes().to_vec()))
    }
}
