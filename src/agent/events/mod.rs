//! Kubernetes Events on pods, for refusals that their owners can mend and for passing Lanyard by, and on identities, for trouble
//! with their credentials.
//!
//! In: refusals, from the request path, which never waits: what does not fit into a short queue is
//! dropped and counted. Out: Events (`events.k8s.io`) on the object, in [`publish`]. Standalone there is
//! nobody to tell.

mod ledger;
pub mod publish;
pub mod reason;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus::{IntCounter, Registry};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::ledger::{Entry, Ledger};
use self::reason::{About, Reason, UNHEARD_NOTE, bypass_note, identity_note, note, taken_note};
use super::select::Refusal;
use crate::model::facts::{IdentityFacts, PodFacts};
use crate::model::fault::Fault;
use crate::model::ids::ObjectName;
use crate::serve::series;

/// Events that wait to be sent.
const QUEUE: usize = 64;

/// What is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Regarding {
    /// A pod.
    Pod,
    /// An `AzureIdentity`.
    Identity,
}

/// One thing to tell about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Of which kind the object is.
    pub regarding: Regarding,
    /// The object.
    pub name: ObjectName,
    /// Its UID.
    pub uid: Arc<str>,
    /// Why.
    pub reason: Reason,
    /// In words, at most 1 KiB.
    pub note: String,
    /// How often it happened.
    pub count: u32,
}

/// What is to be told comes out here.
pub type Tellings = mpsc::Receiver<Telling>;

/// Where refusals and other trouble are told. Tells nobody until somebody sends. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    teller: Arc<OnceLock<Teller>>,
    dropped: IntCounter,
}

#[derive(Debug)]
struct Teller {
    queue: mpsc::Sender<Telling>,
    ledger: Mutex<Ledger>,
    hasher: RandomState,
    start: Instant,
}

/// A refusal of a request.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// The pod that asked.
    pub pod: &'a PodFacts,
    /// What it was told.
    pub fault: &'a Fault,
    /// Selection's refusal, where that refused.
    pub refusal: Option<&'a Refusal>,
    /// The identity, where one was chosen.
    pub identity: Option<&'a ObjectName>,
    /// The audience, where a token was asked for.
    pub resource: Option<&'a str>,
}

impl Events {
    /// Registers the counter of what was not sent.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let dropped = series::counter(
            registry,
            "lanyard_events_dropped_total",
            "Kubernetes Events on pods and identities that were not sent: too many at once, or the API server did not take them.",
        )?;
        Ok(Self {
            teller: Arc::default(),
            dropped,
        })
    }

    /// From now on refusals come out of the receiver; what whoever sends them cannot send he counts.
    /// Meant to be called once: later calls get a receiver that nothing comes out of.
    pub fn start(&self) -> (Tellings, IntCounter) {
        let (queue, tellings) = mpsc::channel(QUEUE);
        let teller = Teller {
            queue,
            ledger: Mutex::default(),
            hasher: RandomState::new(),
            start: Instant::now(),
        };
        let _ = self.teller.set(teller);
        (tellings, self.dropped.clone())
    }

    /// Tells of a refusal, if it is one to tell and was not told lately. Never waits.
    pub fn refused(&self, refused: &Refused<'_>) {
        let Some(teller) = self.teller.get() else {
            return;
        };
        let Some(reason) = Reason::of(refused.fault.kind, refused.refusal) else {
            return;
        };
        // The resource is no part of it: a pod may invent any number.
        let about = teller
            .hasher
            .hash_one((refused.identity, &refused.fault.detail));
        let pod = refused.pod;
        let what = About {
            pod: &pod.name,
            identity: refused.identity,
            resource: refused.resource,
        };
        let telling = |count| Telling {
            regarding: Regarding::Pod,
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            reason,
            note: note(reason, refused.fault, what),
            count,
        };
        self.tell(teller, (&pod.uid, reason, about), telling);
    }

    /// Tells that a pod has itself what is to be laid in its network, unless it was told lately. Never waits.
    pub fn taken(&self, pod: &PodFacts, text: &str) {
        self.about_pod(pod, Reason::EndpointTaken, &taken_note(text));
    }

    /// Tells of a pod that passes Lanyard by, unless that was told lately. Never waits.
    pub fn bypasses(&self, pod: &PodFacts) {
        self.about_pod(pod, Reason::HostNetworkBypasses, &bypass_note(&pod.name));
    }

    /// Tells of a pod that asks to be served in another way than this node's, unless it was told lately. Never waits.
    pub fn unheard(&self, pod: &PodFacts) {
        self.about_pod(pod, Reason::ModeWithoutEffect, UNHEARD_NOTE);
    }

    fn about_pod(&self, pod: &PodFacts, reason: Reason, note: &str) {
        let Some(teller) = self.teller.get() else {
            return;
        };
        let telling = |count| Telling {
            regarding: Regarding::Pod,
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            reason,
            note: note.to_owned(),
            count,
        };
        let about = teller.hasher.hash_one(note);
        self.tell(teller, (&pod.uid, reason, about), telling);
    }

    /// Tells of trouble with an identity's credential, unless the same was told lately. Never waits.
    pub fn about_identity(&self, identity: &IdentityFacts, reason: Reason, text: &str) {
        let Some(teller) = self.teller.get() else {
            return;
        };
        let about = teller.hasher.hash_one(text);
        let telling = |count| Telling {
            regarding: Regarding::Identity,
            name: identity.name.clone(),
            uid: identity.uid.clone(),
            reason,
            note: identity_note(reason, text),
            count,
        };
        self.tell(teller, (&identity.uid, reason, about), telling);
    }

    fn tell(
        &self,
        teller: &Teller,
        (uid, reason, about): (&Arc<str>, Reason, u64),
        telling: impl FnOnce(u32) -> Telling,
    ) {
        let now = teller.start.elapsed();
        let entry = teller.ledger.lock().note(uid, reason, about, now);
        let count = match entry {
            Entry::Tell(count) => count,
            Entry::Counted => return,
            Entry::Dropped => return self.dropped.inc(),
        };
        if teller.queue.try_send(telling(count)).is_err() {
            self.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testkit::{pod, pod_at, world};

    fn refuse(events: &Events, refusal: &Refusal) {
        let world = world([pod("shop", "web", "10.0.0.1", None)]);
        let pod = pod_at(&world, "10.0.0.1");
        let fault = refusal.fault();
        events.refused(&Refused {
            pod: &pod,
            fault: &fault,
            refusal: Some(refusal),
            identity: None,
            resource: Some("https://vault.azure.net"),
        });
    }

    #[tokio::test]
    async fn a_refusal_is_told_once_however_often_it_happens() {
        let events = Events::register(&Registry::new()).unwrap();
        let (mut tellings, _) = events.start();
        for _ in 0..1000 {
            refuse(&events, &Refusal::NotGranted);
        }
        refuse(&events, &Refusal::Ambiguous);
        let told: Vec<_> = std::iter::from_fn(|| tellings.try_recv().ok()).collect();
        let reasons: Vec<_> = told.iter().map(|telling| telling.reason).collect();
        assert_eq!(
            reasons,
            [Reason::IdentityNotGranted, Reason::IdentityAmbiguous]
        );
        assert_eq!((&*told[0].uid, told[0].count), ("uid-web", 1));
        assert_eq!(events.dropped.get(), 0);
    }

    #[tokio::test]
    async fn nobody_waits_when_nobody_sends() {
        let events = Events::register(&Registry::new()).unwrap();
        refuse(&events, &Refusal::NotGranted);
        assert_eq!(events.dropped.get(), 0, "standalone nothing is told");
        drop(events.start());
        refuse(&events, &Refusal::NotGranted);
        assert_eq!(events.dropped.get(), 1);
    }
}
