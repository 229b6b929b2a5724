//! Which variables a pod lacks, as operations of a JSON patch. Pure.
//!
//! Nothing that is there is changed, and a pair of variables is added whole or not at all: an endpoint
//! with somebody else's secret would be a program that gets 401 for a reason nobody sees.

use serde_json::{Value, json};

use super::pod::{Container, Pod, Variable};
use super::secret::PodSecret;
use crate::api::APP_SERVICE_ENDPOINT;
use crate::api::pod::is_written_out;

/// 2019-08-01.
const PAIR: Pair = Pair {
    endpoint: "IDENTITY_ENDPOINT",
    secret: "IDENTITY_HEADER",
};
/// 2017-09-01.
const OLDER: Pair = Pair {
    endpoint: "MSI_ENDPOINT",
    secret: "MSI_SECRET",
};
/// The API server cuts what is told to a client; a pod has hardly more containers.
const MOST_WARNINGS: usize = 8;

/// What is to be done to a pod.
#[derive(Default)]
pub(super) struct Changes {
    /// Operations, to be done in this order.
    pub(super) patch: Vec<Value>,
    /// What was left as it is, and why.
    pub(super) warnings: Vec<String>,
}

struct Pair {
    endpoint: &'static str,
    secret: &'static str,
}

/// The changes that give every container and init container what it lacks.
pub(super) fn changes(pod: &Pod, secret: &PodSecret, with_2017: bool) -> Changes {
    let mut changes = Changes::default();
    let Some(spec) = &pod.spec else {
        return changes;
    };
    let pairs = if with_2017 {
        &[PAIR, OLDER][..]
    } else {
        &[PAIR]
    };
    for (list, containers) in [
        ("initContainers", &spec.init_containers),
        ("containers", &spec.containers),
    ] {
        for (number, container) in containers.iter().flatten().enumerate() {
            let path = format!("/spec/{list}/{number}/env");
            let lacking = pairs
                .iter()
                .filter(|pair| is_lacking(pair, container, &mut changes.warnings));
            let variables: Vec<Value> = lacking.flat_map(|pair| written(pair, secret)).collect();
            add(&mut changes.patch, &path, container, variables);
        }
    }
    let more = changes.warnings.len().saturating_sub(MOST_WARNINGS);
    if more > 0 {
        changes.warnings.truncate(MOST_WARNINGS);
        changes.warnings.push(format!("and {more} more like these"));
    }
    changes
}

/// Whether nothing of the pair is there. A pair that is there, but is none that works here, is told of.
fn is_lacking(pair: &Pair, container: &Container, warnings: &mut Vec<String>) -> bool {
    let Pair { endpoint, secret } = pair;
    let has = |name: &str| -> Option<&Variable> {
        // Of two with one name the last one counts.
        let mut variables = container.env.iter().flatten().rev();
        variables.find(|variable| variable.name == name)
    };
    let name = &container.name;
    let words = match (has(endpoint), has(secret)) {
        (None, None) => return true,
        (Some(at), Some(_)) if at.value.as_deref() != Some(APP_SERVICE_ENDPOINT) => {
            format!("container {name} keeps its own {endpoint}, which is not Lanyard's")
        }
        (Some(_), Some(shown)) if !shown.value.as_deref().is_some_and(is_written_out) => {
            format!(
                "container {name} has a {secret} that is not written out: agents cannot know it"
            )
        }
        (Some(_), Some(_)) => return false,
        (Some(_), None) => {
            format!("container {name} has an {endpoint} of its own: no {secret} is added to it")
        }
        (None, Some(_)) => {
            format!("container {name} has a {secret} of its own: no {endpoint} is added to it")
        }
    };
    warnings.push(words);
    false
}

fn written(pair: &Pair, secret: &PodSecret) -> [Value; 2] {
    [
        json!({"name": pair.endpoint, "value": APP_SERVICE_ENDPOINT}),
        json!({"name": pair.secret, "value": secret.as_str()}),
    ]
}

/// In front of the others: variables may be made of those before them.
fn add(patch: &mut Vec<Value>, path: &str, container: &Container, variables: Vec<Value>) {
    if variables.is_empty() {
        return;
    }
    if container.env.is_none() {
        patch.push(json!({"op": "add", "path": path, "value": variables}));
        return;
    }
    let first = format!("{path}/0");
    let backwards = variables.into_iter().rev();
    patch.extend(backwards.map(|value| json!({"op": "add", "path": first, "value": value})));
}
