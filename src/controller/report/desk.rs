//! Which statuses are to be written now, and as what. Pure: drafts, what the server has, and times in;
//! patches out.
//!
//! Each object is written at most once in ten seconds, and the last state always gets there. What the
//! agents work with (the ids, and for which generation they count) waits for a second only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::draft::{Draft, Drafts};
use crate::api::kind::Kind;
use crate::model::ids::ObjectName;

/// From one write of an object to the next.
const PACE: Duration = Duration::from_secs(10);
/// The same where agents wait.
const URGENT: Duration = Duration::from_secs(1);
/// What agents work with.
const IDS: [&str; 5] = [
    "observedGeneration",
    "clientID",
    "tenantID",
    "principalID",
    "resourceID",
];

/// Which object.
pub(super) type Key = (Kind, ObjectName);

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub key: Key,
    /// A merge patch of the status; it fails where the object is another one by now.
    pub patch: Value,
}

/// What the server has of each object, and when it was written last.
#[derive(Debug, Default)]
pub(super) struct Desk {
    slots: HashMap<Key, Slot>,
}

#[derive(Debug)]
struct Slot {
    uid: Arc<str>,
    status: Value,
    written: Option<Instant>,
}

impl Desk {
    /// The server was read.
    pub(super) fn found(&mut self, key: Key, uid: &str, status: Value) {
        let slot = self
            .slots
            .entry(key)
            .or_insert_with(|| Slot::new(uid.into()));
        slot.uid = uid.into();
        slot.status = status;
    }

    /// What is to be written now, and when to look again where something has to wait.
    pub(super) fn due(
        &mut self,
        drafts: &Drafts,
        now: Instant,
        wall: Timestamp,
    ) -> (Vec<Write>, Option<Instant>) {
        self.slots.retain(|key, _| drafts.contains_key(key));
        let (mut writes, mut again) = (Vec::new(), None::<Instant>);
        for (key, draft) in drafts {
            let slot = self.slots.entry(key.clone());
            let slot = slot.or_insert_with(|| Slot::new(draft.uid.clone()));
            if slot.uid != draft.uid {
                *slot = Slot::new(draft.uid.clone());
            }
            let wanted = wanted(draft, &slot.status, wall);
            if wanted == slot.status {
                continue;
            }
            let is_urgent = IDS.iter().any(|id| wanted.get(id) != slot.status.get(id));
            let pause = if is_urgent { URGENT } else { PACE };
            let due = slot.written.map_or(now, |written| written + pause);
            if due > now {
                again = Some(again.map_or(due, |again| again.min(due)));
                continue;
            }
            slot.written = Some(now);
            again = Some(again.map_or(now + PACE, |again| again.min(now + PACE)));
            writes.push(Write {
                key: key.clone(),
                patch: patch(&draft.uid, &slot.status, &wanted),
            });
        }
        (writes, again)
    }

    /// A write is done: what the server has now.
    pub(super) fn written(&mut self, key: &Key, status: Value) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.status = status;
        }
    }
}

impl Slot {
    const fn new(uid: Arc<str>) -> Self {
        Self {
            uid,
            status: Value::Null,
            written: None,
        }
    }
}

/// The whole status: the condition keeps the time at which it came to be what it is.
fn wanted(draft: &Draft, before: &Value, wall: Timestamp) -> Value {
    let verdict = &draft.verdict;
    let holds = if verdict.holds { "True" } else { "False" };
    let conditions = before["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let same = conditions.find(|one| one["type"] == draft.condition && one["status"] == holds);
    let since = same.map(|one| one["lastTransitionTime"].clone());
    let since = since.filter(Value::is_string);
    let condition = json!({
        "type": draft.condition,
        "status": holds,
        "observedGeneration": draft.generation,
        "reason": verdict.reason,
        "message": verdict.message,
        "lastTransitionTime": since.unwrap_or_else(|| json!(Time(wall))),
    });
    let mut status = draft.fields.clone();
    status.insert("conditions".to_owned(), json!([condition]));
    Value::Object(status)
}

fn patch(uid: &str, before: &Value, wanted: &Value) -> Value {
    let mut status = Map::new();
    // A merge keeps what is not named.
    let gone = before.as_object().into_iter().flat_map(Map::keys);
    for key in gone.filter(|key| wanted.get(key).is_none()) {
        status.insert(key.clone(), Value::Null);
    }
    for (key, value) in wanted.as_object().into_iter().flatten() {
        if before.get(key) != Some(value) {
            status.insert(key.clone(), value.clone());
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn drafts(generation: i64, verdict: Verdict, nodes: i32) -> Drafts {
        let name = ObjectName::new("shop", "payments");
        let fields = json!({"observedGeneration": generation, "assignedNodes": nodes});
        let draft = Draft {
            kind: Kind::Identities,
            name: name.clone(),
            uid: "uid".into(),
            generation,
            fields: fields.as_object().unwrap().clone(),
            condition: "Ready",
            verdict,
        };
        [((Kind::Identities, name), draft)].into()
    }

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    /// As the API server takes it.
    fn merged(status: &Value, patch: &Value) -> Value {
        let mut status = status.as_object().cloned().unwrap_or_default();
        for (key, value) in patch["status"].as_object().unwrap() {
            if value.is_null() {
                status.remove(key);
            } else {
                status.insert(key.clone(), value.clone());
            }
        }
        Value::Object(status)
    }

    fn one(writes: (Vec<Write>, Option<Instant>)) -> Write {
        let [write] = <[Write; 1]>::try_from(writes.0).unwrap();
        write
    }

    #[test]
    fn an_object_is_written_once_in_ten_seconds_and_its_last_state_gets_there() {
        let (mut desk, start) = (Desk::default(), Instant::now());
        let pending = || Verdict::no("Pending", "on its way");
        let write = one(desk.due(&drafts(1, pending(), 0), start, wall(0)));
        assert_eq!(write.patch["metadata"]["uid"], "uid");
        let status = merged(&Value::Null, &write.patch);
        desk.written(&write.key, status.clone());
        for second in 1..10 {
            let nodes = i32::try_from(second).unwrap();
            let (writes, again) =
                desk.due(&drafts(1, pending(), nodes), start + S(second), wall(1));
            assert_eq!((writes.len(), again), (0, Some(start + S(10))));
        }
        let assigned = drafts(1, Verdict::yes("Assigned", "there"), 12);
        let write = one(desk.due(&assigned, start + S(10), wall(10)));
        let after = merged(&status, &write.patch);
        assert_eq!(after["assignedNodes"], 12);
        let condition = |status: &Value, field: &str| status["conditions"][0][field].clone();
        assert_eq!(condition(&after, "status"), "True");
        assert_ne!(
            condition(&after, "lastTransitionTime"),
            condition(&status, "lastTransitionTime")
        );
        desk.written(&write.key, after);
        assert_eq!(desk.due(&assigned, start + S(60), wall(60)), (vec![], None));
    }

    #[test]
    fn what_agents_wait_for_waits_a_second_only() {
        let (mut desk, start) = (Desk::default(), Instant::now());
        let pending = || Verdict::no("Pending", "on its way");
        let write = one(desk.due(&drafts(1, pending(), 0), start, wall(0)));
        desk.written(&write.key, merged(&Value::Null, &write.patch));
        let newer = drafts(2, pending(), 0);
        assert_eq!(
            desk.due(&newer, start + S(0), wall(0)).1,
            Some(start + S(1))
        );
        let write = one(desk.due(&newer, start + S(1), wall(1)));
        assert_eq!(write.patch["status"]["observedGeneration"], 2);
    }

    #[test]
    fn what_the_server_has_already_is_not_written_and_what_is_gone_is_taken_out() {
        let (mut desk, start) = (Desk::default(), Instant::now());
        let drafts = drafts(1, Verdict::no("Pending", "on its way"), 0);
        let status = json!({"observedGeneration": 1, "assignedNodes": 0, "clientID": "c", "conditions": [{
            "type": "Ready", "status": "False", "observedGeneration": 1, "reason": "Pending",
            "message": "on its way", "lastTransitionTime": "2026-09-21T10:00:00Z"}]});
        let key = drafts.keys().next().unwrap();
        desk.found(key.clone(), "uid", status.clone());
        let write = one(desk.due(&drafts, start, wall(0)));
        assert_eq!(write.patch["status"], json!({"clientID": null}));
        desk.written(key, merged(&status, &write.patch));
        assert_eq!(desk.due(&drafts, start + S(20), wall(20)).0, []);
    }

    #[test]
    fn a_write_that_failed_is_tried_again_and_another_object_begins_anew() {
        let (mut desk, start) = (Desk::default(), Instant::now());
        let mut drafts = drafts(1, Verdict::no("Pending", "on its way"), 0);
        let first = desk.due(&drafts, start, wall(0));
        assert_eq!(first.1, Some(start + S(10)), "should it fail");
        one(desk.due(&drafts, start + S(10), wall(10)));
        drafts.values_mut().next().unwrap().uid = "another".into();
        let write = one(desk.due(&drafts, start + S(10), wall(10)));
        assert_eq!(write.patch["metadata"]["uid"], "another");
    }
}
