//! However the world came to be, it is what a fresh list says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::to_raw_value;

use super::*;
use crate::kubernetes::watch::{Named, Reader, Version};

/// What happens to one of a few objects.
#[derive(Clone, Debug)]
enum Step {
    /// It is written: what of it, by a small number.
    Write(u8, u8),
    /// It is deleted.
    Delete(u8),
    /// Events are lost from here on.
    Lose,
    /// All is listed again.
    List,
    /// What was told last is told once more.
    Repeat,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_u8, 0..12_u8).prop_map(|(object, what)| Step::Write(object, what)),
        3 => (0..4_u8).prop_map(Step::Delete),
        1 => Just(Step::Lose),
        2 => Just(Step::List),
        1 => Just(Step::Repeat),
    ]
}

/// One of the objects that a kind may have, with a few things that count and a few that do not.
fn object(kind: Kind, object: u8, what: u8, version: u64) -> Value {
    let name = format!("o{object}");
    let mut made = match kind {
        Kind::Pods => pod(&name),
        Kind::Identities => identity(&name),
        Kind::Bindings => binding(&name, "i"),
        _ => json!({"metadata": {"name": name, "uid": "u"}, "spec": {}}),
    };
    made["metadata"]["resourceVersion"] = json!(version.to_string());
    if what.is_multiple_of(2) {
        made["metadata"]["annotations"] = json!({"note": version.to_string()});
    }
    match (kind, what % 6) {
        (Kind::Pods, 1) => made["metadata"]["annotations"] = json!({"lanyard.dev/identity": "i"}),
        (Kind::Pods, 2) => made["status"]["phase"] = json!("Failed"),
        (Kind::Pods, 3) => made["spec"]["hostNetwork"] = json!(true),
        (Kind::Pods, 4) => made["metadata"]["uid"] = json!("another"),
        (Kind::Pods, 5) => made["spec"]["nodeName"] = json!("node-2"),
        (Kind::Identities, 1) => made["spec"]["immutable"] = json!(true),
        (Kind::Identities, 2) => made["spec"] = json!({"clientID": "nonsense"}),
        (Kind::Identities, 3) => made["status"] = json!({"observedGeneration": 1}),
        (Kind::Bindings, 1) => made["spec"]["default"] = json!(true),
        (Kind::Bindings, 2) => made["spec"]["subjects"] = json!([]),
        (Kind::Nodes, 1) => {
            made["spec"]["providerID"] = json!(format!("azure://{SET}/virtualMachines/1"));
        }
        (Kind::Nodes, 2) => made["spec"]["providerID"] = json!("gce://x"),
        _ => {}
    }
    made
}

struct Follows {
    mirror: Mirror<Observed>,
    world: World,
    /// Changes that were none.
    idle: usize,
}

impl Follows {
    fn new(kind: Kind) -> Self {
        Self {
            mirror: Mirror::new(Observed::new(kind, false)),
            world: World::default(),
            idle: 0,
        }
    }

    fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let before = shown(&self.world);
            self.world.apply(change);
            self.idle += usize::from(before == shown(&self.world));
        }
    }

    fn list(&mut self, objects: &BTreeMap<u8, Value>) {
        let objects: Vec<_> = objects
            .values()
            .map(|object| to_raw_value(object).unwrap())
            .collect();
        let read: Vec<_> = objects
            .iter()
            .map(|text| self.mirror.read(text).unwrap())
            .collect();
        let changes = self.mirror.replace(read);
        self.take(changes);
    }

    fn hear(&mut self, object: &Value, is_deleted: bool) {
        let text = to_raw_value(object).unwrap();
        let change = if is_deleted {
            let named = Named::read(&text).unwrap();
            self.mirror.delete(&named.name, Version::of(&named.version))
        } else {
            let read = self.mirror.read(&text).unwrap();
            self.mirror.take(read)
        };
        self.take(change);
    }
}

/// The world without versions, which an edit that does not count leaves behind.
fn shown(world: &World) -> BTreeMap<String, String> {
    let pods = world
        .pods
        .iter()
        .map(|(name, pod)| (name.to_string(), format!("{pod:?}")));
    let nodes = world
        .nodes
        .iter()
        .map(|(name, node)| (name.to_string(), format!("{node:?}")));
    let identities = world.identities.iter().map(|(name, seen)| {
        let mut seen = (**seen).clone();
        seen.meta.version = "".into();
        (name.to_string(), format!("{seen:?}"))
    });
    let bindings = world.bindings.iter().map(|(name, seen)| {
        let mut seen = (**seen).clone();
        seen.meta.version = "".into();
        (name.to_string(), format!("{seen:?}"))
    });
    pods.chain(nodes)
        .chain(identities)
        .chain(bindings)
        .collect()
}

fn follow(kind: Kind, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut objects, mut follows) = (BTreeMap::new(), Follows::new(kind));
    let (mut version, mut hears) = (0, true);
    let mut last: Option<(Value, bool)> = None;
    for step in steps {
        version += 1;
        let told = match step {
            Step::Write(name, what) => {
                let written = object(kind, name, what, version);
                objects.insert(name, written.clone());
                Some((written, false))
            }
            Step::Delete(name) => objects.remove(&name).map(|mut gone: Value| {
                gone["metadata"]["resourceVersion"] = json!(version.to_string());
                (gone, true)
            }),
            Step::Lose => {
                hears = false;
                None
            }
            Step::List => {
                follows.list(&objects);
                hears = true;
                last = None;
                None
            }
            Step::Repeat => last.clone(),
        };
        if let Some((object, is_deleted)) = told.filter(|_| hears) {
            follows.hear(&object, is_deleted);
            last = Some((object, is_deleted));
        }
        if hears {
            let mut fresh = Follows::new(kind);
            fresh.list(&objects);
            prop_assert_eq!(shown(&follows.world), shown(&fresh.world));
            prop_assert_eq!(follows.mirror.malformed(), fresh.mirror.malformed());
        }
    }
    prop_assert_eq!(follows.idle, 0, "a change that changed nothing");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn pods(steps in prop::collection::vec(step(), 1..40)) {
        follow(Kind::Pods, steps)?;
    }

    #[test]
    fn nodes(steps in prop::collection::vec(step(), 1..40)) {
        follow(Kind::Nodes, steps)?;
    }

    #[test]
    fn identities(steps in prop::collection::vec(step(), 1..40)) {
        follow(Kind::Identities, steps)?;
    }

    #[test]
    fn bindings(steps in prop::collection::vec(step(), 1..40)) {
        follow(Kind::Bindings, steps)?;
    }
}

#[test]
fn a_bookmark_needs_no_object() {
    let text = to_raw_value(
        &json!({"kind": "Pod", "metadata": {"resourceVersion": "9", "creationTimestamp": null},
        "spec": {"containers": null}, "status": {}}),
    )
    .unwrap();
    assert_eq!(Named::read(&text).unwrap().version, "9");
    assert_eq!(Observed::new(Kind::Pods, false).kind(), Kind::Pods);
}
