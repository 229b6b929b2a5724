//! The identities that bindings or the annotation name: each is there and admitted, or what refuses.

use super::commands::is_application;
use super::found::Found;
use super::{Mark, Section, Step, list, near_names};
use crate::agent::assigned;
use crate::agent::conditions::{Clause, binds, refusing};
use crate::agent::grants::PodGrants;
use crate::model::facts::{IdentityFacts, PolicyFacts, Standing};
use crate::model::ids::ObjectName;

/// Policies shown that refuse.
const SHOWN: usize = 5;

/// The section; `None` where nothing names an identity.
pub(super) fn section(found: &Found, grants: &PodGrants) -> Option<Section> {
    let mut names: Vec<ObjectName> = if let Some(wanted) = &grants.wanted {
        wanted
            .iter()
            .map(|wanted| wanted.identity.clone())
            .collect()
    } else {
        let own = &grants.pod.name.namespace;
        let bindings = found.world.bindings(own);
        let fits = bindings.filter(|binding| binds(binding, &grants.pod, &found.world));
        fits.map(|binding| ObjectName::new(own.clone(), binding.identity.clone()))
            .collect()
    };
    let mut seen = Vec::new();
    names.retain(|name| {
        let new = !seen.contains(name);
        seen.push(name.clone());
        new
    });
    let steps: Vec<Step> = names.iter().map(|name| step(found, name)).collect();
    (!steps.is_empty()).then(|| Section {
        title: "Identities".to_owned(),
        steps,
    })
}

/// How far the granted identities are on their way to the pod's node; `None` where that does not count.
pub(super) fn assignments(found: &Found, grants: &PodGrants) -> Option<Section> {
    let (name, own) = found.world.own_assignment()?;
    let mut steps = Vec::new();
    if own.is_none() {
        let text = "the controller has not made it (yet): nothing is known to be on the node";
        steps.push(Step::new(Mark::Note, text));
    }
    let assignments = found.world.assignments();
    for grant in &grants.granted {
        let identity = &grant.identity.name;
        steps.push(match assigned::standing(&assignments, grant) {
            None => Step::new(Mark::Fine, format!("{identity} needs nothing on the node")),
            Some(Standing::Assigned { .. }) => {
                Step::new(Mark::Fine, format!("{identity} is on the node"))
            }
            Some(Standing::Pending) => {
                Step::new(Mark::Wrong, format!("{identity} is not on the node yet"))
                    .with(pending(&grant.identity))
            }
            Some(Standing::Failed { why }) => Step::new(
                Mark::Wrong,
                format!("{identity} could not be put on the node"),
            )
            .with(&*why),
        });
    }
    let title = format!("Assigned to the node (AzureAssignment {name})");
    Some(Section { title, steps })
}

/// What to do about an identity that is not on the node yet.
fn pending(identity: &IdentityFacts) -> String {
    if identity.resource_id.is_none() {
        return "it states no resourceID, and Azure assigns by that only: state it (`az identity show` tells it), under a resourceIDPrefix of a policy".to_owned();
    }
    let name = &identity.name;
    format!(
        "`kubectl -n {} get azid {} -o wide` says what keeps the controller from it",
        name.namespace, name.name
    )
}

fn step(found: &Found, name: &ObjectName) -> Step {
    let Some(known) = found.world.identity(name) else {
        return match found.broken("AzureIdentity", name) {
            Some(broken) => Step::new(Mark::Wrong, format!("{name} is there, but cannot be used"))
                .with(&*broken.problem),
            None => missing(found, name),
        };
    };
    let identity = &known.facts;
    let mut step = policies(found, identity);
    if !identity.allowed_resources.is_empty() {
        let allowed = list(&identity.allowed_resources);
        step.details
            .push(format!("only for {allowed} (allowedResources)"));
    }
    if is_application(identity) {
        step.details.push(
            "an application has no resourceID: its tokens are handed out where a policy lists its client id under clientIDs, or all of them admit /subscriptions/"
                .to_owned(),
        );
    } else if identity.resource_id.is_none() {
        step.details.push(
            "states no resourceID: the policies are held against the token's own when it is there"
                .to_owned(),
        );
    }
    step
}

fn missing(found: &Found, name: &ObjectName) -> Step {
    let step = Step::new(
        Mark::Wrong,
        format!("{name}: there is no such AzureIdentity"),
    );
    match likely(found, name) {
        Some(other) => step.with(format!("there is {other}")),
        None => step,
    }
}

/// The identity that was probably meant by a name that does not exist.
pub(super) fn likely(found: &Found, name: &ObjectName) -> Option<ObjectName> {
    let all = || found.world.all_identities().map(|identity| &identity.name);
    let here = all().filter(|other| other.namespace == name.namespace);
    let near = near_names(&name.name, here.map(|other| &*other.name));
    if let Some(near) = near.first() {
        return Some(ObjectName::new(name.namespace.clone(), *near));
    }
    all().filter(|other| other.name == name.name).min().cloned()
}

/// Which policies admit an identity, or why none does.
pub(super) fn policies(found: &Found, identity: &IdentityFacts) -> Step {
    let (name, namespace) = (&identity.name, &identity.name.namespace);
    let id = identity.client_id;
    let Some(labels) = found.world.namespace(namespace) else {
        let text = format!(
            "{name}: the Namespace object {namespace} is not known, so no policy admits it"
        );
        return Step::new(Mark::Wrong, text);
    };
    let admitting: Vec<&PolicyFacts> = found
        .world
        .policies()
        .filter(|policy| refusing(policy, identity, labels).next().is_none())
        .collect();
    if !admitting.is_empty() {
        let names = list(admitting.iter().map(|policy| &policy.name));
        return Step::new(
            Mark::Fine,
            format!("{name} (client id {id}) is admitted by AzureIdentityPolicy {names}"),
        );
    }
    let mut step = Step::new(
        Mark::Wrong,
        format!("{name} (client id {id}): no AzureIdentityPolicy admits it"),
    );
    if found.world.policies().next().is_none() {
        step.details.push(
            "there is no AzureIdentityPolicy at all; without one nothing is allowed".to_owned(),
        );
    }
    let mut refusals: Vec<(usize, String)> = found
        .world
        .policies()
        .map(|policy| {
            let clauses: Vec<Clause> = refusing(policy, identity, labels).collect();
            let words = clauses
                .iter()
                .map(|clause| refusal(*clause, policy, identity, found));
            (
                clauses.len(),
                format!("{}: {}", policy.name, words.collect::<Vec<_>>().join("; ")),
            )
        })
        .collect();
    refusals.sort();
    let more = refusals.len().saturating_sub(SHOWN);
    step.details
        .extend(refusals.into_iter().take(SHOWN).map(|(_, text)| text));
    if more > 0 {
        step.details
            .push(format!("{more} more policies do not admit it either"));
    }
    for broken in found
        .broken
        .iter()
        .filter(|broken| broken.kind == "AzureIdentityPolicy")
    {
        step.details.push(format!(
            "{} cannot be used: {}",
            broken.name.name, broken.problem
        ));
    }
    step
}

/// A clause that refuses, in words.
fn refusal(
    clause: Clause,
    policy: &PolicyFacts,
    identity: &IdentityFacts,
    found: &Found,
) -> String {
    let (scope, namespace) = (&policy.scope, &identity.name.namespace);
    match clause {
        Clause::Namespaces => {
            let labels = found.world.namespace(namespace);
            let unmet = labels.map(|labels| list(policy.namespaces.unmet(labels)));
            format!(
                "it is not for namespace {namespace}: {}",
                unmet.unwrap_or_default()
            )
        }
        Clause::Prefixes if scope.resource_id_prefixes.is_empty() => {
            format!(
                "its resourceIDPrefixes are empty and its clientIDs are without {}",
                identity.client_id
            )
        }
        Clause::Prefixes => {
            let id = identity.resource_id.as_ref();
            format!(
                "the identity's resourceID {} is not under {}",
                id.map_or("", |id| id.as_written()),
                scope.resource_id_prefixes.join(" or ")
            )
        }
        Clause::Others => {
            let id = identity.resource_id.as_ref();
            format!(
                "Lanyard made {} for another AzureIdentity, and none of its resourceIDPrefixes is that whole id",
                id.map_or("", |id| id.as_written())
            )
        }
        Clause::AuthorityHosts => format!(
            "the identity's authorityHost {} is not one of its authorityHosts",
            identity.authority_host.as_deref().unwrap_or_default()
        ),
        Clause::WorkloadIdentity => "it does not say workloadIdentity: true".to_owned(),
        Clause::TokenEndpoints => {
            "the identity's tokenEndpoint is not one of its tokenEndpoints".to_owned()
        }
        Clause::Tenants => format!(
            "the identity's tenant {} is not one of {}",
            identity
                .tenant_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            list(&scope.tenant_ids)
        ),
    }
}
