//! Apply against an Azure that takes its time, refuses, throttles and forgets. Time is paused.

mod azure;
mod failures;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::{Applier, ApplyMetrics, Paces, Rates, Surroundings, Wanted};
use crate::api::assignment::AssignmentState;
use crate::controller::board::{Board, Trouble};
use crate::controller::config::Pace;
use crate::controller::desired::{ComputeDesire, Want};
use crate::controller::known::Existence;
use crate::controller::records::Records;
use crate::controller::records::memory::MemoryRecords;
use crate::model::compute::Compute;
use crate::model::ids::ArmId;
use azure::{FakeArm, FakeLease};

const GROUP: &str = "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/g";
const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_mins(15);

/// The clock of the paused time.
fn now() -> Duration {
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    let since = Instant::now().into_std().saturating_duration_since(*START);
    Duration::from_hours(500_000) + since
}

fn compute(name: &str) -> Arc<Compute> {
    let id = format!("{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/{name}");
    Arc::new(id.parse().unwrap())
}

fn id(name: impl std::fmt::Display) -> ArmId {
    let id = format!("{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}");
    id.parse().unwrap()
}

fn ids(names: impl IntoIterator<Item = usize>) -> BTreeSet<ArmId> {
    names.into_iter().map(|n| id(format!("i{n:03}"))).collect()
}

fn wants(compute: &Arc<Compute>, identities: impl IntoIterator<Item = ArmId>) -> Wanted {
    let identities = identities.into_iter();
    Wanted {
        desire: ComputeDesire {
            compute: compute.clone(),
            nodes: 1,
            wanted: identities.map(|id| (id, Want::default())).collect(),
        },
        immutable: BTreeSet::new(),
        mutable: BTreeSet::new(),
        revisions: BTreeMap::new(),
    }
}

/// A controller's apply, and all around it.
struct Rig {
    arm: FakeArm,
    records: MemoryRecords,
    lease: FakeLease,
    board: Arc<Board>,
    paces: Arc<Paces>,
    applier: Applier<FakeArm, MemoryRecords, FakeLease>,
    doubted: mpsc::Receiver<ArmId>,
    pool: Arc<Compute>,
}

fn applier(
    arm: &FakeArm,
    records: &MemoryRecords,
    lease: &FakeLease,
    board: &Arc<Board>,
    paces: &Arc<Paces>,
) -> (
    Applier<FakeArm, MemoryRecords, FakeLease>,
    mpsc::Receiver<ArmId>,
) {
    let (doubts, doubted) = mpsc::channel(64);
    let applier = Applier::new(Surroundings {
        arm: arm.clone(),
        records: records.clone(),
        lease: lease.clone(),
        paces: paces.clone(),
        board: board.clone(),
        doubts,
        metrics: Arc::new(ApplyMetrics::register(&Registry::new()).unwrap()),
        now,
        pace: Pace {
            debounce: Duration::from_millis(500),
            removal_grace: GRACE,
            drift_interval: Duration::from_mins(5),
            operation_timeout: Duration::from_mins(20),
        },
    });
    (applier, doubted)
}

impl Rig {
    fn new() -> Self {
        now();
        let (arm, records, lease) = (
            FakeArm::default(),
            MemoryRecords::default(),
            FakeLease::default(),
        );
        let (board, paces) = (Arc::default(), Arc::new(Paces::new(Rates::default())));
        let pool = compute("pool");
        arm.with(|azure| {
            azure.machine(&pool);
        });
        let (applier, doubted) = applier(&arm, &records, &lease, &board, &paces);
        Self {
            arm,
            records,
            lease,
            board,
            paces,
            applier,
            doubted,
            pool,
        }
    }

    fn want(&self, identities: impl IntoIterator<Item = ArmId>) {
        self.applier.want(wants(&self.pool, identities));
    }

    /// Dies and starts again, with nothing but what was kept.
    async fn restart(&mut self, wanted: Vec<Wanted>) {
        let board = Arc::default();
        let next = applier(&self.arm, &self.records, &self.lease, &board, &self.paces);
        // What is dropped writes nothing any more.
        (self.applier, self.doubted) = next;
        self.board = board;
        self.applier
            .begin(self.records.all().await.unwrap(), wanted);
    }

    fn state(&self, id: &ArmId) -> Option<AssignmentState> {
        let told = self.records.of(&self.pool.id)?;
        Some(told.record.entries.get(id)?.state)
    }

    fn in_state(&self, state: AssignmentState) -> BTreeSet<ArmId> {
        let told = self.records.of(&self.pool.id);
        let entries = told.iter().flat_map(|told| &told.record.entries);
        let entries = entries.filter(|(_, entry)| entry.state == state);
        entries.map(|(id, _)| id.clone()).collect()
    }

    fn trouble(&self) -> Option<Trouble> {
        self.board.computes().get(&self.pool.id)?.trouble.clone()
    }

    fn reason(&self) -> Option<String> {
        self.trouble().map(|trouble| trouble.reason.to_string())
    }

    fn existence(&self, id: &ArmId, principal: u8) {
        let guid = format!("00000000-0000-4000-8000-0000000000{principal:02}");
        let existence = Existence::Exists {
            client_id: None,
            principal_id: Some(guid.parse().unwrap()),
            tenant_id: None,
        };
        self.board.tell_existence(id, existence);
        self.arm
            .with(|azure| azure.principal = Some(guid.parse().unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn many_changes_in_a_window_are_one_patch_at_its_end() {
    let rig = Rig::new();
    rig.arm.with(|azure| azure.takes = 2 * SECOND);
    let start = Instant::now();
    for n in 1..=5 {
        rig.want(ids(0..n));
        sleep(Duration::from_millis(90)).await;
    }
    sleep(10 * SECOND).await;
    let patches = rig.arm.patches();
    assert_eq!(patches.len(), 1);
    assert_eq!(patches[0].patch.as_ref().unwrap().add.len(), 5);
    let after = patches[0].at - start;
    assert!(after <= Duration::from_millis(510), "{after:?}");
    assert!(rig.arm.reads() <= 2, "{}", rig.arm.reads());
    assert_eq!(rig.in_state(AssignmentState::Assigned), ids(0..5));
    // What comes later is another one, and needs no read before it.
    rig.want(ids(0..44));
    sleep(20 * SECOND).await;
    assert_eq!((rig.arm.patches().len(), rig.arm.reads()), (2, 3));
    assert_eq!(rig.in_state(AssignmentState::Assigned), ids(0..44));
    // The same again changes nothing.
    let writes = rig.records.writes().len();
    rig.want(ids(0..44));
    sleep(10 * SECOND).await;
    assert_eq!((rig.arm.patches().len(), rig.arm.reads()), (2, 3));
    assert_eq!(rig.records.writes().len(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_change_right_after_another_is_looked_for_when_it_should_be_there() {
    let rig = Rig::new();
    rig.arm.with(|azure| azure.takes = 15 * SECOND);
    rig.want(ids(0..1));
    sleep(SECOND).await;
    rig.want(ids(0..2));
    sleep(60 * SECOND).await;
    assert_eq!(rig.arm.assigned(&rig.pool), ids(0..2));
    // One before, two looks at the first change, one at the second.
    assert_eq!((rig.arm.patches().len(), rig.arm.reads()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn the_intent_is_written_before_the_patch_and_not_without_it() {
    let rig = Rig::new();
    rig.records.fail(2);
    rig.want(ids([1]));
    sleep(SECOND).await;
    assert_eq!(rig.arm.patches().len(), 0);
    sleep(10 * SECOND).await;
    assert_eq!(rig.arm.patches().len(), 1);
    let first = &rig.records.writes()[0].record.entries[&id("i001")];
    assert_eq!((first.owned, first.state), (true, AssignmentState::Pending));
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_delays_no_other() {
    let rig = Rig::new();
    let other = compute("other");
    rig.arm.with(|azure| {
        azure.machine(&other);
        azure.takes = SECOND;
        azure.stuck.insert(rig.pool.id.clone());
    });
    rig.want(ids([1]));
    rig.applier.want(wants(&other, ids([1])));
    sleep(10 * SECOND).await;
    assert_eq!(rig.arm.assigned(&other), ids([1]));
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Pending));
    sleep(Duration::from_mins(22)).await;
    assert_eq!(rig.reason().as_deref(), Some("OperationTimeout"));
    assert_eq!(
        rig.arm.patches().len(),
        2,
        "it is looked at, not asked for again"
    );
    let pool = rig.pool.clone();
    rig.arm.with(|azure| azure.end(&pool, None));
    sleep(Duration::from_mins(11)).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
    assert_eq!((rig.trouble(), rig.arm.patches().len()), (None, 2));
}

#[tokio::test(start_paused = true)]
async fn more_than_a_request_may_name_go_in_several() {
    let rig = Rig::new();
    rig.want(ids(0..320));
    sleep(5 * SECOND).await;
    assert_eq!(rig.arm.patches().len(), 3);
    assert_eq!(rig.in_state(AssignmentState::Assigned), ids(0..320));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_goes_after_its_grace_and_foreign_ones_never() {
    let rig = Rig::new();
    let (ours, theirs) = (id("ours"), id("theirs"));
    rig.arm.with(|azure| {
        let machine = azure.machine(&rig.pool);
        machine
            .identities
            .insert(theirs.clone(), crate::azure::arm::Principal::default());
    });
    rig.want([ours.clone(), theirs.clone()]);
    sleep(2 * SECOND).await;
    // Every pod is deleted and made again: no PATCH.
    rig.want([]);
    sleep(GRACE / 2).await;
    rig.want([ours.clone(), theirs.clone()]);
    sleep(2 * GRACE).await;
    assert_eq!(rig.arm.patches().len(), 1);
    rig.want([]);
    sleep(GRACE.saturating_sub(SECOND)).await;
    assert_eq!(rig.arm.patches().len(), 1);
    sleep(5 * SECOND).await;
    assert_eq!(rig.arm.patches().len(), 2);
    assert_eq!(rig.arm.assigned(&rig.pool), BTreeSet::from([theirs]));
    assert_eq!(
        rig.records.of(&rig.pool.id),
        None,
        "nothing is left to remember"
    );
    assert_eq!(rig.applier.shared.workers.lock().len(), 0);
    rig.want([ours.clone()]);
    sleep(5 * SECOND).await;
    assert_eq!(rig.state(&ours), Some(AssignmentState::Assigned));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_took_away_comes_back() {
    let rig = Rig::new();
    rig.want(ids([1, 2]));
    sleep(5 * SECOND).await;
    rig.arm.with(|azure| {
        azure.machine(&rig.pool).identities.remove(&id("i001"));
        azure.touch(&rig.pool);
    });
    sleep(Duration::from_secs(340)).await;
    assert_eq!(rig.arm.assigned(&rig.pool), ids([1, 2]));
    assert_eq!(rig.arm.patches().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_was_made_anew_is_assigned_anew() {
    let rig = Rig::new();
    rig.existence(&id("i001"), 1);
    rig.want(ids([1]));
    sleep(5 * SECOND).await;
    rig.existence(&id("i001"), 2);
    sleep(5 * SECOND).await;
    let patches = rig.arm.patches();
    let changes = patches.iter().map(|asked| asked.patch.as_ref().unwrap());
    let changes: Vec<_> = changes
        .map(|one| (one.add.len(), one.remove.len()))
        .collect();
    assert_eq!(changes, [(1, 0), (0, 1), (1, 0)]);
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_after_the_patch_is_followed_by_one_that_sends_none() {
    let mut rig = Rig::new();
    rig.arm.with(|azure| azure.takes = 30 * SECOND);
    rig.want(ids([1, 2]));
    sleep(2 * SECOND).await;
    assert_eq!(rig.arm.patches().len(), 1);
    rig.restart(vec![wants(&rig.pool, ids([1, 2]))]).await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.arm.patches().len(), 1);
    assert_eq!(rig.in_state(AssignmentState::Assigned), ids([1, 2]));
    // And the new one knows what is its own.
    rig.want(ids([1]));
    sleep(GRACE + Duration::from_mins(1)).await;
    assert_eq!(rig.arm.assigned(&rig.pool), ids([1]));
}

#[tokio::test(start_paused = true)]
async fn a_removal_of_before_is_waited_for_before_what_is_still_there_counts() {
    let mut rig = Rig::new();
    rig.want(ids([1]));
    sleep(5 * SECOND).await;
    rig.arm.with(|azure| azure.takes = Duration::from_mins(2));
    rig.want(ids([]));
    sleep(GRACE + 5 * SECOND).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Removing));
    // It is wanted again when the next one comes, and Azure shows it still.
    rig.restart(vec![wants(&rig.pool, ids([1]))]).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Removing));
    rig.arm.with(|azure| azure.takes = SECOND);
    sleep(Duration::from_mins(3)).await;
    assert_eq!(rig.arm.assigned(&rig.pool), ids([1]));
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_of_a_pool_that_is_gone_goes() {
    let mut rig = Rig::new();
    rig.want(ids([1]));
    sleep(5 * SECOND).await;
    rig.arm.with(|azure| azure.machines.clear());
    rig.restart(Vec::new()).await;
    sleep(5 * SECOND).await;
    assert_eq!(rig.records.of(&rig.pool.id), None);
    assert_eq!(rig.board.computes().len(), 0);
    assert_eq!(rig.applier.shared.workers.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_term_that_ends_sends_nothing_more_and_writes_down_what_was_sent() {
    let rig = Rig::new();
    rig.want(ids([1]));
    rig.applier.stop(SECOND).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.arm.patches().len(), 0);
    assert!(rig.applier.tasks.is_empty());
    let rig = Rig::new();
    rig.arm.with(|azure| azure.answer_after = 2 * SECOND);
    rig.want(ids([1]));
    sleep(SECOND).await;
    assert_eq!(rig.arm.patches().len(), 1);
    rig.applier.stop(10 * SECOND).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_deletes_is_written_again() {
    let rig = Rig::new();
    rig.want(ids([1]));
    sleep(5 * SECOND).await;
    rig.applier.lost(&rig.pool.assignment_name());
    assert_eq!(rig.records.of(&rig.pool.id), None);
    sleep(SECOND).await;
    assert_eq!(rig.state(&id("i001")), Some(AssignmentState::Assigned));
    assert_eq!(rig.arm.patches().len(), 1);
}
