//! What a record says is what is read back, and the condition says what keeps it from being in order.

use super::*;
use crate::controller::board::Trouble;

const GROUP: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/g";

fn compute() -> Arc<Compute> {
    let id = format!("{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/Pool1");
    Arc::new(id.parse().unwrap())
}

fn id(name: &str) -> ArmId {
    let id = format!("{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}");
    id.parse().unwrap()
}

fn entry(state: AssignmentState) -> Entry {
    Entry {
        owned: true,
        immutable: false,
        remove_after: None,
        state,
        since: Duration::from_hours(500_000),
        client_id: Some("0a1b2c3d-0000-4000-8000-00000000abcd".parse().unwrap()),
        principal_id: None,
        reason: None,
        message: None,
    }
}

fn told(entries: Vec<(ArmId, Entry)>, trouble: Option<Trouble>) -> Told {
    Told {
        compute: compute(),
        record: Arc::new(Record {
            entries: entries.into_iter().collect(),
        }),
        trouble,
    }
}

fn object(told: &Told) -> AzureAssignment {
    let name = told.compute.assignment_name();
    let mut object = AzureAssignment::new(&name, spec(&told.compute, &told.record));
    object.status = Some(status(told, None, Some(3), Duration::from_secs(9)));
    object
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    let mut leaving = entry(AssignmentState::Assigned);
    leaving.remove_after = Some(Duration::from_mins(30_000_015));
    let mut kept = entry(AssignmentState::Failed);
    (kept.owned, kept.immutable) = (false, true);
    (kept.reason, kept.message) = (Some("Why".into()), Some("in words".into()));
    let told = told(vec![(id("a"), leaving), (id("B"), kept)], None);
    let back = record(&object(&told)).unwrap();
    assert_eq!(
        (&back.compute, &back.record),
        (&told.compute, &*told.record)
    );
}

#[test]
fn an_intent_without_status_is_pending_and_stays_owned() {
    let told = told(vec![(id("a"), entry(AssignmentState::Assigned))], None);
    let mut object = object(&told);
    object.status = None;
    let back = record(&object).unwrap().record;
    assert_eq!(back.entries[&id("a")].state, AssignmentState::Pending);
    assert!(back.entries[&id("a")].owned);
}

#[test]
fn an_object_of_another_name_is_not_believed() {
    let mut object = object(&told(Vec::new(), None));
    object.metadata.name = Some("vmss-pool1-00000000".to_owned());
    assert!(record(&object).is_err());
}

#[test]
fn the_condition_says_what_keeps_it_from_being_in_order() {
    use AssignmentState::{Assigned, Failed, Pending};
    let says = |told: &Told| {
        let condition = status(told, None, Some(3), Duration::from_secs(9))
            .conditions
            .remove(0);
        assert_eq!(condition.observed_generation, Some(3));
        (condition.status, condition.reason, condition.message)
    };
    let all = |states: &[AssignmentState]| {
        let entries = states.iter().enumerate();
        told(
            entries
                .map(|(at, state)| (id(&format!("i{at}")), entry(*state)))
                .collect(),
            None,
        )
    };
    assert_eq!(says(&all(&[Assigned])).0, "True");
    assert_eq!(says(&all(&[Assigned, Pending])).1, "InProgress");
    let (_, reason, message) = says(&all(&[Assigned, Failed, Failed, Failed, Failed]));
    assert_eq!(reason, "IdentitiesFailed");
    assert!(message.ends_with("and 1 more"), "{message}");
    let trouble = Trouble {
        reason: "Throttled".into(),
        message: "Azure asks to wait".into(),
        until: None,
    };
    let (status, reason, message) = says(&told(Vec::new(), Some(trouble)));
    assert_eq!(
        (&*status, &*reason, &*message),
        ("False", "Throttled", "Azure asks to wait")
    );
}

#[test]
fn a_conditions_time_changes_with_its_status_only() {
    let pending = told(vec![(id("a"), entry(AssignmentState::Pending))], None);
    let failed = told(vec![(id("a"), entry(AssignmentState::Failed))], None);
    let done = told(vec![(id("a"), entry(AssignmentState::Assigned))], None);
    let at = |told: &Told, before: &AzureAssignmentStatus, now| {
        status(told, Some(before), None, Duration::from_secs(now))
    };
    let since = |status: &AzureAssignmentStatus| status.conditions[0].last_transition_time.0;
    let first = status(&pending, None, None, Duration::from_secs(100));
    let second = at(&failed, &first, 200);
    assert_eq!(since(&second).as_second(), 100);
    assert_eq!(since(&at(&done, &second, 300)).as_second(), 300);
}
