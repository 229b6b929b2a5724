//! What a checkpoint holds: the objects that decide for this node's pods, and where the kernel saw
//! their addresses. No token, no key. Pure.
//!
//! Holds invariant 3 across a restart: a pod is only taken along with the evidence for each of its
//! addresses, and compared with the kernel again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::config::NodeMode;
use crate::agent::sightings::{Kept, Sightings};
use crate::agent::touched::Touched;
use crate::agent::world::{Change, World};
use crate::api::account;
use crate::api::object::Object;
use crate::model::account::AccountFacts;
use crate::model::facts::{
    AssignmentFacts, BindingFacts, ExceptionFacts, IdentityFacts, Labels, Mode, PodFacts, PodLife,
    PolicyFacts,
};

/// What was known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pods: Vec<Arc<PodFacts>>,
    addresses: Vec<Kept>,
    namespaces: BTreeMap<String, Labels>,
    /// With the time of first sight, in seconds since the epoch.
    identities: Vec<(Arc<IdentityFacts>, u64)>,
    bindings: Vec<Arc<BindingFacts>>,
    policies: Vec<PolicyFacts>,
    exceptions: Vec<Arc<ExceptionFacts>>,
    /// Where assignments count: the name of this node's `AzureAssignment`, and what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assignments: Option<(Arc<str>, Option<Arc<AssignmentFacts>>)>,
    /// The pods' service accounts, where they name identities; with the time of first sight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<(AccountFacts, u64)>,
}

impl Content {
    /// Of what is known, that which decides for pods that live here: the rest of the cluster is not
    /// needed while no new pod can become known.
    pub fn of(world: &World, addresses: Vec<Kept>) -> Self {
        let pods: Vec<_> = world.pods().cloned().collect();
        let namespaces: BTreeSet<&str> = pods.iter().flat_map(|pod| namespaces(pod)).collect();
        let labels = |name: &&str| Some(((*name).to_owned(), world.namespace(name)?.clone()));
        let identities = namespaces
            .iter()
            .flat_map(|name| world.known_identities(name));
        let bindings = namespaces.iter().flat_map(|name| world.bindings(name));
        let accounts: BTreeSet<_> = pods.iter().map(|pod| account::of_pod(pod)).collect();
        let accounts = accounts.iter().filter_map(|name| world.account(name));
        let mut content = Self {
            namespaces: namespaces.iter().filter_map(labels).collect(),
            identities: identities
                .map(|known| (known.facts.clone(), known.first_seen.as_secs()))
                .collect(),
            bindings: bindings.cloned().collect(),
            policies: world.policies().cloned().collect(),
            exceptions: world.exceptions().cloned().collect(),
            assignments: world.own_assignment(),
            accounts: accounts
                .map(|known| (known.facts.clone(), known.identity.first_seen.as_secs()))
                .collect(),
            pods: Vec::new(),
            addresses,
        };
        content.pods = pods;
        // In an order that does not change by itself: what is the same is not written again.
        content
            .addresses
            .sort_by(|a, b| (&a.pod, a.ip).cmp(&(&b.pod, b.ip)));
        content.identities.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        content
    }

    /// The evidence for addresses.
    pub fn addresses(&self) -> &[Kept] {
        &self.addresses
    }

    /// Service accounts do not count any more.
    pub fn forget_accounts(&mut self) {
        self.accounts.clear();
    }

    /// How many pods it holds.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// The objects and what was seen of them. A live pod without evidence for an address of its is
    /// left out, unless it is served from inside: then no address is believed.
    pub fn restore(self, mode: NodeMode) -> (World, Sightings) {
        let sightings = Sightings::recalled(&self.addresses);
        let evident: HashSet<_> = self
            .addresses
            .iter()
            .map(|kept| (&kept.pod, &kept.uid, kept.ip))
            .collect();
        let is_evident = |pod: &Arc<PodFacts>| {
            let has = |ip: &std::net::IpAddr| evident.contains(&(&pod.name, &pod.uid, *ip));
            let inside = mode.of(pod.mode) == Mode::InPod;
            pod.life == PodLife::Ended || inside || pod.ips.iter().all(has)
        };
        let pods = self.pods.iter().filter(|pod| is_evident(pod));
        let pods = pods.map(|pod| Object::Pod((**pod).clone()));
        let namespaces = self.namespaces.into_iter();
        let objects = namespaces
            .map(|(name, labels)| Object::Namespace(name, labels))
            .chain(
                self.bindings
                    .iter()
                    .map(|binding| Object::Binding((**binding).clone())),
            )
            .chain(self.policies.into_iter().map(Object::Policy))
            .chain(
                self.exceptions
                    .iter()
                    .map(|exception| Object::Exception((**exception).clone())),
            )
            .chain(pods);
        let (mut world, mut touched) = (World::default(), Touched::default());
        for object in objects {
            world.change(Change::Apply(object), Duration::ZERO, &mut touched);
        }
        if let Some((name, assignment)) = self.assignments {
            let own = assignment.map(|own| Change::Apply(Object::Assignment((*own).clone())));
            for change in [Change::Compute(name)].into_iter().chain(own) {
                world.change(change, Duration::ZERO, &mut touched);
            }
        }
        for (facts, first_seen) in self.identities {
            let apply = Change::Apply(Object::Identity((*facts).clone()));
            world.change(apply, Duration::from_secs(first_seen), &mut touched);
        }
        for (facts, first_seen) in self.accounts {
            let apply = Change::Apply(Object::ServiceAccount(facts));
            world.change(apply, Duration::from_secs(first_seen), &mut touched);
        }
        (world, sightings)
    }
}

/// The namespaces whose objects decide for a pod.
fn namespaces(pod: &PodFacts) -> impl Iterator<Item = &str> {
    let named = pod.wanted.iter().flatten();
    let named = named.filter_map(|name| name.split_once('/').map(|(namespace, _)| namespace));
    named.chain([&*pod.name.namespace])
}
