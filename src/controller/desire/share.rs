//! What one pod contributes: the bindings that give it something, the identities that they give,
//! and the compute resource that it runs on. In: the pod and the world. Out: a share. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::admission::Target;
use crate::controller::world::{Pod, Seen, World};
use crate::model::compute::Compute;
use crate::model::conditions::{PodView, binds};
use crate::model::facts::BindingFacts;
use crate::model::ids::{ArmId, ObjectName};

/// A pod's part of every count. What was added is what is taken away again, whatever changed in
/// between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The compute resource that it runs on; `None`: its node is none, or not known.
    pub compute: Option<Arc<Compute>>,
    /// Bindings that give it something.
    pub bindings: Box<[ObjectName]>,
    /// What they give, each identity once.
    pub targets: Box<[Arc<Target>]>,
}

impl Share {
    /// Works a pod's share out.
    pub fn of(
        name: &ObjectName,
        pod: &Pod,
        world: &World,
        nodes: &HashMap<Arc<str>, Arc<Compute>>,
        targets: &mut BTreeMap<ObjectName, Arc<Target>>,
    ) -> Self {
        let mut bindings = Vec::new();
        let mut given: Vec<Arc<Target>> = Vec::new();
        for namespace in namespaces(name, pod) {
            let giving = world.bindings_of(namespace);
            for facts in giving
                .filter(|seen| counts(seen, name, pod, world))
                .filter_map(|seen| seen.said.as_ref().ok())
            {
                bindings.push(facts.name.clone());
                let identity =
                    ObjectName::new(facts.name.namespace.clone(), facts.identity.clone());
                if given.iter().all(|target| target.name != identity) {
                    let target = targets
                        .entry(identity)
                        .or_insert_with_key(|identity| Arc::new(Target::of(identity, world)));
                    given.push(target.clone());
                }
            }
        }
        Self {
            compute: nodes.get(&pod.node).cloned(),
            bindings: bindings.into(),
            targets: given.into(),
        }
    }

    /// The identities that are to be assigned for it, each once, with the objects that name it.
    pub fn resources(&self) -> BTreeMap<&ArmId, BTreeSet<&ObjectName>> {
        let mut resources: BTreeMap<&ArmId, BTreeSet<&ObjectName>> = BTreeMap::new();
        for target in &self.targets {
            if let Some(id) = target.assignable() {
                resources.entry(id).or_default().insert(&target.name);
            }
        }
        resources
    }
}

/// Whether a binding gives the pod something: it names the pod, and the pod does not ask for others.
/// From another namespace only what the pod asks for counts.
pub(super) fn counts(
    seen: &Seen<BindingFacts>,
    name: &ObjectName,
    pod: &Pod,
    world: &World,
) -> bool {
    let Ok(binding) = &seen.said else {
        return false;
    };
    let (own, namespace) = (&name.namespace, &binding.name.namespace);
    let asked = match &pod.wanted {
        None => namespace == own,
        Some(names) => names.iter().any(|name| {
            let (from, name) = name.split_once('/').unwrap_or((own, name));
            *from == **namespace && *name == *binding.identity
        }),
    };
    asked && binds(binding, view(name, pod, world))
}

/// The pod as bindings see it.
fn view<'a>(name: &'a ObjectName, pod: &'a Pod, world: &'a World) -> PodView<'a> {
    PodView {
        namespace: &name.namespace,
        namespace_labels: world.namespaces.get(&name.namespace).map(Arc::as_ref),
        account: &pod.account,
        labels: &pod.labels,
    }
}

/// The namespaces whose bindings may count.
fn namespaces<'a>(name: &'a ObjectName, pod: &'a Pod) -> BTreeSet<&'a str> {
    let own = &*name.namespace;
    match &pod.wanted {
        None => BTreeSet::from([own]),
        Some(names) => names
            .iter()
            .map(|name| name.split_once('/').map_or(own, |(namespace, _)| namespace))
            .collect(),
    }
}
