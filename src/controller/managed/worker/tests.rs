//! Workers against an Azure that hangs, and a lease that ends.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::Managed;
use super::super::claim::Written;
use super::super::known::Shown;
use super::*;
use crate::api::identity::{AzureIdentity, AzureIdentitySpec};
use crate::api::managed::ManagedIdentity;
use crate::controller::world::{Change, Meta, Seen, World};
use crate::model::facts::{LabelSelector, PolicyFacts, PolicyScope};
use crate::model::ids::ObjectName;

const GROUP: &str = "/subscriptions/s/resourceGroups/shop";
const CLUSTER: &str = "c0000000-0000-4000-8000-000000000001";

/// The time of tests stands still unless somebody sleeps.
fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    Duration::from_secs(1000) + START.get_or_init(Instant::now).elapsed()
}

#[derive(Clone, Default)]
struct Stage {
    calls: Arc<Mutex<Vec<Action>>>,
    identities: Arc<Mutex<Vec<(ArmId, String)>>>,
    /// Identities (by the end of their name) that Azure never answers about.
    hang: Arc<Mutex<BTreeSet<&'static str>>>,
    /// How long getting a token takes.
    token: Duration,
    leads: Arc<Mutex<Option<Instant>>>,
}

impl Stage {
    fn leading() -> Self {
        let stage = Self::default();
        *stage.leads.lock() = Some(Instant::now() + Duration::from_hours(1));
        stage
    }

    fn managed(&self, mode: watch::Receiver<Mode>) -> (Managed<Self, Self, Self>, Arc<Board>) {
        let settings = Settings {
            cluster: CLUSTER.into(),
            issuer: None,
            grace: Duration::from_mins(15),
            refresh: Duration::from_mins(30),
        };
        let board = Arc::new(Board::default());
        let outside = (self.clone(), self.clone(), self.clone());
        let managed = Managed::new(outside, settings, board.clone(), mode, now);
        (managed, board)
    }

    fn asked(&self) -> usize {
        self.calls
            .lock()
            .iter()
            .filter(|call| call.is_azures())
            .count()
    }
}

impl Azure for Stage {
    async fn prepare(&self, _: Duration) -> Result<(), Failed> {
        sleep(self.token).await;
        Ok(())
    }

    async fn call(&self, action: &Action, _: Duration) -> Result<Answer, Failed> {
        self.calls.lock().push(action.clone());
        let id = match action {
            Action::Read(id) | Action::Create(id, ..) | Action::Delete(id) => id.clone(),
            Action::ReadCredentials(_) => return Ok(Answer::Credentials(Vec::new())),
            _ => return Ok(Answer::Done),
        };
        let hangs = self
            .hang
            .lock()
            .iter()
            .any(|end| id.as_written().ends_with(end));
        if hangs {
            std::future::pending::<()>().await;
        }
        let mut identities = self.identities.lock();
        match action {
            Action::Create(_, _, tag) => identities.push((id.clone(), tag.clone())),
            Action::Delete(_) => identities.retain(|(other, _)| *other != id),
            _ => {}
        }
        let found = identities.iter().find(|(other, _)| *other == id);
        Ok(Answer::Identity(found.map(|(_, tag)| Shown {
            existence: Existence::Exists {
                client_id: None,
                principal_id: None,
                tenant_id: None,
            },
            tag: Some(tag.clone()),
        })))
    }
}

impl Objects for Stage {
    async fn call(&self, claim: &Claim, action: &Action) -> Result<Answer, Failed> {
        self.calls.lock().push(action.clone());
        Ok(Answer::Object(Written {
            version: claim.version + 1,
            held: *action == Action::Hold,
            owners: Vec::new(),
        }))
    }
}

impl Leading for Stage {
    fn until(&self) -> Option<Instant> {
        *self.leads.lock()
    }
}

fn world(names: &[&str]) -> World {
    let mut world = World::default();
    world.apply(Change::Namespace("shop".into(), Some(Arc::default())));
    let policy = PolicyFacts {
        name: "p".into(),
        namespaces: LabelSelector::default(),
        scope: Arc::new(PolicyScope {
            managed_groups: vec![GROUP.parse().unwrap()],
            ..PolicyScope::default()
        }),
    };
    let seen = Seen {
        meta: Meta::default(),
        said: Ok(policy),
        status: (),
    };
    world.apply(Change::Policy("p".into(), Some(Arc::new(seen))));
    for name in names {
        let mut object = AzureIdentity::new(name, AzureIdentitySpec::default());
        object.spec.managed = Some(ManagedIdentity {
            resource_group: GROUP.into(),
            location: "westeurope".into(),
            deletion_policy: crate::api::managed::DeletionPolicy::Delete,
            owner: None,
        });
        let seen = Seen {
            meta: Meta {
                uid: (*name).into(),
                version: "1".into(),
                ..Meta::default()
            },
            said: object.stated().map(Arc::new),
            status: None,
        };
        let name = ObjectName::new("shop", *name);
        world.apply(Change::Identity(name, Some(Arc::new(seen))));
    }
    world
}

/// Waits for something that is certain to come, and says so when it does not.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("waited in vain for {what}");
}

fn ready(board: &Board, name: &str) -> bool {
    let told = board.managed(&ObjectName::new("shop", name));
    told.is_some_and(|told| told.ready)
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_delays_no_other() {
    let stage = Stage::leading();
    stage.hang.lock().insert("-stuck");
    let (mut managed, board) = stage.managed(watch::channel(Mode::Serve).1);
    let names = ["stuck", "a", "b", "c", "d", "e"];
    managed.start(&world(&names));
    assert_eq!(managed.count(), 6);
    let begun = Instant::now();
    until("the others", || {
        names[1..].iter().all(|name| ready(&board, name))
    })
    .await;
    assert!(begun.elapsed() < WRITE_LIMIT, "{:?}", begun.elapsed());
    until("what is told of it", || {
        let told = board.managed(&ObjectName::new("shop", "stuck"));
        told.is_some_and(|told| &*told.reason == "Timeout")
    })
    .await;
    stage.hang.lock().clear();
    until("the one that hung", || ready(&board, "stuck")).await;
    assert_eq!(stage.identities.lock().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_called_by_one_whose_lease_may_end_meanwhile() {
    let stage = Stage::default();
    let (mut managed, board) = stage.managed(watch::channel(Mode::Serve).1);
    managed.start(&world(&["a"]));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(*stage.calls.lock(), [], "no lease");
    *stage.leads.lock() = Some(Instant::now() + WRITE_LIMIT);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(*stage.calls.lock(), [], "it ends too soon");
    *stage.leads.lock() = Some(Instant::now() + Duration::from_hours(1));
    until("the identity", || ready(&board, "a")).await;

    // It ends while the token is fetched.
    let slow = Stage {
        token: Duration::from_secs(5),
        ..Stage::default()
    };
    *slow.leads.lock() = Some(Instant::now() + WRITE_LEASE + Duration::from_secs(3));
    let (mut managed, _board) = slow.managed(watch::channel(Mode::Serve).1);
    managed.start(&world(&["a"]));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(*slow.calls.lock(), [Action::Hold]);
}

#[tokio::test(start_paused = true)]
async fn workers_come_and_go_with_their_objects() {
    let stage = Stage::leading();
    let (sender, mode) = watch::channel(Mode::Serve);
    let (mut managed, board) = stage.managed(mode);
    let mut observed = world(&["a"]);
    managed.start(&observed);
    until("the identity", || ready(&board, "a")).await;
    let asked = stage.asked();
    // Another object of the same name is another identity.
    let name = ObjectName::new("shop", "a");
    let mut seen = (*observed.identities[&name]).clone();
    seen.meta.uid = "new".into();
    let change = Change::Identity(name.clone(), Some(Arc::new(seen)));
    observed.apply(change.clone());
    managed.update(&observed, &[change]);
    until("the new one", || {
        let told = board.managed(&name);
        told.is_some_and(|told| told.ready && &*told.uid == "new")
    })
    .await;
    assert!(stage.asked() > asked);
    // A policy goes: nothing more is asked.
    let change = Change::Policy("p".into(), None);
    observed.apply(change.clone());
    managed.update(&observed, &[change]);
    until("the refusal", || {
        let told = board.managed(&name);
        told.is_some_and(|told| &*told.reason == "GroupNotAllowed")
    })
    .await;
    // Lanyard is being removed, and the identities with it.
    sender.send(Mode::Delete).unwrap();
    managed.update(&observed, &[]);
    let released = |stage: &Stage| stage.calls.lock().contains(&Action::Release(None));
    until("its release", || released(&stage)).await;
    let left: Vec<_> = stage
        .identities
        .lock()
        .iter()
        .map(|(id, _)| id.to_string())
        .collect();
    assert!(left.len() == 1 && left[0].ends_with("-a"), "{left:?}");
    let change = Change::Identity(name.clone(), None);
    observed.apply(change.clone());
    managed.update(&observed, &[change]);
    until("its end", || board.managed(&name).is_none()).await;
}
