//! The whole life of an identity, on the stage of `stage`.

mod stage;

use std::collections::BTreeSet;

use self::stage::{Fault, Stage};
use super::super::known::OwnerSeen;
use super::super::{departure, federated};
use super::*;
use crate::api::managed::{DeletionPolicy, ManagedIdentity};
use crate::model::ids::ObjectName;

const CLUSTER: &str = "c0000000-0000-4000-8000-000000000001";
const UID: &str = "0b000000-0000-4000-8000-000000000002";
const GROUP: &str = "/subscriptions/s/resourceGroups/shop";
const ISSUER: &str = "https://issuer.example";

fn spec() -> ManagedIdentity {
    ManagedIdentity {
        resource_group: GROUP.into(),
        location: "westeurope".into(),
        deletion_policy: DeletionPolicy::Delete,
        owner: None,
    }
}

fn owner(kind: &str) -> Owner {
    Owner {
        api_version: "apps/v1".into(),
        kind: kind.into(),
        name: "web".into(),
    }
}

fn settings() -> Settings {
    Settings {
        cluster: CLUSTER.into(),
        issuer: Some(ISSUER.into()),
        grace: Duration::from_mins(15),
        refresh: Duration::from_mins(30),
    }
}

fn claim() -> Claim {
    Claim {
        name: ObjectName::new("shop", "payments"),
        uid: UID.into(),
        generation: 1,
        version: 1,
        deleting: false,
        held: false,
        owners: Vec::new(),
        spec: Ok(Arc::new(spec())),
        federated: true,
        admitted: true,
        accounts: (0..3)
            .map(|at| ObjectName::new("shop", format!("sa-{at}")))
            .collect(),
        assigned: BTreeSet::new(),
    }
}

fn id() -> ArmId {
    naming::resource_id(GROUP, CLUSTER, UID).unwrap()
}

fn tag() -> String {
    naming::owner_tag(CLUSTER, &claim().name, UID)
}

const MINUTES: Duration = Duration::from_mins(10);

#[test]
fn it_is_created_once_and_trusts_the_bound_accounts() {
    let mut stage = Stage::new(claim());
    let rest = stage.settle(Duration::ZERO);
    assert!(rest.outcome.ready, "{:?}", rest.outcome);
    assert_eq!(rest.outcome.resource_id, Some(id()));
    assert_eq!(stage.credentials.len(), 3);
    // Hold, read, create, read credentials, three credentials.
    assert_eq!(stage.calls.len(), 7, "{:#?}", stage.calls);
    assert_eq!(stage.calls[0], Action::Hold);
    let calls = stage.calls.len();
    stage.settle(Duration::ZERO);
    assert_eq!(stage.calls.len(), calls, "nothing more is asked");
}

#[test]
fn whatever_call_fails_it_comes_to_exist_once_and_goes_for_good() {
    for fault in [Fault::Before, Fault::After, Fault::Forbidden, Fault::Crash] {
        for at in 0..20 {
            let mut stage = Stage::new(claim());
            stage.claim.spec = Ok(Arc::new(ManagedIdentity {
                owner: Some(owner("Deployment")),
                ..spec()
            }));
            stage.owner = Some("uid-web".into());
            stage.fault = Some((at, fault));
            let rest = stage.settle(MINUTES);
            assert!(rest.outcome.ready, "{fault:?} at {at}: {:?}", rest.outcome);
            assert_eq!(
                (stage.created, stage.credentials.len()),
                (1, 3),
                "{fault:?} at {at}"
            );
            let calls = stage.calls.len();
            // Now every call of the way out.
            stage.fault = Some((calls + at, fault));
            stage.claim.deleting = true;
            stage.settle(MINUTES);
            assert!(
                stage.gone,
                "{fault:?} at {at}: {:#?}",
                &stage.calls[calls..]
            );
            assert_eq!(stage.identity, None, "{fault:?} at {at}");
        }
    }
}

#[test]
fn what_no_policy_allows_is_not_even_asked_about_but_may_be_removed() {
    let mut stage = Stage::new(Claim {
        admitted: false,
        ..claim()
    });
    let rest = stage.settle(MINUTES);
    assert_eq!(&*rest.outcome.reason, "GroupNotAllowed");
    assert_eq!(stage.calls, [], "nothing is asked, nothing is written");
    // It existed before the policy went away.
    stage.claim.held = true;
    stage.identity = Some(tag());
    assert_eq!(&*stage.settle(MINUTES).outcome.reason, "GroupNotAllowed");
    assert_eq!(stage.calls, []);
    stage.claim.deleting = true;
    stage.settle(MINUTES);
    assert!(stage.gone && stage.identity.is_none());
}

#[test]
fn anothers_identity_is_neither_adopted_nor_deleted() {
    for theirs in [String::new(), tag().to_uppercase(), format!("{}x", tag())] {
        let mut stage = Stage::new(claim());
        stage.identity = Some(theirs.clone());
        let rest = stage.settle(Duration::ZERO);
        assert_eq!(&*rest.outcome.reason, "NotOurs");
        assert_eq!(rest.outcome.existence, Existence::Missing);
        stage.claim.deleting = true;
        stage.settle(MINUTES);
        assert!(stage.gone);
        assert_eq!(stage.identity, Some(theirs));
    }
}

#[test]
fn one_of_ours_is_adopted() {
    let mut stage = Stage::new(claim());
    stage.identity = Some(tag());
    assert!(stage.settle(Duration::ZERO).outcome.ready);
    assert_eq!(stage.created, 0);
}

#[test]
fn what_somebody_removed_in_azure_is_made_again() {
    let mut stage = Stage::new(claim());
    stage.settle(Duration::ZERO);
    (stage.identity, stage.credentials) = (None, Vec::new());
    stage.now += settings().refresh * 6;
    assert!(stage.settle(Duration::ZERO).outcome.ready);
    assert_eq!((stage.created, stage.credentials.len()), (2, 3));
}

#[test]
fn a_finalizer_that_somebody_took_away_is_written_again() {
    let mut stage = Stage::new(claim());
    stage.settle(Duration::ZERO);
    stage.claim.held = false;
    stage.claim.version += 1;
    stage.settle(Duration::ZERO);
    assert!(stage.claim.held);
}

#[test]
fn a_watch_that_lags_causes_no_second_write() {
    let mut stage = Stage::new(claim());
    stage.act(&Action::Hold);
    (stage.claim.held, stage.claim.version) = (false, 1);
    assert_ne!(stage.next().action, Some(Action::Hold));
}

#[test]
fn it_leaves_compute_resources_first_but_waits_two_minutes_at_most() {
    let mut stage = Stage::new(claim());
    stage.settle(Duration::ZERO);
    stage.claim.deleting = true;
    stage.claim.assigned = BTreeSet::from(["vmss-pool1-00000000".into()]);
    let rest = stage.settle(Duration::from_secs(100));
    assert_eq!(&*rest.outcome.reason, "Deleting");
    assert!(rest.outcome.message.contains("vmss-pool1"));
    assert!(stage.identity.is_some() && stage.credentials.len() == 3);
    let mut early = Stage { ..stage };
    early.claim.assigned.clear();
    early.settle(Duration::ZERO);
    assert!(early.gone && early.identity.is_none());

    let mut stuck = Stage::new(claim());
    stuck.settle(Duration::ZERO);
    stuck.claim.deleting = true;
    stuck.claim.assigned = BTreeSet::from(["vmss-pool1-00000000".into()]);
    stuck.settle(departure::UNASSIGN + Duration::from_mins(2));
    assert!(stuck.gone && stuck.identity.is_none());
}

#[test]
fn azure_being_away_delays_the_removal_visibly_and_never_loses_it() {
    let mut stage = Stage::new(claim());
    stage.settle(Duration::ZERO);
    stage.claim.deleting = true;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        stage.fault = Some((stage.calls.len(), Fault::Before));
        let next = stage.next();
        stage.act(&next.action.unwrap());
        let told = stage.next();
        assert_eq!(&*told.outcome.reason, "DeletionDelayed");
        assert!(told.outcome.message.contains("in words"));
        let again = told.again.unwrap();
        pauses.push(again.saturating_sub(stage.now).as_secs());
        stage.now = again;
        assert!(stage.claim.held && stage.identity.is_some());
        // Also while it is tried again.
        assert_eq!(&*stage.next().outcome.reason, "DeletionDelayed");
    }
    assert_eq!(pauses[..4], [5, 10, 20, 40]);
    assert_eq!(pauses[11], 600);
    stage.settle(MINUTES);
    assert!(stage.gone && stage.identity.is_none());
}

#[test]
fn retain_asks_azure_nothing() {
    let mut stage = Stage::new(claim());
    stage.settle(Duration::ZERO);
    let calls = stage.calls.len();
    stage.claim.spec = Ok(Arc::new(ManagedIdentity {
        deletion_policy: DeletionPolicy::Retain,
        ..spec()
    }));
    stage.claim.deleting = true;
    stage.settle(Duration::ZERO);
    assert!(stage.gone && stage.identity.is_some());
    let [Action::Release(Some(told))] = &stage.calls[calls..] else {
        panic!("{:?}", stage.calls);
    };
    assert!(told.contains(id().as_written()));
}

#[test]
fn when_lanyard_leaves_identities_stay_or_go_as_asked_and_nothing_is_created() {
    for (mode, stays) in [(Mode::Retain, true), (Mode::Delete, false)] {
        let mut stage = Stage::new(claim());
        stage.settle(Duration::ZERO);
        stage.mode = mode;
        stage.before = None;
        let rest = stage.settle(MINUTES);
        assert!(!stage.claim.held);
        assert_eq!(stage.identity.is_some(), stays);
        assert_eq!(&*rest.outcome.reason, "LanyardLeaves");

        let mut new = Stage::new(claim());
        new.mode = mode;
        new.settle(MINUTES);
        assert_eq!(new.calls, []);
    }
}

#[test]
fn it_waits_for_its_owner_and_goes_with_it() {
    let mut stage = Stage::new(claim());
    stage.claim.spec = Ok(Arc::new(ManagedIdentity {
        owner: Some(owner("StatefulSet")),
        ..spec()
    }));
    let rest = stage.settle(Duration::ZERO);
    assert_eq!(&*rest.outcome.reason, "OwnerMissing");
    assert!(rest.outcome.message.contains("StatefulSet web"));
    assert_eq!(stage.identity, None);
    assert!(!stage.claim.held, "nothing to hold it for");
    stage.owner = Some("uid-web".into());
    assert!(stage.settle(Duration::from_secs(15)).outcome.ready);
    assert_eq!(stage.claim.owners, [Arc::from("uid-web")]);

    // Another of the same name: what is there already goes with the old one.
    let mut replaced = Stage::new(stage.claim.clone());
    replaced.known.owner = OwnerSeen::Replaced(replaced.now);
    replaced.before = Some(replaced.claim.clone());
    let rest = replaced.settle(Duration::ZERO);
    assert_eq!(&*rest.outcome.reason, "OwnerReplaced");

    let mut odd = Stage::new(claim());
    odd.claim.spec = Ok(Arc::new(ManagedIdentity {
        owner: Some(owner("DaemonSet")),
        ..spec()
    }));
    assert_eq!(&*odd.settle(MINUTES).outcome.reason, "OwnerUnsupported");
    assert_eq!(odd.calls, []);
}

#[test]
fn an_owner_that_is_not_named_any_more_is_let_go() {
    let mut stage = Stage::new(claim());
    stage.claim.owners = vec!["uid-web".into()];
    assert!(stage.settle(Duration::ZERO).outcome.ready);
    assert_eq!(stage.calls[0], Action::WriteOwner(None));
    let times = stage
        .calls
        .iter()
        .filter(|call| matches!(call, Action::WriteOwner(_)));
    assert_eq!(times.count(), 1);
}

#[test]
fn an_identity_that_trusts_nobody_loses_what_trusted_before() {
    let mut stage = Stage::new(claim());
    stage.settle(Duration::ZERO);
    stage.claim.federated = false;
    stage.claim.generation += 1;
    assert!(stage.settle(Duration::ZERO).outcome.ready);
    assert_eq!(stage.credentials.len(), 3, "they have their grace time");
    stage.settle(settings().grace + Duration::from_secs(1));
    assert_eq!(stage.credentials, []);
}

#[test]
fn more_accounts_than_azure_takes_are_named() {
    let mut stage = Stage::new(claim());
    stage.claim.accounts = (0..23)
        .map(|at| ObjectName::new("shop", format!("sa-{at:02}")))
        .collect();
    let rest = stage.settle(Duration::ZERO);
    assert_eq!(&*rest.outcome.reason, "FederatedLimit");
    assert!(
        rest.outcome
            .message
            .contains("shop/sa-20, shop/sa-21, shop/sa-22")
    );
    assert_eq!(rest.outcome.resource_id, Some(id()));
    assert_eq!(stage.credentials.len(), federated::MOST);
}

#[test]
fn an_object_that_cannot_be_used_as_a_whole_is_removed_all_the_same() {
    let mut stage = Stage::new(claim());
    stage.settle(Duration::ZERO);
    stage.claim.spec = Err("spec.tokenSources[0]: comes later".into());
    let rest = stage.settle(Duration::ZERO);
    assert_eq!(&*rest.outcome.reason, "Malformed");
    stage.claim.deleting = true;
    stage.settle(MINUTES);
    assert!(stage.gone && stage.identity.is_none());
}

#[test]
fn what_azure_asked_to_wait_for_is_waited_for_whatever_changes() {
    let mut stage = Stage::new(claim());
    stage.settle(Duration::ZERO);
    stage.known.setback = Some(Setback {
        failures: 1,
        until: stage.now + Duration::from_secs(90),
        reason: "Throttled".into(),
        message: "too many requests".into(),
    });
    stage.claim.deleting = true;
    let rest = stage.settle(Duration::from_secs(80));
    assert_eq!(&*rest.outcome.reason, "DeletionDelayed");
    let calls = stage.calls.len();
    stage.settle(MINUTES);
    assert!(stage.gone && stage.calls.len() > calls);
}
