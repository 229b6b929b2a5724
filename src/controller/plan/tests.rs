//! Single situations with their plan, and what holds for all of them.

use proptest::prelude::*;

use super::identity::{DRIFT, IDENTITY_NOT_FOUND, IDENTITY_RECREATED};
use super::*;
use crate::api::assignment::AssignmentState;
use crate::controller::desired::Want;
use crate::controller::record::Entry;
use crate::model::ids::Guid;

mod leaving;
mod properties;
mod recreated;

const GRACE: Duration = Duration::from_mins(15);

pub(super) fn id(name: &str) -> ArmId {
    let text = format!(
        "/subscriptions/s/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    );
    text.parse().unwrap()
}

pub(super) fn guid(n: u64) -> Guid {
    format!("00000000-0000-4000-8000-{n:012x}").parse().unwrap()
}

fn second(second: u64) -> Duration {
    Duration::from_secs(second)
}

/// Everything that a situation lends.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub desire: ComputeDesire,
    pub immutable: BTreeSet<ArmId>,
    pub mutable: BTreeSet<ArmId>,
    pub record: Record,
    pub shown: Option<Shown>,
    pub existence: BTreeMap<ArmId, Existence>,
    pub setbacks: BTreeMap<ArmId, Setback>,
    pub grace: Duration,
    pub now: Duration,
}

impl Scene {
    /// Nothing is wanted, nothing is there, second 1000.
    pub fn empty() -> Self {
        let compute = "/subscriptions/s/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool1";
        Self {
            desire: ComputeDesire {
                compute: std::sync::Arc::new(compute.parse().unwrap()),
                nodes: 1,
                wanted: BTreeMap::new(),
            },
            immutable: BTreeSet::new(),
            mutable: BTreeSet::new(),
            record: Record::default(),
            shown: Some(Shown {
                at: second(999),
                identities: BTreeMap::new(),
            }),
            existence: BTreeMap::new(),
            setbacks: BTreeMap::new(),
            grace: GRACE,
            now: second(1000),
        }
    }

    fn wants(mut self, name: &str) -> Self {
        self.desire.wanted.insert(id(name), Want::default());
        self
    }

    fn wants_not(mut self, name: &str) -> Self {
        self.desire.wanted.remove(&id(name));
        self
    }

    fn has(mut self, name: &str, principal: Option<u64>) -> Self {
        let shown = self.shown.as_mut().unwrap();
        shown.identities.insert(id(name), principal.map(guid));
        self
    }

    fn has_not(mut self, name: &str) -> Self {
        self.shown.as_mut().unwrap().identities.remove(&id(name));
        self
    }

    fn recorded(mut self, name: &str, owned: bool, state: AssignmentState) -> Self {
        let entry = Entry {
            owned,
            immutable: false,
            remove_after: None,
            state,
            since: second(500),
            client_id: None,
            principal_id: None,
            reason: None,
            message: None,
        };
        self.record.entries.insert(id(name), entry);
        self
    }

    fn exists(mut self, name: &str, principal: u64) -> Self {
        let existence = Existence::Exists {
            client_id: Some(guid(principal + 100)),
            principal_id: Some(guid(principal)),
            tenant_id: None,
        };
        self.existence.insert(id(name), existence);
        self
    }

    fn missing(mut self, name: &str) -> Self {
        self.existence.insert(id(name), Existence::Missing);
        self
    }

    fn set_aside(mut self, name: &str, until: u64) -> Self {
        let setback = Setback {
            failures: 1,
            until: second(until),
            reason: "LinkedAuthorizationFailed".into(),
            message: "make a role assignment".into(),
        };
        self.setbacks.insert(id(name), setback);
        self
    }

    fn at(mut self, now: u64) -> Self {
        self.now = second(now);
        self
    }

    pub fn plan(&self) -> Plan {
        plan(&Situation {
            desire: &self.desire,
            immutable: &self.immutable,
            mutable: &self.mutable,
            record: &self.record,
            shown: self.shown.as_ref(),
            existence: &self.existence,
            setbacks: &self.setbacks,
            grace: self.grace,
            now: self.now,
        })
    }

    /// Writes the plan down and lets Azure do what it asks; the plan.
    pub fn step(&mut self) -> Plan {
        let plan = self.plan();
        self.record = plan.record.clone();
        if let (Some(patch), Some(shown)) = (&plan.patch, &mut self.shown) {
            for id in &patch.remove {
                shown.identities.remove(id);
            }
            for id in &patch.add {
                let principal = match self.existence.get(id) {
                    Some(Existence::Exists { principal_id, .. }) => *principal_id,
                    _ => None,
                };
                shown.identities.insert(id.clone(), principal);
            }
        }
        plan
    }
}

impl Plan {
    fn of(&self, name: &str) -> &Entry {
        &self.record.entries[&id(name)]
    }

    fn added(&self) -> Vec<ArmId> {
        let patch = self.patch.iter();
        patch.flat_map(|patch| patch.add.iter().cloned()).collect()
    }

    fn removed(&self) -> Vec<ArmId> {
        let patch = self.patch.iter();
        patch
            .flat_map(|patch| patch.remove.iter().cloned())
            .collect()
    }
}

use AssignmentState::{Assigned, Failed, Pending, Removing};

#[test]
fn nothing_is_decided_before_azure_was_read_and_nothing_is_read_for_nothing() {
    let mut scene = Scene::empty().wants("a").recorded("b", true, Assigned);
    scene.shown = None;
    let plan = scene.plan();
    assert!(plan.read && plan.patch.is_none());
    assert_eq!(plan.record, scene.record);
    let mut idle = Scene::empty();
    idle.shown = None;
    assert_eq!(idle.plan(), Plan::default());
}

#[test]
fn all_that_is_wanted_and_not_there_goes_into_one_patch_after_the_intent() {
    let scene = Scene::empty().wants("a").wants("b").exists("b", 7);
    let plan = scene.plan();
    assert_eq!(plan.added(), [id("a"), id("b")]);
    assert!(plan.of("a").owned && plan.of("a").state == Pending);
    assert_eq!(plan.of("b").client_id, Some(guid(107)));
    assert_eq!(plan.of("a").since, second(1000));
}

#[test]
fn what_was_there_before_lanyard_is_used_and_never_removed() {
    let mut scene = Scene::empty().wants("a").has("a", Some(1));
    let plan = scene.step();
    assert_eq!((plan.of("a").owned, plan.of("a").state), (false, Assigned));
    assert!(plan.patch.is_none());
    let mut scene = scene.wants_not("a");
    assert_eq!(scene.step(), Plan::default(), "forgotten, not removed");
    assert_eq!(scene.at(100_000).plan(), Plan::default());
}

#[test]
fn a_crash_between_patch_and_status_loses_no_ownership() {
    let scene = Scene::empty()
        .wants("a")
        .has("a", Some(1))
        .recorded("a", true, Pending);
    let plan = scene.plan();
    assert!(plan.patch.is_none());
    assert_eq!((plan.of("a").owned, plan.of("a").state), (true, Assigned));
    assert_eq!(plan.of("a").principal_id, Some(guid(1)));
}

/// Nobody wants it any more at the moment of the crash, and Azure does not show it yet.
#[test]
fn an_intent_whose_patch_may_be_on_its_way_is_remembered() {
    let mut scene = Scene::empty().recorded("a", true, Pending);
    let plan = scene.step();
    assert_eq!(plan.of("a").state, Removing);
    assert_eq!(plan.again, Some(second(1900)));
    assert_eq!(scene.step().record, plan.record, "stays");
    let mut late = scene.clone().has("a", Some(1));
    let plan = late.step();
    assert_eq!((plan.of("a").owned, plan.of("a").state), (true, Assigned));
    assert_eq!(late.at(1900).plan().removed(), [id("a")]);
    assert_eq!(scene.at(1900).plan(), Plan::default(), "it never came");
}

#[test]
fn one_that_does_not_exist_fails_alone() {
    let scene = Scene::empty().wants("a").wants("b").missing("a");
    let plan = scene.plan();
    assert_eq!(plan.added(), [id("b")]);
    let entry = plan.of("a");
    assert_eq!(
        (entry.state, entry.reason.as_deref()),
        (Failed, Some(IDENTITY_NOT_FOUND))
    );
    assert!(!entry.owned, "nothing was asked of Azure");
    assert_eq!(scene.exists("a", 1).plan().added(), [id("a"), id("b")]);
}

#[test]
fn one_that_is_set_aside_waits_and_the_others_go_on() {
    let mut scene = Scene::empty().wants("a").wants("b").set_aside("a", 1060);
    let plan = scene.step();
    assert_eq!(plan.added(), [id("b")]);
    assert_eq!(
        plan.of("a").reason.as_deref(),
        Some("LinkedAuthorizationFailed")
    );
    assert_eq!(plan.of("a").state, Failed);
    assert_eq!(plan.again, Some(second(1060)));
    let scene = scene.at(1060);
    assert_eq!(scene.plan().added(), [id("a")]);
    let there = scene.at(1001).has("a", None);
    assert_eq!(there.plan().of("a").state, Assigned, "it came all the same");
}

/// aad-pod-identity's drift reconcile and its immutable list told upper from lower case.
#[test]
fn the_case_of_an_id_makes_no_difference() {
    let upper: ArmId = id("a")
        .as_written()
        .to_ascii_uppercase()
        .replace("/SUBSCRIPTIONS", "/subscriptions")
        .parse()
        .unwrap();
    let mut scene = Scene::empty().wants("a").recorded("a", true, Assigned);
    scene
        .shown
        .as_mut()
        .unwrap()
        .identities
        .insert(upper.clone(), None);
    assert!(scene.plan().patch.is_none());
    scene.immutable.insert(upper);
    let plan = scene.wants_not("a").at(100_000).plan();
    assert!(plan.patch.is_none() && plan.of("a").immutable);
}

#[test]
fn a_record_holds_so_many_and_forgets_none_of_them_for_a_new_one() {
    let mut scene = Scene::empty();
    for n in 0..RECORD_LIMIT {
        scene = scene.recorded(&format!("z{n:04}"), true, Assigned);
        scene = scene.has(&format!("z{n:04}"), None);
    }
    let plan = scene.clone().wants("a").plan();
    assert_eq!(plan.record.entries.len(), RECORD_LIMIT);
    assert!(plan.left_out.contains(&id("a")) && plan.patch.is_none());
    let free = scene.wants("a").has_not("z0500").plan();
    assert!(free.left_out.is_empty());
    assert_eq!(free.added(), [id("a")]);
}

#[test]
fn identities_that_do_not_exist_keep_no_other_off() {
    let mut scene = Scene::empty().wants("real");
    for n in 0..RECORD_LIMIT {
        let name = format!("a{n:04}");
        scene = scene.wants(&name);
        scene = if n % 2 == 0 {
            scene.missing(&name)
        } else {
            scene.set_aside(&name, 2000)
        };
    }
    let plan = scene.clone().plan();
    assert_eq!((plan.added(), plan.left_out.len()), (vec![id("real")], 1));
    assert_eq!(plan.record.entries.len(), RECORD_LIMIT);
    // Also where they came first.
    scene.record = scene.clone().wants_not("real").plan().record;
    assert_eq!(scene.record.entries.len(), RECORD_LIMIT);
    assert_eq!(scene.plan().added(), [id("real")]);
}

#[test]
fn chunks_hold_everything_once_and_remove_first() {
    let mut patch = Patch::default();
    for n in 0..200 {
        patch.add.insert(id(&format!("a{n:03}")));
        patch.remove.insert(id(&format!("r{n:03}")));
    }
    let chunks = patch.chunks(150);
    let sizes: Vec<_> = chunks
        .iter()
        .map(|c| (c.remove.len(), c.add.len()))
        .collect();
    assert_eq!(sizes, [(150, 0), (50, 100), (0, 100)]);
    let mut whole = Patch::default();
    for chunk in chunks {
        whole.add.extend(chunk.add);
        whole.remove.extend(chunk.remove);
    }
    assert_eq!(whole, patch);
    assert!(Patch::default().chunks(150).is_empty());
}
