//! The way of an identity that is to be: owner, finalizer, creation, federated credentials. Pure.

use std::time::Duration;

use super::federated::{self, Change, Wanted, Work};
use super::known::OwnerSeen;
use super::naming;
use super::step::{Action, Facts, Next};
use super::words::{self, Words};
use crate::api::managed::{ManagedIdentity, Owner};
use crate::model::ids::ArmId;

/// An owner that is not there is looked for again after this long: it is usually created with the identity.
const OWNER_AGAIN: Duration = Duration::from_secs(10);
/// What is somebody else's is looked at again after this long: its tag may be corrected.
const FOREIGN_AGAIN: Duration = Duration::from_mins(10);

/// Whom it trusts is read again once in so many times that the identity itself is.
const CREDENTIALS: u32 = 6;

/// The next step towards an identity that is as its object says.
pub(super) fn next(facts: Facts<'_>, spec: &ManagedIdentity, id: &ArmId) -> Next {
    let Facts {
        claim,
        known,
        settings,
        now,
        ..
    } = facts;
    if !claim.admitted {
        return facts.rest(words::not_allowed(&spec.resource_group));
    }
    if let Some(setback) = facts.setback() {
        return facts.rest(words::setback(setback)).again(setback.until);
    }
    if let Some(waiting) = owner(facts, spec.owner.as_ref()) {
        return waiting;
    }
    if !claim.held {
        return facts.act(Action::Hold, words::creating());
    }
    let fresh = known.identity.as_ref();
    let fresh = fresh.filter(|(at, _)| *at + settings.refresh > now);
    let Some((at, shown)) = fresh else {
        return facts.act(Action::Read(id.clone()), telling(facts));
    };
    let Some(shown) = shown else {
        let create = Action::Create(id.clone(), spec.location.clone(), facts.tag());
        return facts.act(create, words::creating());
    };
    if shown.tag.as_deref() != Some(&*facts.tag()) {
        let later = now.max(*at) + FOREIGN_AGAIN;
        return facts
            .rest(words::not_ours(id, &facts.tag()))
            .again(later.min(*at + settings.refresh));
    }
    credentials(facts, id).again(*at + settings.refresh)
}

/// What stands between the identity and its owner; `None`: nothing.
fn owner(facts: Facts<'_>, owner: Option<&Owner>) -> Option<Next> {
    let Facts {
        claim, known, now, ..
    } = facts;
    let Some(owner) = owner else {
        // References that others made stay; ours, from a time when the spec named an owner, goes.
        let settled = claim.owners.is_empty() || known.owned_by == Some(None);
        return (!settled).then(|| facts.act(Action::WriteOwner(None), words::creating()));
    };
    let workloads = ["Deployment", "StatefulSet"];
    if owner.api_version != "apps/v1" || !workloads.contains(&owner.kind.as_str()) {
        return Some(facts.rest(words::unsupported_owner(owner)));
    }
    let look = || facts.act(Action::LookForOwner(owner.clone()), words::creating());
    match &known.owner {
        OwnerSeen::Unknown => Some(look()),
        OwnerSeen::There(uid) if claim.owners.contains(uid) => None,
        OwnerSeen::There(uid) => {
            let write = Action::WriteOwner(Some((owner.clone(), uid.clone())));
            Some(facts.act(write, words::creating()))
        }
        OwnerSeen::Missing(at) | OwnerSeen::Replaced(at) if *at + OWNER_AGAIN <= now => {
            Some(look())
        }
        OwnerSeen::Missing(at) => {
            let waiting = facts.rest(words::no_owner(owner));
            Some(waiting.again(*at + OWNER_AGAIN))
        }
        OwnerSeen::Replaced(at) => {
            let waiting = facts.rest(words::replaced_owner(owner));
            Some(waiting.again(*at + OWNER_AGAIN))
        }
    }
}

/// What is to be said while what Azure said is read again: the same as before, if all was well.
fn telling(facts: Facts<'_>) -> Words {
    match &facts.known.identity {
        Some((_, Some(shown))) if shown.tag.as_deref() == Some(&*facts.tag()) => words::created(0),
        _ => words::creating(),
    }
}

fn credentials(facts: Facts<'_>, id: &ArmId) -> Next {
    let Facts {
        claim,
        known,
        settings,
        now,
        ..
    } = facts;
    let Some((at, shown)) = &known.federated else {
        return facts.act(Action::ReadCredentials(id.clone()), words::created(0));
    };
    if claim.federated && *at + settings.refresh * CREDENTIALS <= now {
        return facts.act(
            Action::ReadCredentials(id.clone()),
            words::created(claim.accounts.len()),
        );
    }
    let nobody = std::collections::BTreeSet::new();
    let accounts = if claim.federated {
        &claim.accounts
    } else {
        &nobody
    };
    let Some(issuer) = &settings.issuer else {
        return facts.rest(if accounts.is_empty() {
            words::created(0)
        } else {
            words::no_issuer()
        });
    };
    let wanted = Wanted {
        issuer,
        accounts,
        unwanted: &known.unwanted,
        grace: settings.grace,
    };
    let work = federated::work(wanted, shown, now);
    let words = said(&work, accounts.len());
    match work.change {
        Some(Change::Put(credential)) => {
            facts.act(Action::PutCredential(id.clone(), credential), words)
        }
        Some(Change::Delete(name)) => facts.act(Action::DeleteCredential(id.clone(), name), words),
        None => {
            let rest = facts.rest(words);
            work.again.map_or(rest.clone(), |at| rest.again(at))
        }
    }
}

fn said(work: &Work, accounts: usize) -> Words {
    match &work.change {
        _ if !work.left_out.is_empty() => words::limit(&work.left_out),
        Some(Change::Put(credential)) => {
            let account = naming::account(&credential.subject);
            words::federating(account.map(|account| account.to_string()))
        }
        _ => words::created(accounts),
    }
}
