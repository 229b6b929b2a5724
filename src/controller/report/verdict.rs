//! Whether pods can get an identity's tokens, as far as the controller knows, and if not what to do:
//! the most basic hindrance is told, since the others cannot be mended before it. Pure.

use super::Verdict;
use super::identity::Case;
use super::ids::found;
use super::standing::{of_azure, standing};
use crate::controller::desire::Refusal;
use crate::controller::known::Existence;
use crate::controller::managed::ManagedOutcome;
use crate::controller::record::Entry;
use crate::model::ids::Guid;
use crate::model::managed::is_others;

/// More names than this are counted.
const NAMED: usize = 3;

pub(super) fn verdict(case: &Case<'_>) -> Verdict {
    managed(case)
        .or_else(|| refused(case))
        .or_else(|| of_azure(case))
        .or_else(|| missing(case))
        .or_else(|| mismatch(case))
        .or_else(|| other_tenant(case))
        .or_else(|| unknown(case))
        .or_else(|| failed(case))
        .or_else(|| pending(case))
        .or_else(|| stranded(case))
        .unwrap_or_else(|| in_order(case))
}

/// An identity that Lanyard is to create, or to remove.
fn managed(case: &Case<'_>) -> Option<Verdict> {
    case.stated.managed.as_ref()?;
    let generation = case.seen.meta.generation;
    let outcome = case.outcome.filter(|one| one.generation == generation);
    // Until it has looked, a new worker says that of each, also of those that have been there for long.
    let looked = |one: &&ManagedOutcome| {
        one.ready || one.existence != Existence::Unknown || &*one.reason != "Creating"
    };
    match outcome.filter(looked) {
        None => match standing(case) {
            Some(before) => (!before.holds).then_some(before),
            None => Some(Verdict::no(
                "Creating",
                "Lanyard has not looked at this identity in Azure yet",
            )),
        },
        Some(outcome) if !outcome.ready => {
            Some(Verdict::no(&outcome.reason, outcome.message.to_string()))
        }
        Some(_) => None,
    }
}

fn refused(case: &Case<'_>) -> Option<Verdict> {
    let refusal = case.used.refusal.as_ref()?;
    let message = match refusal {
        Refusal::NotByImds => return None,
        Refusal::NoPolicy if is_of_another(case) => {
            "Lanyard made this identity for another AzureIdentity: only that one may use it, unless an operator lists its whole ARM id under a policy's resourceIDPrefixes".to_owned()
        }
        Refusal::NoPolicy => format!(
            "no AzureIdentityPolicy admits this identity for namespace {}: an operator writes one whose namespaces match and whose resourceIDPrefixes (or clientIDs) cover it",
            case.name.namespace
        ),
        Refusal::Deleting => {
            "this object is being deleted: the identity is taken off the nodes".to_owned()
        }
        Refusal::NoResourceId => format!(
            "{refusal}; `az identity list --query \"[?clientId=='{}'].id\"` tells it",
            case.ids
                .client
                .map_or_else(|| "...".to_owned(), |id| id.to_string())
        ),
        Refusal::NoIdentity | Refusal::Malformed(_) | Refusal::NoPrefix | Refusal::NotCreated => {
            refusal.to_string()
        }
    };
    Some(Verdict::no(refusal.reason(), message))
}

fn is_of_another(case: &Case<'_>) -> bool {
    let id = case.ids.resource.as_ref();
    id.is_some_and(|id| is_others(id, &case.seen.meta.uid))
}

fn missing(case: &Case<'_>) -> Option<Verdict> {
    let id = case.ids.resource.as_ref()?;
    (case.ids.existence == Existence::Missing).then(|| {
        Verdict::no(
            "IdentityNotFound",
            format!("Azure has no identity {id}: create it, or correct spec.resourceID"),
        )
    })
}

/// What the spec states and Azure says otherwise.
fn mismatch(case: &Case<'_>) -> Option<Verdict> {
    let [client, principal, tenant] = found(&case.ids.existence);
    let stated = case.stated;
    let differs = |stated: Option<Guid>, found: Option<Guid>| {
        let (stated, found) = stated.zip(found)?;
        (stated != found).then_some((stated, found))
    };
    let told = |reason: &str, field: &str, (stated, found): (Guid, Guid)| {
        let message = format!(
            "spec.{field} is {stated}, but Azure says {found} for spec.resourceID: correct one of them, or leave {field} out"
        );
        Verdict::no(reason, message)
    };
    differs(stated.client_id, client)
        .map(|ids| told("ClientIDMismatch", "clientID", ids))
        .or_else(|| {
            differs(stated.tenant_id, tenant).map(|ids| told("TenantMismatch", "tenantID", ids))
        })
        .or_else(|| {
            differs(stated.object_id, principal)
                .map(|ids| told("ObjectIDMismatch", "objectID", ids))
        })
}

/// Policies limit tenants, and only now it is known which one the identity is of.
fn other_tenant(case: &Case<'_>) -> Option<Verdict> {
    let [_, _, tenant] = found(&case.ids.existence);
    let (tenant, id) = tenant.zip(case.ids.resource.as_ref())?;
    let world = case.facts.world;
    let labels = world.namespaces.get(&case.name.namespace)?;
    let scopes: Vec<_> = world
        .policies
        .values()
        .filter_map(|policy| policy.said.as_ref().ok())
        .filter(|policy| policy.namespaces.matches(labels))
        .map(|policy| &policy.scope)
        .filter(|scope| {
            scope
                .resource_id_prefixes
                .iter()
                .any(|prefix| id.is_under(prefix))
        })
        .collect();
    let takes = |tenants: &[Guid]| tenants.is_empty() || tenants.contains(&tenant);
    let refused = !scopes.is_empty() && !scopes.iter().any(|scope| takes(&scope.tenant_ids));
    refused.then(|| {
        Verdict::no(
            "TenantMismatch",
            format!(
                "the identity is of tenant {tenant}, which no AzureIdentityPolicy for namespace {} lists under tenantIDs",
                case.name.namespace
            ),
        )
    })
}

/// Without its client id no agent can ask for its tokens.
fn unknown(case: &Case<'_>) -> Option<Verdict> {
    if case.ids.client.is_some() {
        return None;
    }
    let id = case.ids.resource.as_ref();
    let trouble = id.and_then(|id| case.facts.board.trouble(id));
    Some(trouble.map_or_else(
        || Verdict::no("Pending", "its client id is being looked up in Azure"),
        |trouble| {
            let message = format!("its client id could not be looked up: {}", trouble.message);
            Verdict::no(&trouble.reason, message)
        },
    ))
}

fn failed(case: &Case<'_>) -> Option<Verdict> {
    let (told, entry) = case.reach.failed.first()?;
    let more = match case.reach.failed.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    let message = format!(
        "{}: {}: {}{more}",
        case.reach.words(),
        told.compute.assignment_name(),
        words(entry).unwrap_or("see the AzureAssignment"),
    );
    let reason = entry.reason.as_deref().unwrap_or("Failed");
    Some(Verdict::no(reason, message))
}

fn pending(case: &Case<'_>) -> Option<Verdict> {
    let reach = &case.reach;
    if reach.assigned >= reach.wanted {
        return None;
    }
    // What was said of the identity itself comes before what keeps all of a compute resource.
    let mut about = reach.pending.iter().filter_map(|(told, entry)| {
        let entry = entry.as_ref()?;
        Some((told, entry.reason.as_deref()?, words(entry)?))
    });
    let mut troubled = reach.pending.iter().filter_map(|(told, _)| {
        let trouble = told.trouble.as_ref()?;
        Some((told, &*trouble.reason, &*trouble.message))
    });
    let words = reach.words();
    let Some((told, reason, why)) = about.next().or_else(|| troubled.next()) else {
        return Some(Verdict::no(
            "Pending",
            format!("{words}: Azure is asked for the rest"),
        ));
    };
    let compute = told.compute.assignment_name();
    Some(Verdict::no(reason, format!("{words}: {compute}: {why}")))
}

/// All pods that want it are on nodes to which nothing can be assigned.
fn stranded(case: &Case<'_>) -> Option<Verdict> {
    let used = &case.used;
    let placed: usize = used.computes.values().sum();
    if used.refusal.is_some() || used.pods <= placed {
        return None;
    }
    let strangers = &case.index.strangers;
    let mut names: Vec<&str> = strangers.iter().take(NAMED).map(|name| &***name).collect();
    let more = format!("{} more", strangers.len().saturating_sub(NAMED));
    if strangers.len() > NAMED {
        names.push(&more);
    }
    Some(Verdict::no(
        "NodeNotInAzure",
        format!(
            "{} of {} pods that may use it are on nodes whose spec.providerID names no virtual machine or scale set of Azure ({}): nothing can be assigned there; the token source `federated` needs no assignment",
            used.pods - placed,
            used.pods,
            names.join(", ")
        ),
    ))
}

fn in_order(case: &Case<'_>) -> Verdict {
    match case.used.refusal {
        Some(Refusal::NotByImds) => {
            return Verdict::yes(
                "NothingToAssign",
                "its token sources need no assignment in Azure",
            );
        }
        _ if case.reach.wanted == 0 => {
            return Verdict::yes(
                "Unused",
                "no running pod may use it (bindings say which may): it is assigned when one does",
            );
        }
        _ => {}
    }
    Verdict::yes("Assigned", case.reach.words())
}

fn words(entry: &Entry) -> Option<&str> {
    entry.message.as_deref().or(entry.reason.as_deref())
}
