//! App Service's variables for pods that ask for them by a label, with a secret of each pod's own.
//!
//! In: an `AdmissionReview` of a pod that is being created. Out: allowed, with a JSON patch that adds the
//! variables. Blocks on nothing. What is not a new pod is allowed as it is: refusing it would protect
//! nobody, and might keep a pod from ending. Invariant: the secret is in the patch and nowhere else.
//!
//! ```text
//! review → opted in? → a new secret → inject (which variables where) → patch, warnings
//! ```

mod inject;
mod opted;
mod pod;
mod secret;

use serde_json::Value;

use super::review::{self, Request, ReviewError};
use super::spaced::Spaced;
use opted::Opted;
use pod::Pod;
use secret::PodSecret;

/// More containers than any pod has; each costs an answer some kilobytes.
const MOST_CONTAINERS: usize = 512;

static NO_POD: Spaced = Spaced::new();
static REFUSED: Spaced = Spaced::new();

/// The answer to a review.
pub(super) fn review(body: &[u8]) -> Result<Value, ReviewError> {
    let request = review::read(body)?;
    if !is_new_pod(&request) {
        let what = named(&request);
        if NO_POD.passes() {
            tracing::warn!(
                operation = request.operation,
                what,
                "a review of something else than a new pod: the webhook's rules are to name CREATE of pods only"
            );
        }
        let words = format!(
            "Lanyard's webhook adds variables to pods as they are created: {what} stay as they are"
        );
        return Ok(review::changed(&request.uid, &[], &[words]));
    }
    let object = request.object.map_or("null", |object| object.get());
    Ok(match Pod::read(object) {
        Ok(pod) => answer(&request, &pod),
        Err(at) => {
            let words = format!("Lanyard's webhook cannot read this pod (byte {at} of it)");
            refused(&request, 400, &words)
        }
    })
}

fn is_new_pod(request: &Request<'_>) -> bool {
    request.operation == "CREATE"
        && request.resource.group.is_empty()
        && request.resource.resource == "pods"
        && request.sub_resource.is_empty()
}

fn answer(request: &Request<'_>, pod: &Pod) -> Value {
    let (opted, mut warnings) = opted::of(pod);
    let Opted::In { with_2017 } = opted else {
        return review::changed(&request.uid, &[], &warnings);
    };
    if pod.containers() > MOST_CONTAINERS {
        let words = format!(
            "Lanyard's webhook gives variables to at most {MOST_CONTAINERS} containers of a pod"
        );
        return refused(request, 400, &words);
    }
    let Ok(secret) = PodSecret::draw() else {
        return refused(
            request,
            503,
            "Lanyard's webhook got no randomness from its node; try again",
        );
    };
    let changes = inject::changes(pod, &secret, with_2017);
    warnings.extend(changes.warnings);
    let meta = &pod.metadata;
    tracing::debug!(
        namespace = request.namespace,
        pod = meta.name.as_ref().or(meta.generate_name.as_ref()),
        variables = changes.patch.len(),
        "a pod that asks for App Service's variables"
    );
    review::changed(&request.uid, &changes.patch, &warnings)
}

fn refused(request: &Request<'_>, code: u16, words: &str) -> Value {
    if REFUSED.passes() {
        tracing::error!(
            namespace = request.namespace,
            name = request.name,
            "{words}"
        );
    }
    review::answer(&request.uid, Err((code, words)))
}

/// `pods/status`, `deployments.apps`.
fn named(request: &Request<'_>) -> String {
    let dotted = |name: &str, group: &str| match group {
        "" => name.to_owned(),
        group => format!("{name}.{group}"),
    };
    let resource = dotted(&request.resource.resource, &request.resource.group);
    match request.sub_resource.as_str() {
        "" => resource,
        part => format!("{resource}/{part}"),
    }
}

#[cfg(test)]
mod tests;
