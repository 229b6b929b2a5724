//! Statuses as they should be: one draft for each object of ours that the report speaks of. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::facts::{Facts, Index};
use super::{binding, identity, policy};
use crate::api::kind::Kind;
use crate::controller::board::Board;
use crate::controller::desire::Ledger;
use crate::controller::world::{Meta, World};
use crate::model::ids::ObjectName;

/// Longest message of a condition, in bytes; Kubernetes takes more, people do not.
const MAX_MESSAGE: usize = 2048;

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is true.
    pub holds: bool,
    /// One word.
    pub reason: String,
    /// A sentence that says what to do, where something is to be done.
    pub message: String,
}

impl Verdict {
    pub(super) fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self::new(true, reason, message.into())
    }

    pub(super) fn no(reason: &str, message: impl Into<String>) -> Self {
        Self::new(false, reason, message.into())
    }

    fn new(holds: bool, reason: &str, mut message: String) -> Self {
        // What is no word comes from Azure: a condition with such a reason would be refused.
        let mut word: String = reason.chars().filter(char::is_ascii_alphanumeric).collect();
        word.truncate(128);
        if !word.starts_with(|first: char| first.is_ascii_alphabetic()) {
            word.insert_str(0, "Azure");
        }
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE - 3));
            message.push_str("...");
        }
        Self {
            holds,
            reason: word,
            message,
        }
    }
}

/// A status as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The object's kind.
    pub kind: Kind,
    /// Its namespace (empty for cluster kinds) and name.
    pub name: ObjectName,
    /// Its UID: another object of the same name has another status.
    pub uid: Arc<str>,
    /// The generation of its spec that this is about.
    pub generation: i64,
    /// The status without conditions.
    pub fields: Map<String, Value>,
    /// Type of its one condition.
    pub condition: &'static str,
    /// What the condition says.
    pub verdict: Verdict,
}

/// All drafts, by kind and name.
pub type Drafts = BTreeMap<(Kind, ObjectName), Draft>;

/// The statuses as they should be. Time grows with the number of our objects, not with that of pods.
#[must_use]
pub fn drafts(world: &World, ledger: &Ledger, board: &Board) -> Drafts {
    let (computes, existences) = (board.computes(), board.existences());
    let facts = &Facts {
        world,
        ledger,
        board,
        computes: &computes,
        existences: &existences,
    };
    let index = Index::new(facts);
    let mut all = Drafts::new();
    let mut verdicts: BTreeMap<&ObjectName, Verdict> = BTreeMap::new();
    for (name, seen) in &world.identities {
        let (status, verdict) = identity::report(name, seen, facts, &index);
        verdicts.insert(name, verdict.clone());
        put(
            &mut all,
            Kind::Identities,
            name,
            &seen.meta,
            &status,
            verdict,
        );
    }
    for (name, seen) in &world.bindings {
        let (status, verdict) = binding::report(name, seen, facts, &verdicts);
        put(&mut all, Kind::Bindings, name, &seen.meta, &status, verdict);
    }
    for (name, seen) in &world.policies {
        let (name, verdict) = (
            ObjectName::new("", name.clone()),
            policy::policy(seen, world),
        );
        put(&mut all, Kind::Policies, &name, &seen.meta, &(), verdict);
    }
    for (name, seen) in &world.exceptions {
        let verdict = policy::exception(seen, world);
        let name = ObjectName::new("", name.clone());
        put(&mut all, Kind::Exceptions, &name, &seen.meta, &(), verdict);
    }
    all
}

fn put(
    all: &mut Drafts,
    kind: Kind,
    name: &ObjectName,
    meta: &Meta,
    status: &impl Serialize,
    verdict: Verdict,
) {
    let mut fields = match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    fields.insert("observedGeneration".to_owned(), meta.generation.into());
    let condition = match kind {
        Kind::Policies | Kind::Exceptions => "Accepted",
        _ => "Ready",
    };
    let draft = Draft {
        kind,
        name: name.clone(),
        uid: meta.uid.clone(),
        generation: meta.generation,
        fields,
        condition,
        verdict,
    };
    all.insert((kind, name.clone()), draft);
}
