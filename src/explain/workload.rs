//! The pod's service account, where it or the pod is set up for Azure Workload Identity: each condition
//! of the identity that its annotations make, and what to change. Pure.

use super::commands::label;
use super::found::{Found, PodView};
use super::{Mark, Remedy, Section, Step, identities};
use crate::agent::grants::PodGrants;
use crate::api::IDENTITY_ANNOTATION;
use crate::api::account::{CLIENT_ID_ANNOTATION, USE_LABEL, is_asked_for, of_pod};
use crate::model::account::{AccountFacts, is_accounts};

/// The chart's value without which agents do not look at service accounts.
const CHART_VALUE: &str = "agent.workloadIdentity.enabled";

/// What is known of the pod's service account.
enum Account<'a> {
    /// It names an identity.
    Counts(&'a crate::agent::world::KnownAccount),
    /// It would, but the agents do not look at service accounts.
    Ignored(&'a AccountFacts),
    /// Its annotations cannot be used.
    Broken(&'a str),
    /// It names none.
    Plain,
}

fn account<'a>(found: &'a Found, view: &PodView) -> Account<'a> {
    let name = of_pod(&view.facts);
    let mut ignored = found.ignored_accounts.iter();
    if let Some(known) = found.world.account(&name) {
        Account::Counts(known)
    } else if let Some(facts) = ignored.find(|facts| facts.name == name) {
        Account::Ignored(facts)
    } else if let Some(broken) = found.broken("ServiceAccount", &name) {
        Account::Broken(&broken.problem)
    } else {
        Account::Plain
    }
}

/// The section; `None` where neither is set up so.
pub(super) fn section(found: &Found, view: &PodView, grants: &PodGrants) -> Option<Section> {
    let asked = view.facts.labels.get(USE_LABEL);
    let account = account(found, view);
    if asked.is_none() && matches!(account, Account::Plain) {
        return None;
    }
    // What bindings give answers the pod; a label that was left behind keeps it from nothing.
    let trouble = if grants.granted.is_empty() {
        Mark::Wrong
    } else {
        Mark::Note
    };
    let mut steps = vec![match asked.map(String::as_str) {
        Some("true") => Step::new(Mark::Fine, format!("the pod asks for it: {USE_LABEL}=true")),
        Some(other) => Step::new(
            trouble,
            format!("the pod's label {USE_LABEL} is {other:?}; only \"true\" counts"),
        ),
        None => Step::new(
            trouble,
            format!("the pod does not ask for it: the label {USE_LABEL}=true is missing"),
        ),
    }];
    if view.facts.wanted.is_some() {
        let text = format!("the pod's annotation {IDENTITY_ANNOTATION} decides alone");
        steps.push(Step::new(Mark::Note, text));
    }
    steps.push(match account {
        Account::Counts(known) => identities::policies(found, &known.identity.facts),
        Account::Ignored(facts) => Step::new(
            trouble,
            format!(
                "it names client id {}, but the agent does not look at service accounts",
                facts.client_id
            ),
        )
        .with(format!(
            "the chart's value {CHART_VALUE}, the agent's flag --workload-identity"
        )),
        Account::Broken(problem) => {
            Step::new(trouble, "its annotations cannot be used").with(problem)
        }
        Account::Plain => Step::new(
            trouble,
            format!("it has no annotation {CLIENT_ID_ANNOTATION}"),
        ),
    });
    if matches!(account, Account::Counts(_)) && found.agents.is_none() {
        let text = "this counts where the agent runs with --workload-identity";
        steps.push(Step::new(Mark::Note, text));
    }
    let (own, bound): (Vec<_>, Vec<_>) = grants
        .granted
        .iter()
        .partition(|grant| is_accounts(&grant.identity.name));
    if !own.is_empty() && (!bound.is_empty() || grants.near.is_some()) {
        let text = "bindings come first: it answers requests that name its client id";
        steps.push(Step::new(Mark::Note, text));
    }
    Some(Section {
        title: format!(
            "Service account {} (Azure Workload Identity)",
            of_pod(&view.facts)
        ),
        steps,
    })
}

/// Why a pod that is set up so is granted nothing, in words; `None` where it is not set up so.
pub(super) fn sentence(found: &Found, view: &PodView) -> Option<String> {
    if !is_asked_for(&view.facts) {
        return None;
    }
    let name = of_pod(&view.facts);
    let why = match account(found, view) {
        Account::Broken(problem) => format!("its annotations cannot be used ({problem})"),
        Account::Ignored(_) => "the agent does not look at service accounts".to_owned(),
        Account::Plain => format!("it has no annotation {CLIENT_ID_ANNOTATION}"),
        Account::Counts(_) => return None,
    };
    Some(format!(
        "no AzureIdentityBinding names it, and of its service account {name} nothing counts: {why}"
    ))
}

/// What would make the service account's identity count.
pub(super) fn remedies(found: &Found, view: &PodView) -> Vec<Remedy> {
    let name = of_pod(&view.facts);
    let annotate = |what: String| Remedy {
        what,
        how: format!(
            "kubectl -n {} annotate --overwrite serviceaccount {} {CLIENT_ID_ANNOTATION}=00000000-0000-0000-0000-000000000000   # the identity's client id in Azure",
            name.namespace, name.name
        ),
    };
    let asked = is_asked_for(&view.facts);
    let ask = || Remedy {
        what: format!("let the pod ask for the identity of its service account {name}"),
        how: label(view, USE_LABEL, "true"),
    };
    match account(found, view) {
        Account::Broken(problem) => vec![annotate(format!(
            "correct the annotations of service account {name}: {problem}"
        ))],
        Account::Ignored(_) if asked => vec![Remedy {
            what: "an operator lets the agents look at service accounts".to_owned(),
            how: format!(
                "# for the release of the chart\nhelm upgrade RELEASE CHART --reuse-values --set {CHART_VALUE}=true"
            ),
        }],
        Account::Plain if asked => vec![annotate(format!(
            "let service account {name} name an identity, as for Azure Workload Identity"
        ))],
        Account::Counts(_) if !asked => vec![ask()],
        _ => Vec::new(),
    }
}
