//! What statuses and Events say, of single worlds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::happenings::Happenings;
use super::{Draft, Verdict, drafts};
use crate::api::assignment::AssignmentState;
use crate::api::identity::AzureIdentity;
use crate::api::kind::Kind;
use crate::controller::board::{Board, Told, Trouble};
use crate::controller::desire::{Ledger, Touched};
use crate::controller::known::Existence;
use crate::controller::managed::ManagedOutcome;
use crate::controller::record::{Entry, Record};
use crate::controller::world::{Change, Meta, Node, Pod, Seen, World};
use crate::kubernetes::event::Report;
use crate::model::compute::Compute;
use crate::model::facts::{BindingFacts, LabelSelector, PolicyFacts, PolicyScope, Subject};
use crate::model::ids::{ArmId, Guid, ObjectName};

const ID: &str = "/subscriptions/s/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments";

fn guid(n: u8) -> Guid {
    format!("00000000-0000-4000-8000-0000000000{n:02}")
        .parse()
        .unwrap()
}

fn compute(name: &str) -> Arc<Compute> {
    let id = format!(
        "/subscriptions/s/resourceGroups/n/providers/Microsoft.Compute/virtualMachineScaleSets/{name}"
    );
    Arc::new(id.parse().unwrap())
}

fn seen<Spec>(said: Spec) -> Arc<Seen<Spec>> {
    let meta = Meta {
        uid: "uid".into(),
        generation: 1,
        ..Meta::default()
    };
    Arc::new(Seen {
        meta,
        said: Ok(said),
        status: (),
    })
}

/// A namespace, a policy, an identity, a binding to all pods; two scale sets with two nodes each, and a
/// pod on the first node of each.
struct Scene {
    world: World,
    board: Board,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            world: World::default(),
            board: Board::default(),
        };
        let labels = Arc::default();
        scene.take(Change::Namespace("shop".into(), Some(labels)));
        let policy = PolicyFacts {
            name: "all".into(),
            namespaces: LabelSelector::default(),
            scope: Arc::new(PolicyScope {
                resource_id_prefixes: vec!["/subscriptions/".to_owned()],
                ..PolicyScope::default()
            }),
        };
        scene.take(Change::Policy("all".into(), Some(seen(policy))));
        scene.identity(&json!({"resourceID": ID}), &Value::Null);
        let subject = Subject {
            pod_selector: Some(LabelSelector::default()),
            service_accounts: Vec::new(),
            namespace_selector: None,
        };
        let binding = BindingFacts {
            name: ObjectName::new("shop", "payments"),
            identity: "payments".into(),
            subjects: vec![subject],
            default: false,
        };
        scene.take(Change::Binding(binding.name.clone(), Some(seen(binding))));
        for set in ["a", "b"] {
            for at in 0..2 {
                let node = Node {
                    uid: format!("uid-{set}{at}").into(),
                    compute: Ok(compute(set)),
                };
                scene.take(Change::Node(format!("{set}{at}").into(), Some(node)));
            }
            scene.pod(set, &format!("{set}0"));
        }
        scene
    }

    fn take(&mut self, change: Change) {
        self.world.apply(change);
    }

    fn pod(&mut self, name: &str, node: &str) {
        let pod = Pod {
            uid: format!("uid-{name}").into(),
            node: node.into(),
            account: "sa".into(),
            labels: Arc::default(),
            wanted: None,
        };
        self.take(Change::Pod(ObjectName::new("shop", name), Some(pod)));
    }

    fn identity(&mut self, spec: &Value, status: &Value) {
        let mut object = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
            "metadata": {"name": "payments", "generation": 1}, "spec": spec});
        if !status.is_null() {
            object["status"] = status.clone();
        }
        let object: AzureIdentity = serde_json::from_value(object).unwrap();
        let name = ObjectName::new("shop", "payments");
        let meta = Meta {
            uid: "uid".into(),
            generation: 1,
            ..Meta::default()
        };
        let said = object.stated().map(Arc::new);
        let seen = Seen {
            meta,
            said,
            status: object.status.map(Arc::new),
        };
        self.take(Change::Identity(name, Some(Arc::new(seen))));
    }

    fn exists(&self) {
        let existence = Existence::Exists {
            client_id: Some(guid(1)),
            principal_id: Some(guid(2)),
            tenant_id: Some(guid(3)),
        };
        self.board.tell_existence(&ID.parse().unwrap(), existence);
    }

    fn tell(&self, set: &str, entry: Option<Entry>, trouble: Option<Trouble>) {
        let entries = entry.map(|entry| (ID.parse::<ArmId>().unwrap(), entry));
        self.board.tell(Told {
            compute: compute(set),
            record: Arc::new(Record {
                entries: entries.into_iter().collect(),
            }),
            trouble,
        });
    }

    fn draft(&self, kind: Kind, namespace: &str, name: &str) -> Draft {
        let mut ledger = Ledger::default();
        ledger.update(&self.world, &Touched::all(&self.world));
        let drafts = drafts(&self.world, &ledger, &self.board);
        drafts[&(kind, ObjectName::new(namespace, name))].clone()
    }

    fn of_identity(&self) -> Draft {
        self.draft(Kind::Identities, "shop", "payments")
    }

    fn verdict(&self) -> (bool, String, String) {
        let Verdict {
            holds,
            reason,
            message,
        } = self.of_identity().verdict;
        (holds, reason, message)
    }
}

fn entry(state: AssignmentState, since: u64) -> Entry {
    Entry {
        owned: true,
        immutable: false,
        remove_after: None,
        state,
        since: Duration::from_secs(since),
        client_id: None,
        principal_id: None,
        reason: None,
        message: None,
    }
}

fn because(state: AssignmentState, reason: &str, message: &str) -> Entry {
    Entry {
        reason: Some(reason.into()),
        message: Some(message.into()),
        ..entry(state, 5)
    }
}

#[test]
fn ids_come_from_azure_and_the_count_of_nodes_from_the_records() {
    let scene = Scene::new();
    scene.exists();
    scene.tell("a", Some(entry(AssignmentState::Assigned, 5)), None);
    let draft = scene.of_identity();
    assert_eq!(
        Value::Object(draft.fields.clone()),
        json!({"observedGeneration": 1, "clientID": guid(1).to_string(), "principalID": guid(2).to_string(),
            "tenantID": guid(3).to_string(), "resourceID": ID, "assignedTo": [compute("a").assignment_name()],
            "assignedNodes": 2, "wantedNodes": 4})
    );
    let (holds, reason, message) = scene.verdict();
    assert_eq!((holds, &*reason), (false, "Pending"));
    assert!(message.starts_with("on 2 of 4 nodes"), "{message}");
    scene.tell("b", Some(entry(AssignmentState::Assigned, 5)), None);
    assert_eq!(
        scene.verdict(),
        (true, "Assigned".into(), "on 4 of 4 nodes".into())
    );
    let binding = scene.draft(Kind::Bindings, "shop", "payments");
    assert_eq!(binding.fields["matchedPods"], 2);
    assert!(binding.verdict.holds && binding.verdict.reason == "Granted");
    assert!(scene.draft(Kind::Policies, "", "all").verdict.holds);
}

#[test]
fn the_most_basic_hindrance_is_told() {
    let mut scene = Scene::new();
    assert_eq!(&*scene.verdict().1, "Pending", "its client id is not known");
    scene.exists();
    let trouble = Trouble {
        reason: "Throttled".into(),
        message: "Azure asks to wait".into(),
        until: None,
    };
    scene.tell("b", Some(entry(AssignmentState::Pending, 5)), Some(trouble));
    assert_eq!(&*scene.verdict().1, "Throttled");
    let refused = because(
        AssignmentState::Failed,
        "LinkedAuthorizationFailed",
        "run: az role assignment create …",
    );
    scene.tell("a", Some(refused), None);
    let (holds, reason, message) = scene.verdict();
    assert_eq!((holds, &*reason), (false, "LinkedAuthorizationFailed"));
    assert!(
        message.contains("run: az role assignment create"),
        "{message}"
    );
    let binding = scene.draft(Kind::Bindings, "shop", "payments").verdict;
    assert_eq!(
        (binding.holds, &*binding.reason),
        (false, "LinkedAuthorizationFailed")
    );
    scene.identity(
        &json!({"resourceID": ID, "clientID": guid(9).to_string()}),
        &Value::Null,
    );
    assert_eq!(&*scene.verdict().1, "ClientIDMismatch");
    scene.identity(
        &json!({"resourceID": ID, "tenantID": guid(9).to_string()}),
        &Value::Null,
    );
    assert_eq!(&*scene.verdict().1, "TenantMismatch");
    scene
        .board
        .tell_existence(&ID.parse().unwrap(), Existence::Missing);
    assert_eq!(&*scene.verdict().1, "IdentityNotFound");
    scene.take(Change::Policy("all".into(), None));
    assert_eq!(&*scene.verdict().1, "NoPolicy");
    scene.identity(&json!({"clientID": "typo"}), &Value::Null);
    assert_eq!(&*scene.verdict().1, "Malformed");
}

#[test]
fn ids_that_were_found_before_are_kept_as_long_as_it_is_the_same_identity() {
    let mut scene = Scene::new();
    let status = json!({"resourceID": ID.to_uppercase(), "clientID": guid(1).to_string()});
    scene.identity(&json!({"resourceID": ID}), &status);
    assert_eq!(scene.of_identity().fields["clientID"], guid(1).to_string());
    let other = format!("{ID}2");
    scene.identity(&json!({"resourceID": other}), &status);
    assert_eq!(scene.of_identity().fields.get("clientID"), None);
}

#[test]
fn an_identity_of_a_tenant_that_no_policy_lists_is_not_ready() {
    let mut scene = Scene::new();
    scene.exists();
    let policy = PolicyFacts {
        name: "all".into(),
        namespaces: LabelSelector::default(),
        scope: Arc::new(PolicyScope {
            resource_id_prefixes: vec!["/subscriptions/".to_owned()],
            tenant_ids: vec![guid(9)],
            ..PolicyScope::default()
        }),
    };
    scene.take(Change::Policy("all".into(), Some(seen(policy))));
    let (_, reason, message) = scene.verdict();
    assert_eq!(&*reason, "TenantMismatch");
    assert!(message.contains("tenantIDs"), "{message}");
}

/// A new leader knows nothing yet; what is told must not flap with it.
#[test]
fn what_azure_said_stands_until_it_has_been_asked_again() {
    let condition = |reason: &str, status: &str| {
        json!({"observedGeneration": 1, "resourceID": ID, "conditions": [{"type": "Ready", "status": status,
            "reason": reason, "message": "as before", "lastTransitionTime": "2026-01-02T03:04:05Z"}]})
    };
    let spec = json!({"resourceID": ID});
    for reason in ["IdentityNotFound", "TenantMismatch", "Throttled"] {
        let mut scene = Scene::new();
        scene.identity(&spec, &condition(reason, "False"));
        assert_eq!(scene.verdict(), (false, reason.into(), "as before".into()));
        let mut of_another_spec = condition(reason, "False");
        of_another_spec["observedGeneration"] = 0.into();
        scene.identity(&spec, &of_another_spec);
        assert_eq!(&*scene.verdict().1, "Pending");
        scene.identity(&spec, &condition(reason, "False"));
        scene.exists();
        assert_ne!(&*scene.verdict().1, reason, "it has been asked");
    }
    let mut scene = Scene::new();
    scene.identity(&spec, &condition("NoPolicy", "False"));
    assert_eq!(&*scene.verdict().1, "Pending", "a policy is not Azure");
    let managed = json!({"managed": {"resourceGroup": "/subscriptions/s/resourceGroups/shop", "location": "westeurope"}});
    scene.identity(&managed, &Value::Null);
    assert_eq!(&*scene.verdict().1, "Creating");
    scene.identity(&managed, &condition("NotOurs", "False"));
    assert_eq!(&*scene.verdict().1, "NotOurs");
    scene.identity(&managed, &condition("Assigned", "True"));
    let outcome = |existence| ManagedOutcome {
        uid: "uid".into(),
        generation: 1,
        resource_id: None,
        existence,
        ready: false,
        reason: "Creating".into(),
        message: "the identity is being created in Azure".into(),
    };
    let name = ObjectName::new("shop", "payments");
    scene.board.tell_managed(&name, outcome(Existence::Unknown));
    assert_ne!(&*scene.verdict().1, "Creating", "it has not looked yet");
    scene.board.tell_managed(&name, outcome(Existence::Missing));
    assert_eq!(&*scene.verdict().1, "Creating");
}

/// What nobody will ask Azure about must not stand for ever.
#[test]
fn what_azure_said_of_an_identity_that_is_not_asked_about_any_more_is_forgotten() {
    let status = json!({"observedGeneration": 1, "resourceID": ID, "conditions": [{"type": "Ready", "status": "False",
        "reason": "IdentityNotFound", "message": "as before", "lastTransitionTime": "2026-01-02T03:04:05Z"}]});
    let mut scene = Scene::new();
    let spec = json!({"resourceID": ID, "clientID": guid(1).to_string(), "tokenSources": [{"federated": {}}]});
    scene.identity(&spec, &status);
    assert_eq!(&*scene.verdict().1, "IdentityNotFound");
    let policy = PolicyFacts {
        name: "all".into(),
        namespaces: LabelSelector::default(),
        scope: Arc::new(PolicyScope {
            client_ids: vec![guid(1)],
            ..PolicyScope::default()
        }),
    };
    scene.take(Change::Policy("all".into(), Some(seen(policy))));
    assert_eq!(&*scene.verdict().1, "NothingToAssign");
}

#[test]
fn a_node_of_another_cloud_is_told_once_and_named_in_the_message() {
    let mut scene = Scene::new();
    scene.exists();
    for set in ["a", "b"] {
        scene.tell(set, Some(entry(AssignmentState::Assigned, 5)), None);
    }
    let node = Node {
        uid: "uid-aws".into(),
        compute: "aws:///i-0".parse::<Compute>().map(Arc::new),
    };
    scene.take(Change::Node("aws".into(), Some(node)));
    scene.pod("c", "aws");
    let (holds, reason, message) = scene.verdict();
    assert_eq!((holds, &*reason), (false, "NodeNotInAzure"));
    assert!(
        message.contains("1 of 3 pods") && message.contains("(aws)"),
        "{message}"
    );
    let mut happenings = Happenings::new(Duration::from_secs(10));
    let mut look = |seconds| {
        let now = Duration::from_secs(seconds);
        happenings.look(&scene.world, &scene.board.computes(), now)
    };
    assert_eq!(look(10).len(), 0, "it may be new");
    let told = look(200);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].regarding.kind, &*told[0].regarding.uid),
        ("Node", "uid-aws")
    );
    assert_eq!(look(400).len(), 0);
}

#[test]
fn what_happens_is_told_on_the_identity_and_what_happened_before_is_not() {
    let scene = Scene::new();
    scene.exists();
    scene.tell("a", Some(entry(AssignmentState::Assigned, 5)), None);
    let mut happenings = Happenings::new(Duration::from_secs(10));
    let mut look = || -> Vec<Report> {
        happenings.look(
            &scene.world,
            &scene.board.computes(),
            Duration::from_secs(20),
        )
    };
    assert_eq!(look(), [], "it is as it was");
    let reasons =
        |told: &[Report]| -> Vec<String> { told.iter().map(|one| one.reason.clone()).collect() };
    scene.tell("b", Some(entry(AssignmentState::Pending, 11)), None);
    assert_eq!(look(), []);
    scene.tell("b", Some(entry(AssignmentState::Assigned, 12)), None);
    let told = look();
    assert_eq!(reasons(&told), ["Assigned"]);
    assert_eq!(
        (told[0].regarding.kind, told[0].is_warning),
        ("AzureIdentity", false)
    );
    assert!(told[0].note.contains(&compute("b").assignment_name()));
    let failed = Entry {
        since: Duration::from_secs(13),
        ..because(AssignmentState::Failed, "Refused", "why")
    };
    scene.tell("a", Some(failed), None);
    let told = look();
    assert_eq!(reasons(&told), ["AssignmentFailed"]);
    assert!(
        told[0].is_warning && told[0].note.ends_with(": why"),
        "{}",
        told[0].note
    );
    scene.tell("b", Some(entry(AssignmentState::Removing, 14)), None);
    assert_eq!(look(), []);
    scene.tell("b", None, None);
    assert_eq!(reasons(&look()), ["Removed"]);
    assert_eq!(look(), []);
}
