//! Objects as text → changes of the controller's world, with a fingerprint of what counts of each, so
//! that an event that changes nothing is no change. Pure.

use std::hash::RandomState;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::nodes::Computes;
use super::ours::Parts;
use super::pods::{Found, Shared};
use crate::api::Malformed;
use crate::api::kind::Kind;
use crate::controller::world::{Batch, Change, Seen};
use crate::kubernetes::Collection;
use crate::kubernetes::watch::{Digest, Named, Read, Reader, Version};
use crate::model::facts::Labels;
use crate::model::ids::ObjectName;

/// The kinds that the controller follows.
pub const FOLLOWED: [Kind; 8] = [
    Kind::Pods,
    Kind::Namespaces,
    Kind::Nodes,
    Kind::Identities,
    Kind::Bindings,
    Kind::Policies,
    Kind::Exceptions,
    Kind::Assignments,
];

/// Pods that count are on a node and have not ended: the API server need not tell of others.
const COUNTING: &str =
    "fieldSelector=spec.nodeName%21%3D%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";

/// The objects of a kind that concern the controller.
pub fn collection(kind: Kind) -> Collection {
    let whole = Collection::every(kind);
    match kind {
        Kind::Pods => Collection {
            selector: COUNTING.to_owned(),
            // Tens of thousands: what they cost the API server counts, too.
            binary: true,
            ..whole
        },
        Kind::Namespaces => Collection {
            metadata_only: true,
            ..whole
        },
        _ => whole,
    }
}

/// Reads the objects of one kind.
#[derive(Debug)]
pub struct Observed {
    kind: Kind,
    keys: RandomState,
    pods: Shared,
    computes: Computes,
}

impl Observed {
    /// Of a kind; of pods also those on their node's network, where agents tell them apart.
    pub fn new(kind: Kind, counts_hosts: bool) -> Self {
        Self {
            kind,
            keys: RandomState::new(),
            pods: Shared::of_pods(counts_hosts),
            computes: Computes::default(),
        }
    }

    fn pod(&self, found: Found) -> Read<Change> {
        let digest = found.pod.as_ref().map(|pod| {
            let of = (&pod.uid, &pod.node, &pod.account, &pod.labels, &pod.wanted);
            Digest::of(&self.keys, of)
        });
        let name = found.name;
        Read {
            object: found.pod.map(|pod| Change::Pod(name.clone(), Some(pod))),
            name,
            version: Version::of(&found.version),
            malformed: None,
            digest,
        }
    }

    fn node(&mut self, text: &RawValue) -> Result<Read<Change>, Malformed> {
        let Named { name, version } = Named::read(text)?;
        let node = self.computes.read(text)?;
        let compute = match &node.compute {
            Ok(compute) => compute.id.as_written(),
            Err(none) => none.0.as_str(),
        };
        Ok(Read {
            digest: Some(Digest::of(&self.keys, (&node.uid, compute))),
            object: Some(Change::Node(name.name.clone(), Some(node))),
            name,
            version: Version::of(&version),
            malformed: None,
        })
    }

    fn namespace(&self, text: &RawValue) -> Result<Read<Change>, Malformed> {
        #[derive(Deserialize)]
        struct Whole {
            metadata: Labelled,
        }
        #[derive(Deserialize)]
        struct Labelled {
            labels: Option<Labels>,
        }
        let Named { name, version } = Named::read(text)?;
        let whole: Whole =
            serde_json::from_str(text.get()).map_err(|error| Malformed::at("object", error))?;
        let mut labels = whole.metadata.labels.unwrap_or_default();
        // The API server sets it on every namespace, and nobody may say otherwise.
        labels.insert(
            "kubernetes.io/metadata.name".to_owned(),
            name.name.to_string(),
        );
        Ok(Read {
            digest: Some(Digest::of(&self.keys, &labels)),
            object: Some(Change::Namespace(name.name.clone(), Some(Arc::new(labels)))),
            name,
            version: Version::of(&version),
            malformed: None,
        })
    }

    fn ours(&self, text: &RawValue) -> Result<Read<Change>, Malformed> {
        let parts = Parts::of(self.kind, text)?;
        let name = parts.name.clone();
        let version = Version::of(&parts.meta.version);
        let mut digest = Some(Digest::of(&self.keys, parts.counting()));
        let cluster = name.name.clone();
        let (object, malformed) = match self.kind {
            Kind::Identities => {
                let seen = parts.identity();
                if seen.said.as_ref().is_ok_and(|said| said.managed.is_some()) {
                    // Whoever writes into it waits to see the version that he made.
                    digest = None;
                }
                let problem = problem(&seen);
                let change = Change::Identity(name.clone(), Some(Arc::new(seen)));
                (Some(change), problem)
            }
            Kind::Bindings => {
                let seen = parts.binding();
                let problem = problem(&seen);
                let change = Change::Binding(name.clone(), Some(Arc::new(seen)));
                (Some(change), problem)
            }
            Kind::Policies => {
                let seen = parts.policy();
                let problem = problem(&seen);
                (Some(Change::Policy(cluster, Some(Arc::new(seen)))), problem)
            }
            Kind::Exceptions => {
                let seen = parts.exception();
                let problem = problem(&seen);
                let change = Change::Exception(cluster, Some(Arc::new(seen)));
                (Some(change), problem)
            }
            _ => {
                // Its versions are what the next write of it is held against.
                digest = None;
                match parts.assignment() {
                    Ok(whole) => {
                        let change = Change::Assignment(cluster, Some(Arc::new(whole)));
                        (Some(change), None)
                    }
                    Err(problem) => (None, Some(problem)),
                }
            }
        };
        Ok(Read {
            name,
            version,
            object,
            malformed,
            digest,
        })
    }
}

fn problem<Spec, Status>(seen: &Seen<Spec, Status>) -> Option<Malformed> {
    seen.said.as_ref().err().cloned()
}

impl Reader for Observed {
    type Object = Change;
    type Change = Change;
    type Batch = Batch;

    fn kind(&self) -> Kind {
        self.kind
    }

    fn read(&mut self, text: &RawValue) -> Result<Read<Change>, Malformed> {
        match self.kind {
            Kind::Pods => {
                let found = self.pods.read(text.get())?;
                Ok(self.pod(found))
            }
            Kind::Nodes => self.node(text),
            Kind::Namespaces => self.namespace(text),
            _ => self.ours(text),
        }
    }

    fn read_binary(&mut self, bytes: Bytes) -> Result<Read<Change>, Malformed> {
        let found = self.pods.read_binary(bytes)?;
        Ok(self.pod(found))
    }

    fn applied(&self, _: &ObjectName, object: Change) -> Change {
        object
    }

    fn deleted(&self, name: ObjectName) -> Change {
        match self.kind {
            Kind::Pods => Change::Pod(name, None),
            Kind::Nodes => Change::Node(name.name, None),
            Kind::Identities => Change::Identity(name, None),
            Kind::Bindings => Change::Binding(name, None),
            Kind::Policies => Change::Policy(name.name, None),
            Kind::Exceptions => Change::Exception(name.name, None),
            Kind::Assignments => Change::Assignment(name.name, None),
            // Service accounts are not followed.
            Kind::Namespaces | Kind::ServiceAccounts => Change::Namespace(name.name, None),
        }
    }

    fn batch(changes: Vec<Change>, complete: bool) -> Batch {
        Batch { changes, complete }
    }
}
