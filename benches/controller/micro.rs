//! The ledger and the plan alone, in this process, at the same size: what of an event is working out, and what is
//! reading, parsing and writing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanyard::api::Malformed;
use lanyard::api::binding::AzureIdentityBinding;
use lanyard::api::identity::AzureIdentity;
use lanyard::api::policy::AzureIdentityPolicy;
use lanyard::controller::desire::{Ledger, Touched};
use lanyard::controller::known::Shown;
use lanyard::controller::plan::{Situation, plan};
use lanyard::controller::record::Record;
use lanyard::controller::world::{Change, Meta, Node, Pod, Seen, World};
use lanyard::model::ids::ObjectName;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cast::{self, Size};

/// Times in milliseconds.
pub struct Found {
    /// A pod comes that brings an identity to its scale set: ledger, desire, plan.
    pub new: Vec<f64>,
    /// Another pod of an identity that is there already: ledger.
    pub more: Vec<f64>,
    /// Everything anew.
    pub all: f64,
}

const EVENTS: usize = 1000;

pub fn measure(size: Size) -> Found {
    // In a smaller one every identity is on all scale sets.
    let size = Size {
        sets: size.sets.max(10),
    };
    let mut world = whole(size);
    let (mut ledger, begun) = (Ledger::default(), Instant::now());
    ledger.update(&world, &Touched::all(&world));
    let all = milliseconds(begun);
    let (mut new, mut more) = (Vec::new(), Vec::new());
    for event in 0..EVENTS {
        let number = event * 17 % size.pods();
        // Every other pod comes to another scale set than its identity is on.
        let elsewhere = event % 2 == 0;
        let mut place = size.place(number);
        if elsewhere {
            place.set = (place.set + 1) % size.sets;
        }
        let name = ObjectName::new(cast::team(place.team), format!("late-{event}"));
        let change = Change::Pod(name.clone(), Some(pod(size, number, &place, event)));
        let begun = Instant::now();
        let computes = take(&mut world, &mut ledger, change);
        if elsewhere {
            assert!(planned(&world, &ledger, place.set), "it brings an identity");
            new.push(milliseconds(begun));
        } else {
            more.push(milliseconds(begun));
        }
        assert_eq!(computes, usize::from(elsewhere));
        take(&mut world, &mut ledger, Change::Pod(name, None));
    }
    Found { new, more, all }
}

fn take(world: &mut World, ledger: &mut Ledger, change: Change) -> usize {
    let mut touched = Touched::default();
    touched.note(&change);
    world.apply(change);
    ledger.update(world, &touched).len()
}

/// Whether the plan for a scale set on which nothing is assigned adds something.
fn planned(world: &World, ledger: &Ledger, set: usize) -> bool {
    let node = &world.nodes[&*cast::node_name(set, 0)];
    let desire = ledger.desire(node.compute.as_ref().unwrap());
    let nothing = Shown {
        at: Duration::ZERO,
        identities: BTreeMap::new(),
    };
    let plan = plan(&Situation {
        desire: &desire,
        immutable: ledger.immutable(),
        mutable: ledger.mutable(),
        record: &Record::default(),
        shown: Some(&nothing),
        existence: &BTreeMap::new(),
        setbacks: &BTreeMap::new(),
        grace: Duration::ZERO,
        now: Duration::ZERO,
    });
    plan.patch.is_some()
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

fn whole(size: Size) -> World {
    let mut world = World::default();
    let all = cast::policy(&[&cast::admitting()]);
    let facts = AzureIdentityPolicy::new("", spec(&all)).facts("all");
    world.apply(Change::Policy(
        "all".into(),
        Some(Arc::new(seen(&all, facts))),
    ));
    for number in 0..size.nodes() {
        let object = cast::node(number);
        let id = object["spec"]["providerID"].as_str().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let node = Node {
            uid: name.into(),
            compute: Ok(Arc::new(id.parse().unwrap())),
        };
        world.apply(Change::Node(name.into(), Some(node)));
    }
    for number in 0..size.teams() {
        let labels = labels(&cast::namespace(number));
        world.apply(Change::Namespace(
            cast::team(number).into(),
            Some(Arc::new(labels)),
        ));
    }
    for number in 0..size.identities() {
        let (team, app) = (Size::team_of(number), cast::app(number));
        let name = ObjectName::new(cast::team(team), app.clone());
        let object = cast::identity(team, &app);
        let stated = AzureIdentity::new("", spec(&object)).stated();
        let Seen { meta, said, .. } = seen(&object, stated.map(Arc::new));
        let identity = Seen {
            meta,
            said,
            status: None,
        };
        world.apply(Change::Identity(name.clone(), Some(Arc::new(identity))));
        let object = cast::binding(team, &app, ("app", &app));
        let facts = AzureIdentityBinding::new("", spec(&object)).facts(name.clone());
        world.apply(Change::Binding(name, Some(Arc::new(seen(&object, facts)))));
    }
    for number in 0..size.pods() {
        let place = size.place(number);
        let name = ObjectName::new(cast::team(place.team), cast::pod_name(number));
        let pod = pod(size, number, &place, number);
        world.apply(Change::Pod(name, Some(pod)));
    }
    world
}

fn pod(size: Size, number: usize, place: &cast::Place, uid: usize) -> Pod {
    Pod {
        uid: format!("40000000-0000-4000-8000-{uid:012x}").into(),
        node: cast::node_name(place.set, place.node).into(),
        account: "default".into(),
        labels: Arc::new(labels(&cast::pod(size, number, "any"))),
        wanted: None,
    }
}

fn labels<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object["metadata"]["labels"].clone()).unwrap()
}

fn spec<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object["spec"].clone()).unwrap()
}

fn seen<T>(object: &Value, said: Result<T, Malformed>) -> Seen<T> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let name = ObjectName::new(text("namespace"), text("name"));
    let meta = Meta {
        uid: name.to_string().into(),
        name: Some(name),
        generation: 1,
        version: "1".into(),
        ..Meta::default()
    };
    Seen {
        meta,
        said,
        status: (),
    }
}
