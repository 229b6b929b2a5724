//! The bindings that could concern the pod: each names it, or the condition that fails.

use std::sync::Arc;

use super::found::Found;
use super::{Mark, Section, Step, list};
use crate::agent::conditions::{Unmet, binds, unmet};
use crate::agent::grants::PodGrants;
use crate::model::facts::{BindingFacts, PodFacts, Subject};
use crate::model::ids::ObjectName;

/// Bindings shown that do not name the pod: a namespace may have hundreds.
const SHOWN: usize = 8;

/// A section for each namespace whose bindings count.
pub(super) fn sections(found: &Found, grants: &PodGrants) -> Vec<Section> {
    let pod = &grants.pod;
    let own = &pod.name.namespace;
    let mut namespaces = vec![own.clone()];
    for wanted in grants.wanted.iter().flatten() {
        if !namespaces.contains(&wanted.identity.namespace) {
            namespaces.push(wanted.identity.namespace.clone());
        }
    }
    let mut sections: Vec<Section> = namespaces
        .iter()
        .map(|namespace| section(found, grants, namespace))
        .collect();
    let strangers = elsewhere(found, pod, &namespaces);
    if let Some(first) = sections.first_mut() {
        first.steps.extend(strangers);
    }
    sections
}

fn section(found: &Found, grants: &PodGrants, namespace: &str) -> Section {
    let pod = &grants.pod;
    let (fits, others): (Vec<_>, Vec<_>) = found
        .world
        .bindings(namespace)
        .partition(|binding| binds(binding, pod, &found.world));
    let mut steps: Vec<Step> = fits
        .iter()
        .map(|binding| fitting(grants, binding))
        .collect();
    let mut far: Vec<(usize, Step)> = others
        .iter()
        .map(|binding| failing(found, pod, binding))
        .collect();
    far.sort_by_key(|(failed, _)| *failed);
    let more = far.len().saturating_sub(SHOWN);
    // Where one names the pod, or its service account does, the others explain nothing.
    let mark = if fits.is_empty() && grants.granted.is_empty() {
        Mark::Wrong
    } else {
        Mark::Note
    };
    steps.extend(
        far.into_iter()
            .take(SHOWN)
            .map(|(_, step)| Step { mark, ..step }),
    );
    if more > 0 {
        steps.push(Step::new(
            Mark::Note,
            format!("{more} more do not name this pod either"),
        ));
    }
    for broken in &found.broken {
        if broken.kind == "AzureIdentityBinding" && *broken.name.namespace == *namespace {
            let text = format!("{} cannot be used: {}", broken.name.name, broken.problem);
            steps.push(Step::new(Mark::Wrong, text));
        }
    }
    if steps.is_empty() {
        steps.push(Step::new(mark, "there is none"));
    }
    Section {
        title: format!("Bindings (AzureIdentityBinding) in namespace {namespace}"),
        steps,
    }
}

fn fitting(grants: &PodGrants, binding: &BindingFacts) -> Step {
    let name = &binding.name.name;
    let default = if binding.default { ", as default" } else { "" };
    let text = format!("{name} gives this pod {}{default}", binding.identity);
    let identity = ObjectName::new(binding.name.namespace.clone(), binding.identity.clone());
    let asked = grants
        .wanted
        .as_ref()
        .is_none_or(|wanted| wanted.iter().any(|wanted| wanted.identity == identity));
    let step = Step::new(if asked { Mark::Fine } else { Mark::Note }, text);
    if asked {
        step
    } else {
        step.with("but the pod's annotation does not name it, so it does not count")
    }
}

/// Why a binding does not name the pod, and how many conditions fail in its nearest entry.
fn failing(found: &Found, pod: &PodFacts, binding: &BindingFacts) -> (usize, Step) {
    let mut step = Step::new(
        Mark::Wrong,
        format!(
            "{} gives {}, but not to this pod",
            binding.name.name, binding.identity
        ),
    );
    let mut nearest = usize::MAX;
    let several = binding.subjects.len() > 1;
    for (at, subject) in binding.subjects.iter().enumerate() {
        let failed: Vec<Unmet> = unmet(subject, binding, pod, &found.world).collect();
        nearest = nearest.min(failed.len());
        let reasons = failed
            .iter()
            .map(|unmet| reason(*unmet, subject, found, pod));
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        let entry = if several {
            format!("subjects[{at}]: ")
        } else {
            String::new()
        };
        step.details.push(format!("{entry}{reasons}"));
    }
    (nearest, step)
}

/// A condition that fails, in words.
fn reason(unmet: Unmet, subject: &Subject, found: &Found, pod: &PodFacts) -> String {
    let namespace = &pod.name.namespace;
    match unmet {
        Unmet::OtherNamespace => {
            "it is for pods of its own namespace (it has no namespaceSelector)".to_owned()
        }
        Unmet::UnknownNamespace => {
            format!("namespaceSelector: the Namespace object {namespace} is not known")
        }
        Unmet::NamespaceSelector => {
            let labels = found.world.namespace(namespace);
            let unmet = labels.zip(subject.namespace_selector.as_ref());
            let unmet = unmet.map(|(labels, selector)| list(selector.unmet(labels)));
            format!(
                "namespaceSelector: namespace {namespace}: {}",
                unmet.unwrap_or_default()
            )
        }
        Unmet::ServiceAccount => format!(
            "serviceAccounts: the pod's is {}, not {}",
            pod.service_account,
            subject.service_accounts.join(" or ")
        ),
        Unmet::PodSelector => {
            let selector = subject.pod_selector.as_ref();
            let unmet = selector.map(|selector| list(selector.unmet(&pod.labels)));
            format!("podSelector: {}", unmet.unwrap_or_default())
        }
    }
}

/// Bindings of namespaces that the annotation does not name, and that would name the pod.
fn elsewhere(found: &Found, pod: &Arc<PodFacts>, counted: &[Arc<str>]) -> Vec<Step> {
    let mut steps: Vec<Step> = offers(found, pod)
        .filter(|binding| !counted.contains(&binding.name.namespace))
        .map(|binding| {
            let (namespace, identity) = (&binding.name.namespace, &binding.identity);
            Step::new(
                Mark::Note,
                format!("{} offers this pod {namespace}/{identity}", binding.name),
            )
            .with(format!(
                "it counts only where the pod's annotation names it: {namespace}/{identity}"
            ))
        })
        .collect();
    steps.extend(misplaced(found, pod).filter(|binding| !counted.contains(&binding.name.namespace)).map(
        |binding| {
            let own = &pod.name.namespace;
            Step::new(Mark::Wrong, format!("{} fits but for its namespace", binding.name)).with(format!(
                "a binding without a namespaceSelector is for pods of its own namespace, not for {own}"
            ))
        },
    ));
    steps.sort_by(|a, b| a.text.cmp(&b.text));
    steps.truncate(SHOWN);
    steps
}

/// Bindings of other namespaces that name the pod.
pub(super) fn offers<'a>(
    found: &'a Found,
    pod: &'a Arc<PodFacts>,
) -> impl Iterator<Item = &'a Arc<BindingFacts>> {
    found.world.all_bindings().filter(|binding| {
        binding.name.namespace != pod.name.namespace && binds(binding, pod, &found.world)
    })
}

/// Bindings of other namespaces that were probably meant for this pod: one of their entries says
/// something about it and fails by nothing but the namespace.
pub(super) fn misplaced<'a>(
    found: &'a Found,
    pod: &'a Arc<PodFacts>,
) -> impl Iterator<Item = &'a Arc<BindingFacts>> {
    found.world.all_bindings().filter(|binding| {
        binding.subjects.iter().any(|subject| {
            let says = subject
                .service_accounts
                .iter()
                .any(|name| name != "default")
                || subject.pod_selector.as_ref().is_some_and(|selector| {
                    !selector.match_labels.is_empty() || !selector.expressions.is_empty()
                });
            says && unmet(subject, binding, pod, &found.world).eq([Unmet::OtherNamespace])
        })
    })
}
