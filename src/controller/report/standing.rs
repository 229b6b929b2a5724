//! What a condition said before this term of leadership began. Pure.
//!
//! A new leader knows nothing of identities until Azure has answered, which takes minutes where many are
//! asked about. Until then what Azure said last stands: a condition that flapped with each leader would
//! wake people for nothing.

use super::Verdict;
use super::identity::Case;
use crate::azure::arm::ArmErrorKind;
use crate::controller::known::Existence;

/// Reasons of the report's own that come from what Azure said.
const FROM_AZURE: [&str; 4] = [
    "IdentityNotFound",
    "ClientIDMismatch",
    "ObjectIDMismatch",
    "TenantMismatch",
];

/// The condition as it stands, where it is about this generation of the spec.
pub(super) fn standing(case: &Case<'_>) -> Option<Verdict> {
    let status = case.seen.status.as_deref()?;
    if status.observed_generation != Some(case.seen.meta.generation) {
        return None;
    }
    let mut conditions = status.conditions.iter();
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    Some(match &*ready.status {
        "True" => Verdict::yes(&ready.reason, &*ready.message),
        _ => Verdict::no(&ready.reason, &*ready.message),
    })
}

/// What Azure said of the identity before, where nobody has heard of it since and somebody will.
pub(super) fn of_azure(case: &Case<'_>) -> Option<Verdict> {
    let id = case.ids.resource.as_ref()?;
    let will_be_heard_of = case.facts.ledger.named().contains(id);
    if case.ids.existence != Existence::Unknown || !will_be_heard_of {
        return None;
    }
    // A call that failed tells why it did, not what is the matter with the identity.
    let failed = case.facts.board.trouble(id).is_some();
    let is_azures = |reason: &str| {
        let mut errors = ArmErrorKind::ALL.iter();
        FROM_AZURE.contains(&reason) || !failed && errors.any(|kind| kind.reason() == reason)
    };
    standing(case).filter(|verdict| !verdict.holds && is_azures(&verdict.reason))
}
