//! Which service accounts may use managed identities: whom their federated credentials are to trust.
//! Pure.
//!
//! A binding's entry that names service accounts means these, in the namespaces that it chooses, whether
//! they have pods or not: a first pod is to find its credential there. An entry that names none means the
//! accounts of the pods that it matches now.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::controller::world::{Pod, World};
use crate::model::facts::Subject;
use crate::model::ids::ObjectName;

/// The service accounts of each of these identities, by identity.
#[must_use]
pub fn bound<'a>(
    world: &World,
    identities: impl IntoIterator<Item = &'a ObjectName>,
) -> BTreeMap<ObjectName, BTreeSet<ObjectName>> {
    let mut bound = BTreeMap::new();
    // A pass costs the pods times the entries that can be about them, not all entries.
    let (mut own, mut any) = (HashMap::<&str, Vec<_>>::new(), Vec::new());
    for identity in identities {
        let mut accounts = BTreeSet::new();
        for subject in subjects(world, identity) {
            if !subject.service_accounts.is_empty() {
                stated(world, identity, subject, &mut accounts);
            } else if subject.namespace_selector.is_some() {
                any.push((identity, subject));
            } else {
                let entries = own.entry(&*identity.namespace).or_default();
                entries.push((identity, subject));
            }
        }
        bound.insert(identity.clone(), accounts);
    }
    if own.is_empty() && any.is_empty() {
        return bound;
    }
    for (name, pod) in &world.pods {
        let entries = own.get(&*name.namespace).into_iter().flatten();
        for (identity, subject) in entries.chain(&any) {
            if takes(subject, identity, name, pod, world)
                && let Some(accounts) = bound.get_mut(*identity)
            {
                accounts.insert(ObjectName::new(name.namespace.clone(), pod.account.clone()));
            }
        }
    }
    bound
}

/// Whether the service accounts of an identity depend on which pods there are.
#[must_use]
pub fn follows_pods(world: &World, identity: &ObjectName) -> bool {
    subjects(world, identity).any(|subject| subject.service_accounts.is_empty())
}

fn subjects<'a>(world: &'a World, identity: &'a ObjectName) -> impl Iterator<Item = &'a Subject> {
    let bindings = world.bindings_of(&identity.namespace);
    let said = bindings.filter(|seen| !seen.meta.deleting);
    let said = said.filter_map(|seen| seen.said.as_ref().ok());
    said.filter(|binding| *binding.identity == *identity.name)
        .flat_map(|binding| &binding.subjects)
}

fn stated(
    world: &World,
    identity: &ObjectName,
    subject: &Subject,
    accounts: &mut BTreeSet<ObjectName>,
) {
    let mut add = |namespace: &std::sync::Arc<str>| {
        let names = subject.service_accounts.iter();
        accounts.extend(names.map(|name| ObjectName::new(namespace.clone(), name.as_str())));
    };
    let Some(selector) = &subject.namespace_selector else {
        return add(&identity.namespace);
    };
    for (namespace, labels) in &world.namespaces {
        if selector.matches(labels) {
            add(namespace);
        }
    }
}

/// Whether a pod gets the identity by this entry, and does not ask for others.
fn takes(
    subject: &Subject,
    identity: &ObjectName,
    name: &ObjectName,
    pod: &Pod,
    world: &World,
) -> bool {
    let own = name.namespace == identity.namespace;
    let namespace = match &subject.namespace_selector {
        None => own,
        Some(selector) => world
            .namespaces
            .get(&name.namespace)
            .is_some_and(|labels| selector.matches(labels)),
    };
    let labels = || {
        let selector = subject.pod_selector.as_ref();
        selector.is_none_or(|selector| selector.matches(&pod.labels))
    };
    let asks = || match &pod.wanted {
        // Another namespace's identity counts only where the pod names it so.
        None => own,
        Some(wanted) => wanted.iter().any(|wanted| match wanted.split_once('/') {
            Some((namespace, name)) => *namespace == *identity.namespace && *name == *identity.name,
            None => own && **wanted == *identity.name,
        }),
    };
    namespace && labels() && asks()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::controller::world::{Change, Meta, Seen};
    use crate::model::facts::{BindingFacts, LabelSelector};

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn selector(pairs: &[(&str, &str)]) -> LabelSelector {
        LabelSelector {
            match_labels: labels(pairs),
            expressions: Vec::new(),
        }
    }

    fn world(subject: Subject) -> World {
        let mut world = World::default();
        for (namespace, team) in [("shop", "a"), ("bank", "a"), ("other", "b")] {
            let labels = Arc::new(labels(&[("team", team)]));
            world.apply(Change::Namespace(namespace.into(), Some(labels)));
        }
        let name = ObjectName::new("shop", "b");
        let binding = Seen {
            meta: Meta::default(),
            said: Ok(BindingFacts {
                name: name.clone(),
                identity: "payments".into(),
                subjects: vec![subject],
                default: false,
            }),
            status: (),
        };
        world.apply(Change::Binding(name, Some(Arc::new(binding))));
        world
    }

    fn pod(world: &mut World, name: (&str, &str), account: &str, wanted: Option<&[&str]>) {
        let name = ObjectName::new(name.0, name.1);
        let wanted = wanted.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
        let pod = Pod {
            uid: name.to_string().into(),
            node: "n".into(),
            account: account.into(),
            labels: Arc::new(labels(&[("app", "web")])),
            wanted,
        };
        world.apply(Change::Pod(name, Some(pod)));
    }

    fn found(world: &World) -> Vec<String> {
        let identity = ObjectName::new("shop", "payments");
        let mut bound = bound(world, [&identity]);
        let accounts = bound.remove(&identity).unwrap();
        accounts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn stated_accounts_count_before_there_are_pods() {
        let subject = Subject {
            pod_selector: Some(selector(&[("app", "web")])),
            service_accounts: vec!["web".into(), "worker".into()],
            namespace_selector: None,
        };
        let own = world(subject.clone());
        assert_eq!(found(&own), ["shop/web", "shop/worker"]);
        assert!(!follows_pods(&own, &ObjectName::new("shop", "payments")));
        let several = world(Subject {
            namespace_selector: Some(selector(&[("team", "a")])),
            service_accounts: vec!["web".into()],
            ..subject
        });
        assert_eq!(found(&several), ["bank/web", "shop/web"]);
    }

    #[test]
    fn without_stated_accounts_those_of_the_pods_that_use_it_count() {
        let mut own = world(Subject {
            pod_selector: Some(selector(&[("app", "web")])),
            service_accounts: Vec::new(),
            namespace_selector: None,
        });
        pod(&mut own, ("shop", "p1"), "one", None);
        pod(&mut own, ("shop", "p2"), "one", None);
        pod(&mut own, ("shop", "p3"), "two", Some(&["payments"]));
        pod(&mut own, ("shop", "p4"), "other", Some(&["billing"]));
        pod(
            &mut own,
            ("bank", "p5"),
            "foreign",
            Some(&["shop/payments"]),
        );
        assert_eq!(found(&own), ["shop/one", "shop/two"]);
        own.apply(Change::Pod(ObjectName::new("shop", "p3"), None));
        assert_eq!(found(&own), ["shop/one"]);
    }

    #[test]
    fn pods_of_other_namespaces_must_name_it() {
        let mut all = world(Subject {
            pod_selector: None,
            service_accounts: Vec::new(),
            namespace_selector: Some(selector(&[("team", "a")])),
        });
        pod(&mut all, ("bank", "p1"), "silent", None);
        pod(&mut all, ("bank", "p2"), "short", Some(&["payments"]));
        pod(
            &mut all,
            ("bank", "p3"),
            "full",
            Some(&["x", "shop/payments"]),
        );
        pod(
            &mut all,
            ("other", "p4"),
            "unmatched",
            Some(&["shop/payments"]),
        );
        assert_eq!(found(&all), ["bank/full"]);
    }
}
