//! One identity of a plan: what becomes of its entry, and whether it is added or removed. In: the
//! entry as it was, what Azure shows, what is known of the identity. Out: a step. Pure.
//!
//! Holds invariant 8: only an entry that is owned and not immutable is ever removed; an identity that
//! is set aside is left out and stops no other.

use std::sync::Arc;
use std::time::Duration;

use super::Situation;
use crate::api::assignment::AssignmentState;
use crate::controller::known::{Existence, Setback, Shown};
use crate::controller::record::Entry;
use crate::model::ids::{ArmId, Guid};

/// Azure has no identity of that id.
pub const IDENTITY_NOT_FOUND: &str = "IdentityNotFound";
/// The identity was deleted and created again: the compute resource has the one that is gone.
pub const IDENTITY_RECREATED: &str = "IdentityRecreated";
/// Somebody else took the identity off the compute resource.
pub const DRIFT: &str = "Drift";

/// What is done about one identity.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Its entry from now on; `None`: it has none.
    pub entry: Option<Entry>,
    /// It is added.
    pub add: bool,
    /// It is removed.
    pub remove: bool,
    /// When to look at it again.
    pub again: Option<Duration>,
}

/// A state with what is to be said about it.
struct Standing {
    state: AssignmentState,
    reason: Option<Arc<str>>,
    message: Option<Arc<str>>,
}

impl Standing {
    const fn plain(state: AssignmentState) -> Self {
        Self {
            state,
            reason: None,
            message: None,
        }
    }

    fn because(state: AssignmentState, reason: &str, message: String) -> Self {
        Self {
            state,
            reason: Some(reason.into()),
            message: Some(message.into()),
        }
    }

    fn set_aside(state: AssignmentState, setback: &Setback) -> Self {
        Self {
            state,
            reason: Some(setback.reason.clone()),
            message: Some(setback.message.clone()),
        }
    }
}

/// An identity that pods may use.
pub(super) fn wanted(
    id: &ArmId,
    before: Option<&Entry>,
    shown: &Shown,
    situation: &Situation<'_>,
) -> Step {
    let missing = situation.existence.get(id) == Some(&Existence::Missing);
    let is_shown = shown.identities.contains_key(id);
    let owned = before.is_some_and(|entry| entry.owned);
    let entry = |owned: bool, standing: Standing| Entry {
        remove_after: None,
        ..entry(id, before, shown, situation, owned, standing)
    };
    if missing {
        let standing = Standing::because(
            AssignmentState::Failed,
            IDENTITY_NOT_FOUND,
            format!(
                "Azure has no identity {id}: create it, or correct spec.resourceID of the AzureIdentity"
            ),
        );
        return Step {
            entry: Some(entry(owned, standing)),
            ..Step::default()
        };
    }
    let recreated = recreated(id, shown, situation);
    let old = recreated.filter(|principals| !is_settled(*principals, before));
    if is_shown && old.is_none() {
        // Words about a principal that is known too late stay until it is known better.
        let words = recreated.map(|principals| anew(AssignmentState::Assigned, principals));
        let standing = words.unwrap_or(Standing::plain(AssignmentState::Assigned));
        return Step {
            entry: Some(entry(owned, standing)),
            ..Step::default()
        };
    }
    if is_shown && (!owned || is_immutable(id, before, situation)) {
        return Step {
            entry: Some(entry(owned, foreign_recreated(id))),
            ..Step::default()
        };
    }
    if let Some(setback) = setback(id, situation) {
        let standing = Standing::set_aside(AssignmentState::Failed, setback);
        // Azure refused it: what is put there from now on, by hand, is not ours.
        return Step {
            entry: Some(entry(owned && is_shown, standing)),
            again: Some(setback.until),
            ..Step::default()
        };
    }
    let standing = match old {
        Some(principals) => anew(AssignmentState::Pending, principals),
        None => pending(before),
    };
    Step {
        entry: Some(entry(true, standing)),
        add: !is_shown,
        remove: is_shown,
        again: None,
    }
}

/// An identity of the record that no pod may use any more.
pub(super) fn unwanted(
    id: &ArmId,
    before: &Entry,
    shown: &Shown,
    situation: &Situation<'_>,
) -> Step {
    if !before.owned {
        return Step::default();
    }
    let is_shown = shown.identities.contains_key(id);
    let now = situation.now;
    let end = now + situation.grace;
    // A shorter grace time counts at once, a longer one for what is not wanted from now on.
    let end = before.remove_after.map_or(end, |set| set.min(end));
    let entry = |standing: Standing, remove_after: Option<Duration>| {
        Some(Entry {
            remove_after,
            ..entry(id, Some(before), shown, situation, true, standing)
        })
    };
    if !is_shown {
        // An intent whose PATCH may be on its way still: were its entry dropped, what then comes
        // would never be removed.
        let unsure = match before.state {
            AssignmentState::Pending => true,
            AssignmentState::Removing => before.remove_after.is_some() && end > now,
            AssignmentState::Assigned | AssignmentState::Failed => false,
        };
        if !unsure || end <= now {
            return Step::default();
        }
        return Step {
            entry: entry(Standing::plain(AssignmentState::Removing), Some(end)),
            again: Some(end),
            ..Step::default()
        };
    }
    if is_immutable(id, Some(before), situation) {
        return Step {
            entry: entry(Standing::plain(AssignmentState::Assigned), None),
            ..Step::default()
        };
    }
    if end > now {
        return Step {
            entry: entry(Standing::plain(AssignmentState::Assigned), Some(end)),
            again: Some(end),
            ..Step::default()
        };
    }
    if let Some(setback) = setback(id, situation) {
        let standing = Standing::set_aside(AssignmentState::Removing, setback);
        return Step {
            entry: entry(standing, Some(end)),
            again: Some(setback.until),
            ..Step::default()
        };
    }
    Step {
        entry: entry(Standing::plain(AssignmentState::Removing), Some(end)),
        remove: true,
        ..Step::default()
    }
}

/// The entry with what everything says about the identity itself.
fn entry(
    id: &ArmId,
    before: Option<&Entry>,
    shown: &Shown,
    situation: &Situation<'_>,
    owned: bool,
    standing: Standing,
) -> Entry {
    let since = before
        .filter(|before| before.state == standing.state)
        .map_or(situation.now, |before| before.since);
    let principal_id = match shown.identities.get(id) {
        Some(principal) => principal.or_else(|| before.and_then(|before| before.principal_id)),
        None => None,
    };
    let client_id = match situation.existence.get(id) {
        Some(Existence::Exists { client_id, .. }) => *client_id,
        _ => None,
    };
    Entry {
        owned,
        immutable: is_immutable(id, before, situation),
        remove_after: None,
        state: standing.state,
        since,
        client_id: client_id.or_else(|| before.and_then(|before| before.client_id)),
        principal_id,
        reason: standing.reason,
        message: standing.message,
    }
}

/// On its way: with the reason why it must go there a second time.
fn pending(before: Option<&Entry>) -> Standing {
    match before {
        Some(before) if before.state == AssignmentState::Assigned => Standing::because(
            AssignmentState::Pending,
            DRIFT,
            "somebody took the identity off the compute resource: it is assigned again".to_owned(),
        ),
        // Whatever it waits for, it waits for the same still.
        Some(before) if before.state == AssignmentState::Pending => Standing {
            state: AssignmentState::Pending,
            reason: before.reason.clone(),
            message: before.message.clone(),
        },
        _ => Standing::plain(AssignmentState::Pending),
    }
}

fn foreign_recreated(id: &ArmId) -> Standing {
    Standing::because(
        AssignmentState::Failed,
        IDENTITY_RECREATED,
        format!(
            "the identity was deleted and created again, and the compute resource has the one that is gone; Lanyard does not remove it, because it is immutable or was not added by Lanyard: take it off (`az vmss identity remove` or `az vm identity remove` with `--identities {id}`), then the new one is assigned"
        ),
    )
}

/// Two principals of one name.
#[derive(Clone, Copy)]
struct Principals {
    /// What the identity has, as it was heard last.
    identity: Guid,
    /// What the compute resource has.
    compute: Guid,
}

/// Another principal than the compute resource's is the identity's: one of the two is out of date.
fn recreated(id: &ArmId, shown: &Shown, situation: &Situation<'_>) -> Option<Principals> {
    let Existence::Exists { principal_id, .. } = situation.existence.get(id)? else {
        return None;
    };
    let principals = Principals {
        identity: (*principal_id)?,
        compute: shown.identities.get(id).copied().flatten()?,
    };
    (principals.identity != principals.compute).then_some(principals)
}

/// Whether the compute resource's principal is the newer one: it was assigned after what is known of
/// the identity, by somebody else or because of just that knowledge. Assigning it again and again
/// until the identity itself is asked again would help nobody.
fn is_settled(principals: Principals, before: Option<&Entry>) -> bool {
    let Some(before) = before else { return false };
    let words = anew(before.state, principals);
    let told = before.reason == words.reason && before.message == words.message;
    match before.principal_id {
        Some(principal) if principal == principals.compute => {
            told && before.state == AssignmentState::Assigned
        }
        Some(principal) => told || principal == principals.identity,
        None => told,
    }
}

fn anew(state: AssignmentState, principals: Principals) -> Standing {
    let principal = principals.identity;
    Standing::because(
        state,
        IDENTITY_RECREATED,
        format!(
            "the identity was deleted and created again (principal {principal}): it is assigned anew"
        ),
    )
}

/// What the record remembers counts until an `AzureIdentity` says otherwise.
fn is_immutable(id: &ArmId, before: Option<&Entry>, situation: &Situation<'_>) -> bool {
    let remembered = before.is_some_and(|before| before.immutable);
    situation.immutable.contains(id) || (remembered && !situation.mutable.contains(id))
}

fn setback<'a>(id: &ArmId, situation: &'a Situation<'_>) -> Option<&'a Setback> {
    let setback = situation.setbacks.get(id);
    setback.filter(|setback| setback.until > situation.now)
}
