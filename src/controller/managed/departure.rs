//! The way of an identity that is to go: off all compute resources, its federated credentials, the
//! identity itself, and only then the finalizer. Pure.
//!
//! No policy is asked here: what carries our own tag may always be removed, since a policy that went away
//! would otherwise leave objects that nobody can delete, and identities that nobody removes.

use std::time::Duration;

use super::federated::Credential;
use super::step::{Action, Facts, Next};
use super::{claim::Mode, words};
use crate::api::managed::{DeletionPolicy, ManagedIdentity};
use crate::model::ids::ArmId;

/// How long to wait until no compute resource has it any more. Then it goes all the same: one that is
/// stuck must not keep it for ever.
pub const UNASSIGN: Duration = Duration::from_mins(2);
/// What Azure said must not be older than this for something to be deleted by it.
const FRESH: Duration = Duration::from_mins(1);

/// The next step away.
pub(super) fn next(facts: Facts<'_>, spec: &ManagedIdentity, id: &ArmId) -> Next {
    let Facts {
        claim, known, now, ..
    } = facts;
    // Who asks for the removal of all does not overrule who said that this one stays.
    let retained = facts.mode == Mode::Retain || spec.deletion_policy == DeletionPolicy::Retain;
    if retained {
        let told = words::retained(id);
        return facts.act(Action::Release(Some(told.message.as_str().into())), told);
    }
    if let Some(until) = known.unsure.filter(|until| *until > now) {
        return facts.rest(words::leaving()).again(until);
    }
    let fresh = known.identity.as_ref().filter(|(at, _)| {
        let since_leaving = known.leaving.is_some_and(|since| *at >= since);
        since_leaving && *at + FRESH > now
    });
    let Some((_, shown)) = fresh else {
        return facts.act(Action::Read(id.clone()), words::leaving());
    };
    let Some(shown) = shown else {
        return facts.act(Action::Release(None), words::leaving());
    };
    if shown.tag.as_deref() != Some(&*facts.tag()) {
        let told = words::left_alone(id);
        return facts.act(Action::Release(Some(told.message.as_str().into())), told);
    }
    let unassigned_by = known.leaving.unwrap_or(now) + UNASSIGN;
    if !claim.assigned.is_empty() && now < unassigned_by {
        let waiting = facts.rest(words::assigned(&claim.assigned));
        return waiting.again(unassigned_by).leaving(id);
    }
    if let Some(action) = credentials(facts, id) {
        return facts.act(action, words::leaving()).leaving(id);
    }
    let delete = facts.act(Action::Delete(id.clone()), words::leaving());
    delete.leaving(id)
}

/// The credentials go first: nobody is to get tokens while the removal hangs. Those of others go with
/// the identity.
fn credentials(facts: Facts<'_>, id: &ArmId) -> Option<Action> {
    if !facts.claim.federated {
        return None;
    }
    let Some((_, shown)) = &facts.known.federated else {
        return Some(Action::ReadCredentials(id.clone()));
    };
    let issuer = facts.settings.issuer.as_deref()?;
    let ours = |credential: &&Credential| credential.is_ours(issuer);
    let name = shown.iter().find(ours)?.name.clone();
    Some(Action::DeleteCredential(id.clone(), name))
}
