//! Credentials of identities that have one of their own (service principals): which Secrets are needed on
//! this node, what they hold, and which of it to present to Entra.
//!
//! In: the identities that pods of this node are granted, and those Secrets, from the Kubernetes API
//! ([`follow`]) or a folder of manifests ([`folder`]). Out: a [`Ring`] for each identity. No
//! Secret is read that no identity of a pod of this node names; nothing is written to disk; what is not
//! needed any more is wiped. While the API server is away the last material serves.

mod candidates;
mod expiry;
pub mod folder;
pub mod follow;
mod load;
mod material;
mod metrics;
mod ring;
#[cfg(test)]
mod testkit;
mod unusable;
mod wanted;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::Registry;
use tokio::sync::watch;

use super::directory::Directory;
use super::events::Events;
use crate::model::facts::{CredentialFacts, IdentityFacts, SourceFacts};
use crate::model::ids::ObjectName;

pub use self::material::{Credential, Material};
use self::metrics::CredentialMetrics;
use self::ring::Teller;
pub use self::ring::{Ring, Seen};
pub use self::unusable::{Problem, Unusable};
pub use self::wanted::Wanted;

/// How often ends that come near are looked for.
const TICK: Duration = Duration::from_mins(1);
/// After so many ticks problems that stand are told again: Events are kept for an hour.
const REMIND: u32 = 30;

/// The wall clock: since the Unix epoch.
type Wall = dyn Fn() -> Duration + Send + Sync;
/// Who is told of identities with a new credential.
type Hook = dyn Fn(&IdentityFacts) + Send + Sync;

/// All rings of this node. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
}

struct Shared {
    rings: RwLock<HashMap<ObjectName, Arc<Ring>>>,
    /// Which Secrets are to be read; whoever reads them follows it.
    wanted: watch::Sender<Wanted>,
    /// Changes when something was read.
    read: watch::Sender<u64>,
    teller: Teller,
    wall: Box<Wall>,
    hook: OnceLock<Box<Hook>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// No rings yet. `wall` is the time since the Unix epoch.
    pub fn register(
        registry: &Registry,
        events: Events,
        wall: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> prometheus::Result<Self> {
        let metrics = CredentialMetrics::register(registry)?;
        Ok(Self {
            shared: Arc::new(Shared {
                rings: RwLock::default(),
                wanted: watch::Sender::default(),
                read: watch::Sender::default(),
                teller: Teller { metrics, events },
                wall: Box::new(wall),
                hook: OnceLock::new(),
            }),
        })
    }

    /// From now on `hook` is called with each identity whose Secret holds a new credential: its tokens are
    /// due. It must not wait. Meant to be called once.
    pub fn on_new(&self, hook: impl Fn(&IdentityFacts) + Send + Sync + 'static) {
        let _ = self.shared.hook.set(Box::new(hook));
    }

    /// The identity's ring, with at least one credential in it. Does not wait: [`Problem::NotRead`] where
    /// its Secret was not read yet.
    pub fn ring(
        &self,
        identity: &IdentityFacts,
        credential: &CredentialFacts,
    ) -> Result<Arc<Ring>, Unusable> {
        let rings = self.shared.rings.read();
        let ring = rings.get(&identity.name);
        let ring = ring
            .filter(|ring| ring.is_of(identity, credential))
            .cloned();
        drop(rings);
        let checked = match ring {
            None => Err(Problem::NotRead),
            Some(ring) => ring.check((self.shared.wall)()).map(|()| ring),
        };
        checked.map_err(|problem| Unusable {
            secret: ObjectName::new(identity.name.namespace.clone(), credential.secret.clone()),
            problem,
        })
    }

    /// The same; waits, as long as the caller does, while the Secret was not read yet.
    pub async fn ring_when_read(
        &self,
        identity: &IdentityFacts,
        credential: &CredentialFacts,
    ) -> Result<Arc<Ring>, Unusable> {
        let mut read = self.shared.read.subscribe();
        loop {
            match self.ring(identity, credential) {
                Err(Unusable {
                    problem: Problem::NotRead,
                    ..
                }) => {}
                known => return known,
            }
            if read.changed().await.is_err() {
                return self.ring(identity, credential);
            }
        }
    }

    /// Which Secrets are to be read, now and later.
    pub(in crate::agent) fn wanted(&self) -> watch::Receiver<Wanted> {
        self.shared.wanted.subscribe()
    }

    /// Exactly what live pods are granted is needed from now on.
    pub fn retain_granted(&self, directory: &Directory) {
        let mut needed: HashMap<&ObjectName, (&Arc<IdentityFacts>, &Arc<CredentialFacts>)> =
            HashMap::new();
        for grant in directory.pods().flat_map(|pod| &pod.granted) {
            for source in &grant.identity.sources {
                if let SourceFacts::ServicePrincipal(credential) = source {
                    needed.insert(&grant.identity.name, (&grant.identity, credential));
                }
            }
        }
        self.need(needed.into_values());
    }

    /// Exactly these are needed from now on: a ring for each, and its Secret followed.
    pub fn need<'a>(
        &self,
        needed: impl Iterator<Item = (&'a Arc<IdentityFacts>, &'a Arc<CredentialFacts>)>,
    ) {
        let (mut kept, mut fresh) = (HashMap::new(), Vec::new());
        let mut rings = self.shared.rings.write();
        for (identity, credential) in needed {
            let known = rings.get(&identity.name);
            match known.filter(|ring| ring.is_of(identity, credential)) {
                Some(ring) => drop(kept.insert(identity.name.clone(), ring.clone())),
                None => fresh.push((identity, credential)),
            }
        }
        if fresh.is_empty() && kept.len() == rings.len() {
            return;
        }
        // The old series of an identity go before its new ring makes others.
        for (_, gone) in rings.iter().filter(|(name, _)| !kept.contains_key(*name)) {
            gone.retire();
        }
        let mut unread = Vec::new();
        for (identity, credential) in fresh {
            let teller = self.shared.teller.clone();
            let ring = Arc::new(Ring::new(identity.clone(), credential.clone(), teller));
            unread.push(ring.clone());
            kept.insert(identity.name.clone(), ring);
        }
        let secrets = kept.values().map(|ring| ring.secret()).collect();
        *rings = kept;
        drop(rings);
        let anew = unread.iter().map(|ring| ring.secret()).collect();
        let mut over = Vec::new();
        self.shared
            .wanted
            .send_modify(|wanted| over = wanted.update(&secrets, &anew));
        for secret in over {
            self.take(&secret, &Seen::TooMany(Wanted::MOST));
        }
    }

    /// Takes over what became of reading a Secret.
    pub fn take(&self, secret: &ObjectName, seen: &Seen<'_>) {
        let now = (self.shared.wall)();
        for ring in self.rings().iter().filter(|ring| ring.secret() == *secret) {
            if ring.take(seen, now)
                && let Some(hook) = self.shared.hook.get()
            {
                hook(ring.identity());
            }
        }
        self.shared.read.send_modify(|read| *read += 1);
    }

    fn rings(&self) -> Vec<Arc<Ring>> {
        self.shared.rings.read().values().cloned().collect()
    }

    /// Tells of ends that come near, for ever; now and then also of problems that stand.
    pub async fn remind(self) {
        let mut ticks = 0_u32;
        loop {
            tokio::time::sleep(TICK).await;
            ticks = ticks.wrapping_add(1);
            let now = (self.shared.wall)();
            for ring in self.rings() {
                ring.remind(now, ticks.is_multiple_of(REMIND));
            }
        }
    }
}

#[cfg(test)]
mod tests;
