//! The virtual machine extension's endpoint, inside pods that ask for it.
//!
//! In: who asks, a request with or without a form. Out: an answer in IMDS's words, which its clients read. Blocks on the
//! form, briefly, and then as asking for a token does.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::Pipeline;
use crate::agent::obtain::TokenSource;
use crate::agent::origin::Origin;
use crate::agent::receive::vm_extension::{self, LONGEST_FORM};
use crate::agent::respond::{self, Answer};
use crate::model::fault::{Fault, FaultKind};

/// From a request's head to the end of its form.
const PATIENCE: Duration = Duration::from_secs(2);

impl<S: TokenSource> Pipeline<S> {
    /// The answer to whoever asks there.
    pub async fn answer_as_vm_extension(
        &self,
        origin: &Origin,
        request: Request<Incoming>,
    ) -> Answer {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let answered = async {
            let query = vm_extension::receive(&head, &form(body).await?)?;
            self.token(origin, &query).await
        };
        let answer = answered.await.unwrap_or_else(|fault: Fault| {
            tracing::debug!(peer = %origin, %fault, "request failed");
            self.metrics.failed(fault.kind);
            respond::fault(&fault)
        });
        self.metrics.answered(started.elapsed());
        answer
    }
}

async fn form(body: Incoming) -> Result<Bytes, Fault> {
    let bad = |public: &'static str| Fault::new(FaultKind::BadRequest, public);
    let read = timeout(PATIENCE, Limited::new(body, LONGEST_FORM).collect()).await;
    let read = read.map_err(|_| bad("The form did not come in time"))?;
    let read = read.map_err(|_| bad("The form is too long, or was cut off"))?;
    Ok(read.to_bytes())
}
