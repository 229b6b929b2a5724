//! The next step of one managed identity's life: what Kubernetes says × what is known of Azure × now → at
//! most one call, what to tell, when to look again. Pure.
//!
//! Holds: nothing is created before the finalizer is written; nothing is asked of Azure that no
//! policy allows (removing what has our own tag is always allowed); what has not exactly our tag
//! is never adopted, changed or deleted; the finalizer goes only when the identity is gone.

use std::sync::Arc;
use std::time::Duration;

use super::claim::{Claim, Mode};
use super::federated::Credential;
use super::known::{Known, Shown};
use super::outcome::ManagedOutcome;
use super::words::{self, Words};
use super::{arrival, departure, naming};
use crate::api::managed::Owner;
use crate::controller::known::{Existence, Setback};
use crate::model::ids::ArmId;

/// What holds for all identities.
#[derive(Clone, Debug)]
pub struct Settings {
    /// UID of the namespace `kube-system`: which cluster this is.
    pub cluster: Arc<str>,
    /// Issuer of the cluster's service-account tokens; `None`: not known (yet).
    pub issuer: Option<Arc<str>>,
    /// How long a federated credential stays that nobody needs.
    pub grace: Duration,
    /// How old what Azure said may become before it is asked again.
    pub refresh: Duration,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read `spec.managed` of an object that cannot be used as a whole.
    ReadSpec,
    /// Look whether the owner is there.
    LookForOwner(Owner),
    /// Make the object go with this owner (its UID), or with none.
    WriteOwner(Option<(Owner, Arc<str>)>),
    /// Write the finalizer.
    Hold,
    /// Take the finalizer away; what to tell about where the identity stays.
    Release(Option<Arc<str>>),
    /// Read the identity.
    Read(ArmId),
    /// Create it, with its region and ownership tag.
    Create(ArmId, String, String),
    /// Delete it.
    Delete(ArmId),
    /// Read its federated credentials.
    ReadCredentials(ArmId),
    /// Create or correct a federated credential.
    PutCredential(ArmId, Credential),
    /// Delete a federated credential.
    DeleteCredential(ArmId, String),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The call; `None`: nothing.
    pub action: Option<Action>,
    /// What to tell of it meanwhile.
    pub outcome: ManagedOutcome,
    /// When to look again although nothing changes.
    pub again: Option<Duration>,
    /// The identity, where it is about to be deleted: it is to be taken off all compute resources.
    pub leaves: Option<ArmId>,
}

/// All that the next step is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What Kubernetes says.
    pub claim: &'a Claim,
    /// What is known of Azure.
    pub known: &'a Known,
    /// What holds for all.
    pub settings: &'a Settings,
    /// Whether Lanyard stays.
    pub mode: Mode,
    /// Now, since the epoch.
    pub now: Duration,
}

/// The next step.
#[must_use]
pub fn next(facts: Facts<'_>) -> Next {
    let Facts { claim, known, .. } = facts;
    if !facts.is_leaving() {
        return match &claim.spec {
            Ok(spec) => {
                match naming::resource_id(&spec.resource_group, &facts.settings.cluster, &claim.uid)
                {
                    Ok(id) => arrival::next(facts, spec, &id),
                    Err(error) => facts.rest(words::malformed(&error.to_string())),
                }
            }
            Err(error) => facts.rest(words::malformed(error)),
        };
    }
    if !claim.held {
        return facts.rest(words::released(facts.mode));
    }
    if let Some(setback) = facts.setback() {
        return facts.rest(words::delayed(setback)).again(setback.until);
    }
    let spec = match (&claim.spec, &known.raw) {
        (Ok(spec), _) | (Err(_), Some(Some(spec))) => spec,
        // Nothing of it is in Azure that we could know of.
        (Err(_), Some(None)) => return facts.act(Action::Release(None), words::leaving()),
        (Err(_), None) => return facts.act(Action::ReadSpec, words::leaving()),
    };
    let cluster = &facts.settings.cluster;
    match naming::resource_id(&spec.resource_group, cluster, &claim.uid) {
        Ok(id) => departure::next(facts, spec, &id),
        // Where no id can be made nothing was.
        Err(_) => facts.act(Action::Release(None), words::leaving()),
    }
}

impl Facts<'_> {
    /// Whether the identity is to go, or at least to be let go of.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.claim.deleting || self.mode != Mode::Serve
    }

    /// What the identity must be tagged with to be ours.
    #[must_use]
    pub fn tag(&self) -> String {
        let claim = self.claim;
        naming::owner_tag(&self.settings.cluster, &claim.name, &claim.uid)
    }

    /// A setback that is not over.
    #[must_use]
    pub fn setback(&self) -> Option<&Setback> {
        let setback = self.known.setback.as_ref();
        setback.filter(|setback| setback.until > self.now)
    }

    /// Nothing to do.
    pub(super) fn rest(&self, words: Words) -> Next {
        let identity = self.known.identity.as_ref();
        let shown = identity.map(|(_, shown)| shown.as_ref());
        let ours = |shown: &&Shown| shown.tag.as_deref() == Some(&*self.tag());
        let existence = match shown {
            None => Existence::Unknown,
            Some(shown) => shown
                .filter(ours)
                .map_or(Existence::Missing, |shown| shown.existence.clone()),
        };
        let exists = matches!(existence, Existence::Exists { .. });
        let spec = self.claim.spec.as_ref().ok();
        let id = spec.filter(|_| exists).and_then(|spec| {
            let group = &spec.resource_group;
            naming::resource_id(group, &self.settings.cluster, &self.claim.uid).ok()
        });
        Next {
            action: None,
            outcome: ManagedOutcome {
                uid: self.claim.uid.clone(),
                generation: self.claim.generation,
                resource_id: id,
                existence,
                ready: words.ready,
                reason: words.reason.into(),
                message: words.message.into(),
            },
            again: None,
            leaves: None,
        }
    }

    /// A call. After one that failed what is said stays until one succeeds.
    pub(super) fn act(&self, action: Action, words: Words) -> Next {
        let words = match &self.known.setback {
            Some(setback) if self.is_leaving() => words::delayed(setback),
            Some(setback) => words::setback(setback),
            None => words,
        };
        Next {
            action: Some(action),
            ..self.rest(words)
        }
    }
}

impl Next {
    /// The identity is about to be deleted.
    #[must_use]
    pub(super) fn leaving(mut self, id: &ArmId) -> Self {
        self.leaves = Some(id.clone());
        self
    }

    /// Look again then, at the latest.
    #[must_use]
    pub(super) fn again(mut self, at: Duration) -> Self {
        self.again = Some(self.again.map_or(at, |before| before.min(at)));
        self
    }
}

#[cfg(test)]
mod tests;
