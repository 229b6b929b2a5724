//! Record ⇄ `AzureAssignment`. Pure. Times are written in whole seconds.
//!
//! In: a record and what troubles it. Out: the object's spec (intent, ownership) and its status (what
//! became of it, counts, the condition `Synced`); and back. Holds that a record that is written and
//! read again owns what it owned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Kept;
use crate::api::Malformed;
use crate::api::assignment::{
    AssignedIdentity, AssignmentState, AzureAssignment, AzureAssignmentSpec, AzureAssignmentStatus,
    IntendedIdentity,
};
use crate::controller::board::Told;
use crate::controller::record::{Entry, Record};
use crate::model::compute::Compute;
use crate::model::ids::ArmId;

/// The condition's type.
const SYNCED: &str = "Synced";
/// More failed identities are counted, not named.
const NAMED: usize = 3;
/// Characters of a condition's message, and of one identity's (the schema's limits are far above).
const LONGEST: usize = 2048;
/// Characters of all identities' messages together: etcd takes no object of more than 1.5 MiB.
const ALL_MESSAGES: usize = 128 * 1024;

/// What is wanted, and what of it is ours.
#[must_use]
pub fn spec(compute: &Compute, record: &Record) -> AzureAssignmentSpec {
    let intended = |(id, entry): (&ArmId, &Entry)| IntendedIdentity {
        resource_id: id.to_string(),
        owned: entry.owned,
        immutable: entry.immutable,
        remove_after: entry.remove_after.map(time),
    };
    AzureAssignmentSpec {
        compute_id: compute.id.to_string(),
        identities: record.entries.iter().map(intended).collect(),
    }
}

/// How far it is. `before`: the status until now, for the condition's time; `generation`: of the spec
/// that this is about.
#[must_use]
pub fn status(
    told: &Told,
    before: Option<&AzureAssignmentStatus>,
    generation: Option<i64>,
    now: Duration,
) -> AzureAssignmentStatus {
    let entries = &told.record.entries;
    let count = |state| {
        let entries = entries.values().filter(|entry| entry.state == state);
        i32::try_from(entries.count()).ok()
    };
    let messages = entries.values().filter(|entry| entry.message.is_some());
    let most = ALL_MESSAGES / messages.count().max(1);
    let one = |(id, entry)| assigned(id, entry, most.min(LONGEST));
    AzureAssignmentStatus {
        observed_generation: generation,
        identities: entries.iter().map(one).collect(),
        assigned: count(AssignmentState::Assigned),
        pending: count(AssignmentState::Pending),
        failed: count(AssignmentState::Failed),
        removing: count(AssignmentState::Removing),
        conditions: vec![condition(told, before, generation, now)],
    }
}

/// What an object says.
pub fn record(object: &AzureAssignment) -> Result<Kept, Malformed> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    object.facts(name)?;
    let id = &object.spec.compute_id;
    let compute: Compute = id
        .parse()
        .map_err(|error| Malformed::at("spec.computeID", format!("{error}")))?;
    let reported = object.status.iter().flat_map(|status| &status.identities);
    let reported: BTreeMap<ArmId, &AssignedIdentity> = reported
        .filter_map(|one| Some((one.resource_id.parse().ok()?, one)))
        .collect();
    let entries = object.spec.identities.iter().filter_map(|intended| {
        let id: ArmId = intended.resource_id.parse().ok()?;
        let entry = entry(intended, reported.get(&id).copied());
        Some((id, entry))
    });
    Ok(Kept {
        compute: Arc::new(compute),
        record: Record {
            entries: entries.collect(),
        },
    })
}

fn assigned(id: &ArmId, entry: &Entry, most: usize) -> AssignedIdentity {
    let shortened = |text: &str| text.chars().take(most).collect();
    AssignedIdentity {
        resource_id: id.to_string(),
        client_id: entry.client_id.map(|id| id.to_string()),
        principal_id: entry.principal_id.map(|id| id.to_string()),
        state: entry.state,
        since: time(entry.since),
        reason: entry.reason.as_deref().map(str::to_owned),
        message: entry.message.as_deref().map(shortened),
    }
}

fn entry(intended: &IntendedIdentity, reported: Option<&AssignedIdentity>) -> Entry {
    Entry {
        owned: intended.owned,
        immutable: intended.immutable,
        remove_after: intended.remove_after.as_ref().map(since_epoch),
        // Written in the spec and not in the status: the intent was all that came about.
        state: reported.map_or(AssignmentState::Pending, |one| one.state),
        since: reported.map_or(Duration::ZERO, |one| since_epoch(&one.since)),
        client_id: reported.and_then(|one| one.client_id.as_ref()?.parse().ok()),
        principal_id: reported.and_then(|one| one.principal_id.as_ref()?.parse().ok()),
        reason: reported.and_then(|one| Some(one.reason.as_deref()?.into())),
        message: reported.and_then(|one| Some(one.message.as_deref()?.into())),
    }
}

fn condition(
    told: &Told,
    before: Option<&AzureAssignmentStatus>,
    generation: Option<i64>,
    now: Duration,
) -> Condition {
    let (status, reason, message) = judged(told);
    let earlier = before.and_then(|before| {
        let mut conditions = before.conditions.iter();
        conditions.find(|condition| condition.type_ == SYNCED)
    });
    let since = match earlier {
        Some(earlier) if earlier.status == status => earlier.last_transition_time.clone(),
        _ => time(now),
    };
    Condition {
        type_: SYNCED.to_owned(),
        status: status.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
        reason,
        message,
    }
}

fn judged(told: &Told) -> (&'static str, String, String) {
    if let Some(trouble) = &told.trouble {
        return (
            "False",
            trouble.reason.to_string(),
            shortened(&trouble.message),
        );
    }
    let in_state = |states: &[AssignmentState]| -> Vec<(&ArmId, &Entry)> {
        let entries = told.record.entries.iter();
        entries
            .filter(|(_, entry)| states.contains(&entry.state))
            .collect()
    };
    let failed = in_state(&[AssignmentState::Failed]);
    if !failed.is_empty() {
        return ("False", "IdentitiesFailed".to_owned(), failures(&failed));
    }
    let moving = in_state(&[AssignmentState::Pending, AssignmentState::Removing]);
    if !moving.is_empty() {
        let words = format!("{} identities are being changed", moving.len());
        return ("False", "InProgress".to_owned(), words);
    }
    let words = "Azure has what is wanted here".to_owned();
    ("True", "Synced".to_owned(), words)
}

fn failures(failed: &[(&ArmId, &Entry)]) -> String {
    let named = failed.iter().take(NAMED).map(|(id, entry)| {
        let words = entry.message.as_deref().or(entry.reason.as_deref());
        format!("{id}: {}", words.unwrap_or("failed"))
    });
    let mut text = named.collect::<Vec<_>>().join("; ");
    if failed.len() > NAMED {
        text = format!("{text}; and {} more", failed.len() - NAMED);
    }
    shortened(&text)
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// An instant as it is written, in whole seconds.
fn time(since_epoch: Duration) -> Time {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    Time(jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX))
}

fn since_epoch(time: &Time) -> Duration {
    Duration::from_secs(u64::try_from(time.0.as_second()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
