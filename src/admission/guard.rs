//! Keeps agents to service account tokens of pods on their own node: reads the question, reads the pod,
//! gives the verdict.
//!
//! In: the bytes of an `AdmissionReview` of a `TokenRequest`. Out: the answer to it. Blocks on the API
//! server for at most [`READ`], which is less than the webhook's own 5 s, so that the asker reads our
//! words. Invariant 9: no error on the way ends in "allowed".

use std::time::Duration;

use serde_json::Value;

use super::review::{self, Question, ReviewError};
use super::spaced::Spaced;
use super::verdict::{self, Denial, Pod};
use crate::kubernetes::{CallError, Cluster, Kind};

/// For the pod to be read.
const READ: Duration = Duration::from_secs(2);
static DENIED: Spaced = Spaced::new();

/// Who is kept to what.
pub(super) struct Guard {
    /// Where pods are read.
    pub(super) cluster: Cluster,
    /// The agents' user name; requests of others are not ours to judge.
    pub(super) agents: String,
}

/// Why no verdict could be reached.
#[derive(Debug, thiserror::Error)]
enum Unjudged {
    #[error(transparent)]
    Denied(#[from] Denial),
    #[error("the pod could not be read, so the token is not given; try again ({0})")]
    Unread(#[from] CallError),
    #[error("the pod could not be read within {} s, so the token is not given; try again", READ.as_secs())]
    Late,
}

impl Guard {
    /// The answer to a review.
    pub(super) async fn review(&self, body: &[u8]) -> Result<Value, ReviewError> {
        let question = review::question(body)?;
        Ok(match self.judge(&question).await {
            Ok(()) => review::answer(&question.review, Ok(())),
            Err(error) => {
                tell(&question, &error);
                let code = match error {
                    Unjudged::Denied(_) => 403,
                    Unjudged::Unread(_) | Unjudged::Late => 503,
                };
                review::answer(&question.review, Err((code, &error.to_string())))
            }
        })
    }

    async fn judge(&self, question: &Question) -> Result<(), Unjudged> {
        if question.user != self.agents {
            return Ok(());
        }
        let (_, bound) = verdict::subject(question)?;
        let namespace = &question.account.namespace;
        let pod = self.pod(namespace, &bound.name).await?;
        Ok(verdict::judge(question, pod.as_ref())?)
    }

    /// Reads a pod from the API server's store itself: no `resourceVersion`, no cache of ours.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, Unjudged> {
        let read = self.cluster.get(Kind::POD, Some(namespace), name);
        let found = tokio::time::timeout(READ, read).await;
        let found = found.map_err(|_| Unjudged::Late)??;
        Ok(found.as_ref().map(pod))
    }
}

/// What matters of a pod's document; what is absent is empty, and equals nothing that is asked for.
fn pod(document: &Value) -> Pod {
    let word = |pointer: &str| {
        let found = document.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    Pod {
        uid: word("/metadata/uid"),
        node: word("/spec/nodeName"),
        account: word("/spec/serviceAccountName"),
    }
}

/// A denial is what a stolen token would look like.
fn tell(question: &Question, error: &Unjudged) {
    if !DENIED.passes() {
        return;
    }
    let nodes = question.nodes.join(" ");
    let account = &question.account;
    tracing::warn!(
        nodes,
        namespace = account.namespace,
        account = account.name,
        pod = question.bound.as_ref().map(|bound| &*bound.name),
        %error,
        "a service account token was denied to an agent"
    );
}
