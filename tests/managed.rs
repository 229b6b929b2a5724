//! Managed identities against the simulator's Azure Resource Manager, over loopback: whatever call fails, each
//! comes to exist once and goes for good. Kubernetes is a map here; finalizers on a real API server are
//! in tests/controller.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lanyard::api::identity::AzureIdentity;
use lanyard::azure::access::{Access, AccessConfig, How};
use lanyard::azure::arm::ArmClient;
use lanyard::azure::https::{HttpsClient, HttpsConfig, Roots};
use lanyard::controller::board::Board;
use lanyard::controller::lease::Guard;
use lanyard::controller::managed::claim::Written;
use lanyard::controller::managed::known::{Answer, Failed};
use lanyard::controller::managed::outside::Objects;
use lanyard::controller::managed::step::Action;
use lanyard::controller::managed::{Claim, FINALIZER, Managed, Mode, Settings};
use lanyard::controller::world::{Change, Meta, Seen, SeenIdentity, World as Observed};
use lanyard::model::facts::{BindingFacts, LabelSelector, PolicyFacts, PolicyScope, Subject};
use lanyard::model::ids::ObjectName;
use lanyard::serve::clock;
use lanyard::sim::faults::{Effect, Fault, Matching, Target};
use lanyard::sim::{Listen, Simulator, World};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(90);
const CLUSTER: &str = "c0000000-0000-4000-8000-000000000001";
const GROUP: &str = "/subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/shop";

const WORLD: &str = "
tenant: {id: 7f6d1c1a-0000-4000-8000-000000000001}
identities:
  - name: foreign
    clientID: aaaaaaaa-0000-4000-8000-000000000001
    principalID: aaaaaaaa-0000-4000-8000-000000000002
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/lanyard-c0000000-0000-4000-8000-000000000001-taken
applications:
  - name: controller
    clientID: cccccccc-0000-4000-8000-000000000001
    principalID: cccccccc-0000-4000-8000-000000000002
    secrets: [s3cr3t-value-1]
vms: [{name: nobody}]
";

/// Objects that are changed at once, and watched.
#[derive(Clone)]
struct Watched(mpsc::UnboundedSender<(ObjectName, bool)>);

impl Objects for Watched {
    async fn call(&self, claim: &Claim, action: &Action) -> Result<Answer, Failed> {
        let held = matches!(action, Action::Hold);
        self.0.send((claim.name.clone(), held)).unwrap();
        Ok(Answer::Object(Written {
            version: claim.version + 1,
            held,
            owners: Vec::new(),
        }))
    }
}

struct Rig {
    azure: Simulator,
    managed: Managed<ArmClient, Watched, Guard>,
    board: Arc<Board>,
    mode: watch::Sender<Mode>,
    observed: Observed,
    written: mpsc::UnboundedReceiver<(ObjectName, bool)>,
    _credential: tempfile::TempDir,
}

fn arm(azure: &Simulator, dir: &std::path::Path) -> ArmClient {
    let https = HttpsClient::new(&HttpsConfig {
        roots: Roots::Only(azure.ca_pem().to_owned()),
        ..HttpsConfig::default()
    });
    let https = https.unwrap();
    let access = Access::new(AccessConfig {
        how: How::Secret {
            dir: dir.to_owned(),
        },
        client_id: Some("cccccccc-0000-4000-8000-000000000001".parse().unwrap()),
        tenant: Some("7f6d1c1a-0000-4000-8000-000000000001".parse().unwrap()),
        authority_host: format!("http://{}", azure.addresses().entra.unwrap()),
        audience: "https://management.azure.com".to_owned(),
        https: https.clone(),
        now: clock::since_epoch,
    });
    let endpoint = format!("http://{}", azure.addresses().arm.unwrap());
    ArmClient::new(&endpoint, https, access.unwrap(), clock::since_epoch).unwrap()
}

impl Rig {
    async fn start() -> Self {
        let world = World::from_yaml(WORLD).unwrap();
        let azure = Simulator::start(world, Listen::loopback()).await.unwrap();
        let credential = tempfile::tempdir().unwrap();
        std::fs::write(credential.path().join("clientSecret"), "s3cr3t-value-1\n").unwrap();
        let (sender, written) = mpsc::unbounded_channel();
        let (mode, receiver) = watch::channel(Mode::Serve);
        let board = Arc::new(Board::default());
        let managed = Managed::new(
            (
                arm(&azure, credential.path()),
                Watched(sender),
                Guard::forever(),
            ),
            Settings {
                cluster: CLUSTER.into(),
                issuer: Some("https://issuer.example".into()),
                grace: Duration::from_mins(15),
                refresh: Duration::from_mins(30),
            },
            board.clone(),
            receiver,
            clock::since_epoch,
        );
        let mut rig = Self {
            azure,
            managed,
            board,
            mode,
            observed: Observed::default(),
            written,
            _credential: credential,
        };
        rig.change(Change::Namespace("shop".into(), Some(Arc::default())));
        let policy = PolicyFacts {
            name: "p".into(),
            namespaces: LabelSelector::default(),
            scope: Arc::new(PolicyScope {
                managed_groups: vec![GROUP.parse().unwrap()],
                ..PolicyScope::default()
            }),
        };
        rig.change(Change::Policy("p".into(), Some(seen(policy))));
        rig
    }

    fn change(&mut self, change: Change) {
        self.observed.apply(change.clone());
        self.managed.update(&self.observed, &[change]);
    }

    /// An identity whose UID is its name, bound to two service accounts.
    fn identity(&mut self, name: &str) {
        let full = ObjectName::new("shop", name);
        let binding = BindingFacts {
            name: full.clone(),
            identity: name.into(),
            subjects: vec![Subject {
                pod_selector: None,
                service_accounts: vec!["web".into(), "worker".into()],
                namespace_selector: None,
            }],
            default: false,
        };
        self.change(Change::Binding(full.clone(), Some(seen(binding))));
        let object = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity", "metadata": {"name": name},
            "spec": {"managed": {"resourceGroup": GROUP, "location": "westeurope"}, "tokenSources": [{"federated": {}}]}});
        let object: AzureIdentity = serde_json::from_value(object).unwrap();
        let seen = Seen {
            meta: Meta {
                uid: name.into(),
                version: "1".into(),
                ..Meta::default()
            },
            said: object.stated().map(Arc::new),
            status: None,
        };
        self.change(Change::Identity(full, Some(Arc::new(seen))));
    }

    fn edit(&mut self, name: &ObjectName, edit: impl FnOnce(&mut SeenIdentity)) {
        let Some(seen) = self.observed.identities.get(name) else {
            return;
        };
        let mut seen = SeenIdentity::clone(seen);
        edit(&mut seen);
        let version: u64 = seen.meta.version.parse().unwrap();
        seen.meta.version = (version + 1).to_string().into();
        let gone = seen.meta.deleting && seen.meta.finalizers.is_empty();
        let now = (!gone).then(|| Arc::new(seen));
        self.change(Change::Identity(name.clone(), now));
    }

    fn delete(&mut self, name: &str) {
        let name = ObjectName::new("shop", name);
        self.edit(&name, |seen| seen.meta.deleting = true);
    }

    /// Lets the watch go on until something holds.
    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            while let Ok((name, held)) = self.written.try_recv() {
                let finalizers = if held {
                    vec![FINALIZER.to_owned()]
                } else {
                    Vec::new()
                };
                self.edit(&name, |seen| seen.meta.finalizers = finalizers);
            }
            self.managed.update(&self.observed, &[]);
            if holds(self) {
                return;
            }
            if Instant::now() >= end {
                let names = self.observed.identities.keys();
                let told: Vec<_> = names.map(|name| self.board.managed(name)).collect();
                panic!("waited in vain for {what}: {told:#?}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn ready(&self, name: &str) -> bool {
        let told = self.board.managed(&ObjectName::new("shop", name));
        told.is_some_and(|told| told.ready)
    }

    /// Names of the identities in Azure.
    fn in_azure(&self) -> Vec<String> {
        let shown = self.azure.arm().resources();
        let mut names: Vec<String> = shown
            .identities
            .iter()
            .map(|one| one.id.rsplit('-').next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }
}

fn seen<T>(said: T) -> Arc<Seen<T>> {
    Arc::new(Seen {
        meta: Meta::default(),
        said: Ok(said),
        status: (),
    })
}

fn effects() -> Vec<(&'static str, Effect, bool)> {
    let status = |code, retry_after| Effect::Status {
        code,
        retry_after,
        body: None,
    };
    vec![
        ("unavailable", status(503, None), false),
        ("throttled", status(429, Some(2)), false),
        ("conflict", status(409, None), false),
        ("reset", Effect::Reset, false),
        ("forgotten", Effect::Reset, true),
        ("html", Effect::Html, false),
        ("cut", Effect::Truncate, true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_each_comes_to_exist_once_and_goes_for_good() {
    let mut rig = Rig::start().await;
    let mut names = Vec::new();
    for (word, effect, applied) in effects() {
        for method in ["GET", "PUT", "DELETE"] {
            for after in 0..3 {
                let name = format!("{word}{method}{after}").to_lowercase();
                rig.azure.add_fault(Fault {
                    target: Target::Arm,
                    matching: Matching {
                        path_part: Some(name.clone()),
                        method: Some(method.to_owned()),
                        ..Matching::default()
                    },
                    after,
                    count: Some(1),
                    latency: None,
                    effect: Some(effect.clone()),
                    applied,
                });
                names.push(name);
            }
        }
    }
    for name in &names {
        rig.identity(name);
    }
    rig.until("all of them", |rig| {
        names.iter().all(|name| rig.ready(name))
    })
    .await;
    let mut expected: Vec<String> = names.clone();
    expected.push("taken".to_owned());
    expected.sort();
    assert_eq!(rig.in_azure(), expected, "each once, and the foreign one");
    for name in &names {
        let told = rig
            .board
            .managed(&ObjectName::new("shop", name.as_str()))
            .unwrap();
        assert_eq!(
            &*told.message,
            "the identity exists in Azure and trusts 2 service accounts"
        );
    }
    for name in &names {
        rig.delete(name);
    }
    rig.until("the end of all", |rig| rig.observed.identities.is_empty())
        .await;
    assert_eq!(rig.in_azure(), ["taken"]);
    let left: BTreeMap<_, _> = rig
        .azure
        .faults()
        .into_iter()
        .map(|fault| (fault.matching.path_part, fault.after))
        .collect();
    assert_eq!(left, BTreeMap::new(), "faults that never struck");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_identity_of_that_very_name_is_left_alone() {
    let mut rig = Rig::start().await;
    rig.identity("taken");
    rig.until("the refusal", |rig| {
        let told = rig.board.managed(&ObjectName::new("shop", "taken"));
        told.is_some_and(|told| &*told.reason == "NotOurs")
    })
    .await;
    rig.delete("taken");
    rig.until("its end", |rig| rig.observed.identities.is_empty())
        .await;
    assert_eq!(rig.in_azure(), ["taken"]);
    let writes = rig
        .azure
        .journal()
        .into_iter()
        .filter(|entry| entry.method != "GET");
    let to_arm = writes.filter(|entry| format!("{entry:?}").contains("userAssignedIdentities"));
    assert_eq!(to_arm.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_the_cluster_removes_or_keeps_and_holds_nobody() {
    for (mode, left) in [
        (Mode::Retain, vec!["a", "b", "taken"]),
        (Mode::Delete, vec!["taken"]),
    ] {
        let mut rig = Rig::start().await;
        rig.identity("a");
        rig.identity("b");
        rig.until("both", |rig| rig.ready("a") && rig.ready("b"))
            .await;
        rig.mode.send(mode).unwrap();
        rig.until("nobody held", |rig| {
            let mut all = rig.observed.identities.values();
            all.all(|seen| seen.meta.finalizers.is_empty())
        })
        .await;
        assert_eq!(rig.in_azure(), left, "{mode:?}");
        rig.identity("late");
        sleep(Duration::from_millis(300)).await;
        assert_eq!(rig.in_azure(), left, "nothing is created any more");
    }
}
