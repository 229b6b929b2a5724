//! What a change of objects may bear on, so that the rest need not be worked out again. Pure.
//!
//! Every node hears of all identities and bindings of the cluster; most of them concern none of its
//! pods, and must cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::grants::{PodGrants, grants};
use super::world::World;
use crate::model::facts::PodFacts;
use crate::model::ids::ObjectName;

/// What changed since last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// These pods themselves.
    pub pods: HashSet<ObjectName>,
    /// Bindings, identities or labels of these namespaces.
    pub namespaces: HashSet<Arc<str>>,
    /// Something that may bear on every pod.
    pub everything: bool,
    /// Exceptions, this node's assignments, or which namespaces are enforced.
    pub beside_grants: bool,
}

impl Touched {
    /// Everything is to be worked out anew.
    #[must_use]
    pub fn all() -> Self {
        Self {
            everything: true,
            beside_grants: true,
            ..Self::default()
        }
    }

    fn bears_on(&self, pod: &PodFacts) -> bool {
        let named = |name: &String| {
            let namespace = name.split_once('/').map(|(namespace, _)| namespace);
            namespace.is_some_and(|namespace| self.namespaces.contains(namespace))
        };
        self.everything
            || self.pods.contains(&pod.name)
            || self.namespaces.contains(&pod.name.namespace)
            || pod.wanted.iter().flatten().any(named)
    }
}

/// Each pod's grants, worked out again only where a change bears on them.
#[derive(Debug, Default)]
pub struct GrantBook {
    of: HashMap<ObjectName, Arc<PodGrants>>,
}

impl GrantBook {
    /// Takes over what was touched; whether anything differs now.
    pub fn update(&mut self, world: &World, touched: &Touched) -> bool {
        let mut differs = false;
        let gone = |name: &ObjectName| {
            (touched.everything || touched.pods.contains(name)) && world.pod(name).is_none()
        };
        if touched.everything || !touched.pods.is_empty() {
            let before = self.of.len();
            self.of.retain(|name, _| !gone(name));
            differs = self.of.len() != before;
        }
        if touched.everything || !touched.pods.is_empty() || !touched.namespaces.is_empty() {
            for pod in world.pods().filter(|pod| touched.bears_on(pod)) {
                let now = grants(pod, world);
                if self.of.get(&pod.name).is_none_or(|before| **before != now) {
                    self.of.insert(pod.name.clone(), Arc::new(now));
                    differs = true;
                }
            }
        }
        differs
    }

    /// A pod's grants.
    pub fn of(&self, pod: &Arc<PodFacts>, world: &World) -> Arc<PodGrants> {
        let known = self.of.get(&pod.name).cloned();
        known.unwrap_or_else(|| Arc::new(grants(pod, world)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testkit::*;
    use super::super::world::Change;
    use super::*;
    use crate::api::object::Object;

    /// A world of two teams, each with an identity, a binding and a pod; `a`'s pod asks for `b`'s.
    fn objects() -> Vec<Object> {
        let everyone = json!([{"namespaceSelector": {}}]);
        let mut all = Vec::new();
        for (team, n) in [("a", 1), ("b", 2)] {
            all.extend([
                namespace(team, team),
                identity(team, "id", n),
                binding(team, "id", &everyone, false),
                policy(team, team, &[arm(&format!("rg-{team}"), "id").as_str()]),
            ]);
        }
        all.extend([
            pod("a", "p", "10.0.0.1", Some("b/id")),
            pod("a", "q", "10.0.0.2", None),
            pod("b", "p", "10.0.0.3", None),
            pod("c", "p", "10.0.0.4", None),
            workload_pod("a", "w", "10.0.0.5", None),
            account_of_pod("a", "w", 7),
            workload_policy("w", "a", &[7]),
        ]);
        all
    }

    /// Whatever single object goes or comes, in any order: the book says what working everything out
    /// anew says.
    #[test]
    fn nothing_that_a_change_bears_on_is_overlooked() {
        let all = objects();
        let mut world = world(all.clone());
        let mut book = GrantBook::default();
        book.update(&world, &Touched::all());
        let second = std::time::Duration::from_secs(1);
        let check = |world: &World, book: &GrantBook, what: &str| {
            for pod in world.pods() {
                assert_eq!(*book.of(pod, world), grants(pod, world), "{what}");
            }
            assert_eq!(book.of.len(), world.pods().count(), "{what}");
        };
        for object in &all {
            for change in [Change::Delete(object.key()), Change::Apply(object.clone())] {
                let what = format!("{change:?}");
                let mut touched = Touched::default();
                world.change(change, second, &mut touched);
                book.update(&world, &touched);
                check(&world, &book, &what);
            }
        }
    }

    #[test]
    fn what_concerns_no_pod_here_and_what_changes_nothing_costs_nothing() {
        let mut world = world(objects());
        let mut book = GrantBook::default();
        assert!(book.update(&world, &Touched::all()));
        let second = std::time::Duration::from_secs(1);
        let mut touched = Touched::default();
        for object in objects() {
            world.change(Change::Apply(object), second, &mut touched);
        }
        assert_eq!(touched, Touched::default(), "nothing changed");
        world.change(
            Change::Apply(identity("elsewhere", "id", 9)),
            second,
            &mut touched,
        );
        assert!(!book.update(&world, &touched));
        world.change(
            Change::Delete(identity("b", "id", 2).key()),
            second,
            &mut touched,
        );
        let before = book.of.get(&ObjectName::new("a", "q")).cloned();
        assert!(book.update(&world, &touched));
        let after = book.of.get(&ObjectName::new("a", "q")).cloned();
        assert!(
            before.zip(after).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b)),
            "untouched"
        );
    }
}
