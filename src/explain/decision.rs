//! The explanation put together: what the agent's own code decides, with the steps that led there.

use super::found::{Found, PodView};
use super::{Explanation, Mark, Outcome, Question, Remedy, Section, Step, Verdict};
use super::{bindings, identities, list, near_names, pod, remedy, sources, workload};
use crate::agent::assigned;
use crate::agent::grants::{Missing, PodGrants, grants};
use crate::agent::select::{Chosen, Decision, Refusal, choose, select};
use crate::model::account::account_of;
use crate::model::facts::PodLife;
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Grant;
use crate::model::ids::ObjectName;
use crate::model::query::{Dialect, Selector, TokenQuery};

/// Explains why the pod gets what it gets.
#[must_use]
pub fn explain(found: &Found, question: &Question) -> Explanation {
    let Some(view) = found.pods.get(&question.pod) else {
        return no_such_pod(found, question);
    };
    let mut sections = vec![pod::section(found, view)];
    if !found.is_told_apart(view) {
        return outside(question, sections);
    }
    let (interception, intercepted) = pod::interception(found, view);
    sections.extend(interception);
    let grants = grants(&view.facts, &found.world);
    sections.extend(bindings::sections(found, &grants));
    sections.extend(workload::section(found, view, &grants));
    sections.extend(identities::section(found, &grants));
    sections.extend(sources::section(found, &grants));
    sections.extend(pod::paths(found, view));
    let decided = decide(&grants, &question.selector, question.resource.as_deref());
    sections.extend(identities::assignments(found, &grants));
    let mut explanation = match decided {
        Ok((grant, chosen)) => match assigned::admit(&found.world.assignments(), grant) {
            Ok(_) => granted(question, grant, chosen),
            Err(fault) => not_assigned(question, &fault),
        },
        Err(refusal) => refused(found, view, &grants, question, &refusal),
    };
    explanation.sections = sections;
    explanation.outcomes = outcomes(&grants, question);
    if view.facts.life == PodLife::Ended {
        explanation.verdict = Verdict::Refused;
        explanation.headline = format!(
            "{} has ended ({}): its address may be another pod's by now, so nothing is given out.",
            question.pod, view.phase
        );
    } else if let Some(doubt) = doubt(found, intercepted, explanation.verdict) {
        explanation.verdict = Verdict::Unclear;
        explanation.headline = format!("{doubt} By its objects: {}", explanation.headline);
    }
    explanation
}

/// What keeps the decision from being what the pod really sees.
fn doubt(found: &Found, intercepted: bool, verdict: Verdict) -> Option<String> {
    if !found.unreadable.is_empty() {
        return Some(format!(
            "Cannot tell for sure: {}.",
            found.unreadable.join("; ")
        ));
    }
    // Without an agent a refusal is not certain either: nobody may have closed the door.
    (!intercepted && verdict != Verdict::Unclear).then(|| {
        "Cannot tell: no Lanyard agent is ready on the pod's node, so nobody answers it.".to_owned()
    })
}

/// The agent's decision about one request.
fn decide<'a>(
    grants: &'a PodGrants,
    selector: &Selector,
    resource: Option<&str>,
) -> Result<(&'a Grant, Chosen), Refusal> {
    let Some(resource) = resource else {
        return choose(grants, selector);
    };
    let query = TokenQuery {
        dialect: Dialect::Imds,
        resource: resource.to_owned(),
        selector: selector.clone(),
        claims: None,
        bypass_cache: false,
    };
    match select(grants, &query) {
        Decision::Granted(grant, chosen) => Ok((grant, chosen)),
        Decision::Refused(refusal) => Err(refusal),
    }
}

fn granted(question: &Question, grant: &Grant, chosen: Chosen) -> Explanation {
    let identity = &grant.identity;
    let resource = match &question.resource {
        Some(resource) => format!(" for {resource}"),
        None => String::new(),
    };
    Explanation {
        verdict: Verdict::Granted,
        headline: format!(
            "{} gets tokens{resource} of {} (client id {}): {}.",
            question.pod,
            called(&identity.name),
            identity.client_id,
            chosen.as_str()
        ),
        ..blank(question)
    }
}

/// The identity is granted, and not on the node.
fn not_assigned(question: &Question, fault: &Fault) -> Explanation {
    let what = match fault.kind {
        FaultKind::NotYetAssigned => {
            "wait, the controller is to assign it; if that lasts do what stands at \"Assigned to the node\""
        }
        _ => "mend what Azure refused, then the controller tries again",
    };
    Explanation {
        verdict: Verdict::Refused,
        headline: format!("{} is refused: {}.", question.pod, fault.detail),
        kind: Some(fault.kind.as_str()),
        remedies: vec![Remedy {
            what: what.to_owned(),
            how: "kubectl get azureassignments\nkubectl describe azureassignments".to_owned(),
        }],
        ..blank(question)
    }
}

fn refused(
    found: &Found,
    view: &PodView,
    grants: &PodGrants,
    question: &Question,
    refusal: &Refusal,
) -> Explanation {
    let fault = refusal.fault();
    Explanation {
        verdict: Verdict::Refused,
        headline: format!(
            "{} is refused: {}.",
            question.pod,
            sentence(found, view, refusal, grants)
        ),
        kind: Some(fault.kind.as_str()),
        remedies: remedy::of(found, view, grants, question, refusal),
        ..blank(question)
    }
}

/// The refusal in words.
fn sentence(found: &Found, view: &PodView, refusal: &Refusal, grants: &PodGrants) -> String {
    if *refusal == Refusal::Ambiguous {
        let names = grants.granted.iter().map(|grant| &grant.identity.name.name);
        return format!(
            "it is granted several identities ({}), its request names none, and nothing says which is the default",
            list(names)
        );
    }
    if let Refusal::NothingGranted(Some((name, Missing::NoIdentity)))
    | Refusal::AnnotationNotGranted(name, Missing::NoIdentity) = refusal
        && let Some(broken) = found.broken("AzureIdentity", name)
    {
        return format!(
            "AzureIdentity {name} is there, but cannot be used ({})",
            broken.problem
        );
    }
    let nothing = grants.wanted.as_ref().is_some_and(Vec::is_empty);
    if nothing && matches!(refusal, Refusal::NothingGranted(None)) {
        return "its annotation lanyard.dev/identity is empty, which asks for no identity"
            .to_owned();
    }
    if matches!(refusal, Refusal::NothingGranted(None)) && grants.wanted.is_none() {
        return workload::sentence(found, view).unwrap_or_else(|| fault_text(refusal));
    }
    fault_text(refusal)
}

/// An identity by its kind and name.
fn called(identity: &ObjectName) -> String {
    match account_of(identity) {
        Some(account) => format!("the identity of service account {account}"),
        None => format!("AzureIdentity {identity}"),
    }
}

/// The refusal as the agent's log has it.
fn fault_text(refusal: &Refusal) -> String {
    let fault = refusal.fault();
    if fault.detail.is_empty() {
        fault.public.into_owned()
    } else {
        fault.detail
    }
}

/// What each request gets that this pod's program may send.
fn outcomes(grants: &PodGrants, question: &Question) -> Vec<Outcome> {
    let resource = question.resource.as_deref();
    let mut requests = vec![("names no identity".to_owned(), Selector::Default)];
    for grant in &grants.granted {
        let id = grant.identity.client_id;
        requests.push((format!("client_id={id}"), Selector::ClientId(id)));
    }
    if let Some(asked) = question.selector.parameter()
        && requests
            .iter()
            .all(|(_, selector)| *selector != question.selector)
    {
        requests.push((asked, question.selector.clone()));
    }
    let outcome =
        |(request, selector): (String, Selector)| match decide(grants, &selector, resource) {
            Ok((grant, chosen)) => Outcome {
                request,
                identity: Some(grant.identity.name.clone()),
                why: match account_of(&grant.identity.name) {
                    Some(_) => chosen.as_str().to_owned(),
                    None => format!("{}; binding {}", chosen.as_str(), grant.binding),
                },
            },
            Err(refusal) => Outcome {
                request,
                identity: None,
                why: fault_text(&refusal),
            },
        };
    requests.into_iter().map(outcome).collect()
}

fn no_such_pod(found: &Found, question: &Question) -> Explanation {
    let asked = &question.pod;
    let elsewhere = found.pods.keys().filter(|name| name.name == asked.name);
    let elsewhere: Vec<String> = elsewhere.map(ToString::to_string).collect();
    let here = found
        .pods
        .keys()
        .filter(|name| name.namespace == asked.namespace);
    let near = near_names(&asked.name, here.clone().map(|name| &*name.name));
    let mut steps = Vec::new();
    if !near.is_empty() {
        steps.push(Step::new(
            Mark::Note,
            format!(
                "near names in namespace {}: {}",
                asked.namespace,
                list(near)
            ),
        ));
    } else if here.clone().next().is_some() {
        let names = list(here.map(|name| &name.name));
        steps.push(Step::new(
            Mark::Note,
            format!("pods in namespace {}: {names}", asked.namespace),
        ));
    } else {
        steps.push(Step::new(
            Mark::Note,
            format!("there are no pods in namespace {}", asked.namespace),
        ));
    }
    if !elsewhere.is_empty() {
        steps.push(Step::new(
            Mark::Note,
            format!("a pod of that name: {}", list(elsewhere)),
        ));
    }
    steps.extend(
        found
            .unreadable
            .iter()
            .map(|problem| Step::new(Mark::Unknown, problem)),
    );
    Explanation {
        headline: format!("Cannot tell: there is no pod {asked}."),
        sections: vec![Section {
            title: "Pod".to_owned(),
            steps,
        }],
        ..blank(question)
    }
}

fn outside(question: &Question, sections: Vec<Section>) -> Explanation {
    Explanation {
        headline: format!(
            "{} is a host-network pod: Lanyard does not decide about it. It reaches the node's own metadata service and whatever identities sit on the node.",
            question.pod
        ),
        sections,
        remedies: vec![
            Remedy {
                what: "take the pod off the node's network: without hostNetwork it gets its own identity, and no other".to_owned(),
                how: "# in the pod's template\nspec:\n  hostNetwork: false".to_owned(),
            },
            Remedy {
                what: "or have the agents tell host-network pods apart (nodes with cgroup v2; what it takes: docs/host-network.md)".to_owned(),
                how: "helm upgrade lanyard charts/lanyard -n lanyard-system --reset-then-reuse-values --set agent.hostNetworkPods.enabled=true".to_owned(),
            },
        ],
        ..blank(question)
    }
}

fn blank(question: &Question) -> Explanation {
    Explanation {
        pod: question.pod.clone(),
        verdict: Verdict::Unclear,
        headline: String::new(),
        kind: None,
        sections: Vec::new(),
        outcomes: Vec::new(),
        remedies: Vec::new(),
    }
}
