//! What happened since the last look, as Events on the object concerned. Pure: records and nodes in,
//! reports out.
//!
//! What happened before this process looked for the first time is not told again: a state says since
//! when it is. One Event tells of all compute resources that came in one look. Pods are told by their
//! node's agent when they ask: an identity has many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::api::API_VERSION;
use crate::api::assignment::AssignmentState;
use crate::api::kind::Kind;
use crate::controller::board::Told;
use crate::controller::plan::identity::IDENTITY_RECREATED;
use crate::controller::record::{Entry, Record};
use crate::controller::world::World;
use crate::kubernetes::event::{Regarding, Report, ending_of};
use crate::model::compute::{Compute, NoCompute};
use crate::model::ids::ArmId;

/// A cloud controller needs a while to say what a new node is.
const NODE_IS_NEW: Duration = Duration::from_mins(2);
/// More names than this are counted.
const NAMED: usize = 3;

/// What was seen at the last look.
#[derive(Debug)]
pub(super) struct Happenings {
    began: Duration,
    computes: BTreeMap<ArmId, Told>,
    /// Nodes that are no compute resource, by UID: since when; told or not.
    strangers: HashMap<Arc<str>, (Duration, bool)>,
    /// Troubles that were told, by compute resource.
    troubles: BTreeMap<ArmId, Arc<str>>,
}

/// What happened to an identity somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Assigned,
    Failed,
    Recreated,
    Removed,
}

/// Where, and why.
struct Case<'a> {
    compute: &'a Compute,
    entry: &'a Entry,
}

type Cases<'a> = BTreeMap<(&'a ArmId, What), Vec<Case<'a>>>;

impl Happenings {
    /// Begins now: time since the epoch.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            began: now,
            computes: BTreeMap::new(),
            strangers: HashMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// What happened since the last look.
    pub(super) fn look(
        &mut self,
        world: &World,
        computes: &BTreeMap<ArmId, Told>,
        now: Duration,
    ) -> Vec<Report> {
        let mut cases = Cases::new();
        let empty = Record::default();
        for (id, told) in computes {
            let before = self.computes.get(id).map(|told| &told.record);
            if before.is_some_and(|before| Arc::ptr_eq(before, &told.record)) {
                continue;
            }
            let before = before.map_or(&empty, |before| before);
            self.compare(&told.compute, before, &told.record, &mut cases);
        }
        for (id, told) in &self.computes {
            if !computes.contains_key(id) {
                self.compare(&told.compute, &told.record, &empty, &mut cases);
            }
        }
        let mut reports = of_identities(&cases, world);
        self.computes = computes.clone();
        reports.extend(self.of_computes(world, now));
        reports.extend(self.of_nodes(world, now));
        reports
    }

    fn compare<'a>(
        &self,
        compute: &'a Compute,
        before: &'a Record,
        after: &'a Record,
        cases: &mut Cases<'a>,
    ) {
        let mut put = |id: &'a ArmId, what, entry| {
            cases
                .entry((id, what))
                .or_default()
                .push(Case { compute, entry });
        };
        for (id, entry) in &after.entries {
            let was = before.entries.get(id);
            let is_same =
                was.is_some_and(|was| was.state == entry.state && was.reason == entry.reason);
            if is_same || entry.since < self.began {
                continue;
            }
            match entry.state {
                _ if entry.reason.as_deref() == Some(IDENTITY_RECREATED) => {
                    put(id, What::Recreated, entry);
                }
                AssignmentState::Assigned => put(id, What::Assigned, entry),
                AssignmentState::Failed => put(id, What::Failed, entry),
                AssignmentState::Pending | AssignmentState::Removing => {}
            }
        }
        for (id, was) in &before.entries {
            let on_its_way = was.state == AssignmentState::Removing;
            if on_its_way && !after.entries.contains_key(id) {
                put(id, What::Removed, was);
            }
        }
    }

    /// What keeps compute resources from being in order.
    fn of_computes(&mut self, world: &World, now: Duration) -> Vec<Report> {
        let computes = &self.computes;
        let troubled = |id: &ArmId| computes.get(id).is_some_and(|told| told.trouble.is_some());
        self.troubles.retain(|id, _| troubled(id));
        let mut reports = Vec::new();
        for (id, told) in computes {
            let Some(trouble) = &told.trouble else {
                continue;
            };
            if self.troubles.get(id) == Some(&trouble.reason) {
                continue;
            }
            let name = told.compute.assignment_name();
            let object = world.assignments.get(&*name);
            let Some(uid) = object.and_then(|object| object.metadata.uid.as_deref()) else {
                continue;
            };
            self.troubles.insert(id.clone(), trouble.reason.clone());
            reports.push(Report {
                regarding: Regarding {
                    api_version: API_VERSION,
                    kind: Kind::Assignments.singular(),
                    namespace: "".into(),
                    name: name.into(),
                    uid: uid.into(),
                },
                is_warning: true,
                reason: trouble.reason.to_string(),
                action: "Reconcile",
                note: trouble.message.to_string(),
                ending: ending_of((uid, &trouble.reason, now.as_secs() / 60)),
            });
        }
        reports
    }

    /// Nodes to which nothing can be assigned: each once.
    fn of_nodes(&mut self, world: &World, now: Duration) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut seen = HashMap::new();
        for (name, node) in &world.nodes {
            let Err(NoCompute(said)) = &node.compute else {
                continue;
            };
            let before = self.strangers.get(&node.uid).copied();
            let (since, mut told) = before.unwrap_or((now, false));
            if !told && now >= since + NODE_IS_NEW {
                told = true;
                reports.push(Report {
                    regarding: Regarding {
                        api_version: "v1",
                        kind: Kind::Nodes.singular(),
                        namespace: "".into(),
                        name: name.clone(),
                        uid: node.uid.clone(),
                    },
                    is_warning: true,
                    reason: "NotInAzure".to_owned(),
                    action: "Assign",
                    note: node_note(said),
                    ending: ending_of((&node.uid, said)),
                });
            }
            seen.insert(node.uid.clone(), (since, told));
        }
        self.strangers = seen;
        reports
    }
}

fn node_note(said: &str) -> String {
    let what = if said.is_empty() {
        "spec.providerID is empty".to_owned()
    } else {
        format!("spec.providerID {said} names no virtual machine or scale set of Azure")
    };
    format!(
        "{what}: Lanyard can assign no identity here, and pods get tokens of federated and servicePrincipal sources only"
    )
}

fn of_identities(cases: &Cases<'_>, world: &World) -> Vec<Report> {
    if cases.is_empty() {
        return Vec::new();
    }
    let mut reports = Vec::new();
    for (name, seen) in &world.identities {
        let stated = seen
            .said
            .as_ref()
            .ok()
            .and_then(|of| of.resource_id.clone());
        let status = seen.status.as_ref().and_then(|of| of.resource_id.as_ref());
        let told = || status.and_then(|id| id.parse::<ArmId>().ok());
        let Some(id) = stated.or_else(told) else {
            continue;
        };
        for what in [What::Assigned, What::Failed, What::Recreated, What::Removed] {
            let Some(cases) = cases.get(&(&id, what)) else {
                continue;
            };
            let (reason, note) = words(what, cases);
            let when = cases.iter().map(|case| case.entry.since).max();
            reports.push(Report {
                regarding: Regarding {
                    api_version: API_VERSION,
                    kind: Kind::Identities.singular(),
                    namespace: name.namespace.clone(),
                    name: name.name.clone(),
                    uid: seen.meta.uid.clone(),
                },
                is_warning: matches!(what, What::Failed | What::Recreated),
                reason: reason.to_owned(),
                action: if what == What::Removed {
                    "Remove"
                } else {
                    "Assign"
                },
                ending: ending_of((&seen.meta.uid, reason, &note, when)),
                note,
            });
        }
    }
    reports
}

fn words(what: What, cases: &[Case<'_>]) -> (&'static str, String) {
    let computes = cases.iter().take(NAMED);
    let computes: Vec<String> = computes
        .map(|case| case.compute.assignment_name())
        .collect();
    let mut names = computes.join(", ");
    if cases.len() > NAMED {
        names = format!("{names} and {} more", cases.len() - NAMED);
    }
    let why = cases.first().and_then(|case| {
        let entry = case.entry;
        entry.message.as_deref().or(entry.reason.as_deref())
    });
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    match what {
        What::Assigned => ("Assigned", format!("assigned to {names}")),
        What::Failed => ("AssignmentFailed", format!("not assigned to {names}{why}")),
        What::Recreated => (IDENTITY_RECREATED, format!("on {names}{why}")),
        What::Removed => ("Removed", format!("taken off {names}")),
    }
}
