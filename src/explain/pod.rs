//! The pod itself, who intercepts it, and which metadata paths are open to it.

use super::found::{Found, PodView};
use super::{Mark, Section, Step, list, near_names};
use crate::api::IDENTITY_ANNOTATION;
use crate::api::{ENFORCE_LABEL, is_enforced};
use crate::model::facts::PodLife;

/// Keys of other products that a pod may still carry.
const OTHERS: [(&str, &str); 1] = [("aadpodidbinding", "AAD Pod Identity")];

/// The pod's own section.
pub(super) fn section(found: &Found, pod: &PodView) -> Section {
    let mut steps = vec![state(found, pod)];
    if let Some(owner) = &pod.owner {
        let text = format!("made by {} {}", owner.kind, owner.name);
        steps.push(Step::new(Mark::Note, text));
    }
    steps.push(annotation(pod));
    steps.extend(slips(pod));
    steps.extend(clash(found, pod));
    Section {
        title: "Pod".to_owned(),
        steps,
    }
}

fn state(found: &Found, pod: &PodView) -> Step {
    let place = pod.node.as_ref().map_or_else(
        || "on no node yet".to_owned(),
        |node| format!("on node {node}"),
    );
    let account = &pod.facts.service_account;
    if pod.facts.host_network {
        let text = format!(
            "{} {place}, in the node's own network (hostNetwork: true), service account {account}",
            pod.phase
        );
        if found.is_told_apart(pod) {
            let how = "the agent tells it from the node by the cgroup of its sockets";
            return Step::new(Mark::Fine, text).with(how);
        }
        return Step::new(Mark::Wrong, text);
    }
    let address = match pod.address() {
        Some(address) => format!("address {address}"),
        None => "no address yet".to_owned(),
    };
    let mark = if pod.facts.life == PodLife::Ended {
        Mark::Wrong
    } else {
        Mark::Fine
    };
    Step::new(
        mark,
        format!(
            "{} {place}, {address}, service account {account}",
            pod.phase
        ),
    )
}

fn annotation(pod: &PodView) -> Step {
    match &pod.facts.wanted {
        None => Step::new(
            Mark::Fine,
            format!(
                "no annotation {IDENTITY_ANNOTATION}: it gets what bindings of its namespace give it"
            ),
        ),
        Some(names) if names.is_empty() => Step::new(
            Mark::Wrong,
            format!(
                "the annotation {IDENTITY_ANNOTATION} is empty: it asks for no identity at all"
            ),
        ),
        Some(names) => {
            let written = names.join(",");
            let first = if names.len() > 1 {
                format!(": the default is {}", names[0])
            } else {
                String::new()
            };
            Step::new(
                Mark::Fine,
                format!("annotated {IDENTITY_ANNOTATION}: {written}{first}"),
            )
        }
    }
}

/// Keys that were probably meant to be the annotation.
fn slips(pod: &PodView) -> Vec<Step> {
    let mut steps = Vec::new();
    if pod.facts.labels.contains_key(IDENTITY_ANNOTATION) {
        let text = format!(
            "{IDENTITY_ANNOTATION} is a label of this pod; only the annotation of that name counts"
        );
        steps.push(Step::new(Mark::Wrong, text));
    }
    let keys = || pod.annotations.keys().map(String::as_str);
    for near in near_names(IDENTITY_ANNOTATION, keys()) {
        let text = format!(
            "the annotation {near} means nothing to Lanyard; it is called {IDENTITY_ANNOTATION}"
        );
        steps.push(Step::new(Mark::Wrong, text));
    }
    let labels = pod.facts.labels.keys().map(String::as_str);
    for (key, product) in labels
        .chain(keys())
        .filter_map(|key| OTHERS.iter().find(|(other, _)| *other == key))
    {
        steps.push(Step::new(
            Mark::Note,
            format!("{key} is {product}'s; Lanyard does not look at it"),
        ));
    }
    steps
}

/// Another live pod that says its address is this one's.
fn clash(found: &Found, pod: &PodView) -> Option<Step> {
    if pod.facts.life == PodLife::Ended {
        return None;
    }
    let same = found.pods.values().find(|other| {
        other.facts.name != pod.facts.name
            && other.facts.life == PodLife::Live
            && other.node == pod.node
            && other.facts.ips.iter().any(|ip| pod.facts.ips.contains(ip))
    })?;
    let text = format!(
        "{} has the same address: neither gets a token until that ends (pod_ambiguous)",
        same.facts.name
    );
    Some(Step::new(Mark::Wrong, text))
}

/// Who intercepts the pod, and whether somebody does.
pub(super) fn interception(found: &Found, pod: &PodView) -> (Option<Section>, bool) {
    let Some(agents) = &found.agents else {
        return (None, true);
    };
    let Some(node) = &pod.node else {
        let step = Step::new(Mark::Note, "the pod runs on no node yet");
        return (
            Some(Section {
                title: "Interception".to_owned(),
                steps: vec![step],
            }),
            true,
        );
    };
    let mut here = agents.iter().filter(|agent| agent.node == *node).peekable();
    let mut steps = Vec::new();
    if here.peek().is_none() {
        steps.push(Step::new(Mark::Wrong, "no Lanyard agent runs on this node").with(
            "if one did before, its rules refuse the pod's requests; if none ever did, the pod reaches the node's own identity",
        ).with("look: kubectl get pods -A -o wide -l app.kubernetes.io/name=lanyard"));
    }
    let (mut ready, mut observes) = (false, false);
    for agent in here {
        ready |= agent.ready;
        observes |= agent.observes;
        steps.push(if agent.ready {
            Step::new(Mark::Fine, format!("agent {} is ready", agent.name))
        } else {
            let text = format!("agent {} is not ready ({})", agent.name, agent.phase);
            Step::new(Mark::Wrong, text).with(format!(
                "look: kubectl -n {0} logs {1}; kubectl -n {0} describe pod {1}",
                agent.name.namespace, agent.name.name
            ))
        });
    }
    if observes {
        steps.push(observing(found, pod));
    }
    if found.nodes.get(node).is_some_and(|node| node.tainted) {
        let text = format!(
            "the node still has the taint {}: new pods wait until its agent has checked the rules",
            crate::api::STARTUP_TAINT
        );
        steps.push(Step::new(Mark::Note, text));
    }
    (
        Some(Section {
            title: format!("Interception on node {node}"),
            steps,
        }),
        ready,
    )
}

fn observing(found: &Found, pod: &PodView) -> Step {
    let labels = found.world.namespace(&pod.facts.name.namespace);
    let enforced = labels.is_some_and(is_enforced);
    let text = if enforced {
        format!(
            "the agent only observes, but this namespace is enforced (label {ENFORCE_LABEL}=true)"
        )
    } else {
        "the agent only observes: what would be refused is passed on to the node's own identities"
            .to_owned()
    };
    Step::new(Mark::Note, text)
}

/// Metadata paths that exceptions open to the pod.
pub(super) fn paths(found: &Found, pod: &PodView) -> Option<Section> {
    let facts = &pod.facts;
    let mut steps = Vec::new();
    for exception in found
        .world
        .exceptions()
        .filter(|e| e.namespace == facts.name.namespace)
    {
        let name = &exception.name;
        let paths = list(
            exception
                .paths
                .iter()
                .map(crate::model::path::PlainPath::as_str),
        );
        if exception
            .service_accounts
            .iter()
            .any(|account| **account == *facts.service_account)
        {
            let whole = if exception.allow_node_identity {
                ", userData and customData included"
            } else {
                ""
            };
            steps.push(Step::new(
                Mark::Fine,
                format!("AzureMetadataException {name} opens {paths}{whole}"),
            ));
        } else {
            let accounts = list(&exception.service_accounts);
            let text = format!(
                "AzureMetadataException {name} opens {paths} for service account {accounts}, not for this pod's"
            );
            steps.push(Step::new(Mark::Note, text));
        }
    }
    for broken in found
        .broken
        .iter()
        .filter(|broken| broken.kind == "AzureMetadataException")
    {
        let text = format!(
            "AzureMetadataException {} cannot be used: {}",
            broken.name.name, broken.problem
        );
        steps.push(Step::new(Mark::Note, text));
    }
    (!steps.is_empty()).then(|| Section {
        title: "Other metadata paths".to_owned(),
        steps,
    })
}
