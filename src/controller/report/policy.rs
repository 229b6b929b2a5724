//! The statuses of what operators write: policies and exceptions. Pure.

use super::Verdict;
use crate::controller::world::{Seen, World};
use crate::model::facts::{ExceptionFacts, PolicyFacts};

pub(super) fn policy(seen: &Seen<PolicyFacts>, world: &World) -> Verdict {
    let policy = match &seen.said {
        Ok(policy) => policy,
        Err(error) => return malformed(error, "it admits nothing"),
    };
    let mut namespaces = world.namespaces.values();
    if namespaces.any(|labels| policy.namespaces.matches(labels)) {
        Verdict::yes("Accepted", "it counts for the namespaces that it names")
    } else {
        Verdict::yes(
            "NoNamespace",
            "no namespace has the labels that spec.namespaces asks for: it admits nothing at present",
        )
    }
}

pub(super) fn exception(seen: &Seen<ExceptionFacts>, world: &World) -> Verdict {
    let exception = match &seen.said {
        Ok(exception) => exception,
        Err(error) => return malformed(error, "it opens nothing"),
    };
    if world.namespaces.contains_key(&exception.namespace) {
        Verdict::yes("Accepted", "it counts for the pods that it names")
    } else {
        let message = format!(
            "there is no namespace {}: it opens nothing at present",
            exception.namespace
        );
        Verdict::yes("NoNamespace", message)
    }
}

fn malformed(error: &crate::api::Malformed, so: &str) -> Verdict {
    Verdict::no("Malformed", format!("{so}: {error}"))
}
