//! What is known of one managed identity, and how the answer of a call changes it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{Claim, Written};
use super::federated::{self, Credential};
use super::step::{Action, Settings};
use crate::api::managed::ManagedIdentity;
use crate::controller::known::{Existence, Setback};
use crate::model::backoff;

/// After a failure: the first pause, and the longest.
const PAUSES: backoff::Bounds = (Duration::from_secs(5), Duration::from_mins(10));
/// How long a creation that was cut off may still take effect.
const UNSURE: Duration = Duration::from_secs(30);

/// The workload that an identity belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnerSeen {
    /// Nobody looked yet.
    #[default]
    Unknown,
    /// There was none at this time.
    Missing(Duration),
    /// It is there, with this UID.
    There(Arc<str>),
    /// At this time there was one of that name, and the identity belongs to one of before, with which
    /// it is about to go.
    Replaced(Duration),
}

/// An identity in Azure, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its ids.
    pub existence: Existence,
    /// Its ownership tag.
    pub tag: Option<String>,
}

/// What is known of Azure and of the owner. A new leader knows nothing, and asks.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The owner.
    pub owner: OwnerSeen,
    /// The owner that the object's references were last made to say; outer `None`: not by us.
    pub owned_by: Option<Option<Arc<str>>>,
    /// The identity and when it was read; inner `None`: there is none.
    pub identity: Option<(Duration, Option<Shown>)>,
    /// A creation whose end is not known, until when its effect may still show.
    pub unsure: Option<Duration>,
    /// It was deleted, as Azure said; only when it is not shown any more that is believed.
    pub deleted: bool,
    /// Its federated credentials and when they were read.
    pub federated: Option<(Duration, Vec<Credential>)>,
    /// Since when credentials of ours are not needed.
    pub unwanted: BTreeMap<String, Duration>,
    /// What failed last, and not before when it is tried again.
    pub setback: Option<Setback>,
    /// What we wrote into the object ourselves.
    pub written: Option<Written>,
    /// Since when it is to go.
    pub leaving: Option<Duration>,
    /// What the object says, read from itself, where it cannot be used as a whole; inner `None`:
    /// nothing about a managed identity.
    pub raw: Option<Option<Arc<ManagedIdentity>>>,
}

/// What a call brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `spec.managed` of the object.
    Spec(Option<Arc<ManagedIdentity>>),
    /// The owner's UID, if it is there.
    Owner(Option<Arc<str>>),
    /// There is a reference to an owner of the same name with another UID.
    OwnerReplaced,
    /// The object, as our write left it.
    Object(Written),
    /// The identity, if there is one.
    Identity(Option<Shown>),
    /// The credentials of the identity.
    Credentials(Vec<Credential>),
    /// It is done.
    Done,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// One word, for example `Forbidden`.
    pub reason: Arc<str>,
    /// Words of who refused, and the way out.
    pub message: Arc<str>,
    /// How long to wait at least.
    pub retry_after: Option<Duration>,
    /// Whether waiting alone may help.
    pub transient: bool,
}

impl Known {
    /// Takes in what Kubernetes says now. `before`: what it said then, in the same mode.
    pub fn notice(
        &mut self,
        before: Option<&Claim>,
        claim: &Claim,
        leaving: bool,
        settings: &Settings,
        now: Duration,
    ) {
        let told_to_wait = |setback: &Setback| &*setback.reason == "Throttled";
        let is_news = before.is_none_or(|before| claim.is_news(before));
        if is_news && !self.setback.as_ref().is_some_and(told_to_wait) {
            self.setback = None;
        }
        if before.is_none_or(|before| before.generation != claim.generation) {
            // Another owner may be named now.
            self.owner = OwnerSeen::Unknown;
            self.owned_by = None;
            self.raw = None;
        }
        self.leaving = leaving.then(|| self.leaving.unwrap_or(now));
        let (Some(issuer), Some((_, shown))) = (&settings.issuer, &self.federated) else {
            return;
        };
        let nobody = std::collections::BTreeSet::new();
        let accounts = if claim.federated {
            &claim.accounts
        } else {
            &nobody
        };
        let stale = federated::stale(issuer, accounts, shown);
        let since = |name: &String| self.unwanted.get(name).copied().unwrap_or(now);
        self.unwanted = stale
            .map(|old| (old.name.clone(), since(&old.name)))
            .collect();
    }

    /// Takes in what became of a call.
    pub fn learn(
        &mut self,
        action: &Action,
        answer: Result<Answer, Failed>,
        claim: &Claim,
        now: Duration,
    ) {
        match answer {
            Ok(answer) => self.succeeded(action, answer, now),
            Err(failed) => self.failed(action, &failed, claim, now),
        }
    }

    fn succeeded(&mut self, action: &Action, answer: Answer, now: Duration) {
        match answer {
            Answer::Spec(spec) => self.raw = Some(spec),
            Answer::Owner(Some(uid)) => self.owner = OwnerSeen::There(uid),
            Answer::Owner(None) => self.owner = OwnerSeen::Missing(now),
            Answer::OwnerReplaced => self.owner = OwnerSeen::Replaced(now),
            Answer::Object(written) => self.written = Some(written),
            Answer::Identity(shown) => self.identity = Some((now, shown)),
            Answer::Credentials(shown) => self.federated = Some((now, shown)),
            Answer::Done => {}
        }
        match action {
            Action::WriteOwner(owner) => {
                self.owned_by = Some(owner.as_ref().map(|(_, uid)| uid.clone()));
            }
            Action::Create(..) => self.federated = None,
            Action::Delete(_) => {
                self.identity = None;
                self.federated = None;
                self.deleted = true;
            }
            Action::Read(_) if std::mem::take(&mut self.deleted) => {
                if matches!(self.identity, Some((_, Some(_)))) {
                    self.set_back(&still_there(), now);
                }
                return;
            }
            Action::PutCredential(_, credential) => {
                self.credentials(|shown| {
                    shown.retain(|one| one.name != credential.name);
                    shown.push(credential.clone());
                });
            }
            Action::DeleteCredential(_, name) => {
                self.credentials(|shown| shown.retain(|one| one.name != *name));
            }
            _ => {}
        }
        let is_read = matches!(
            action,
            Action::Read(_)
                | Action::ReadCredentials(_)
                | Action::LookForOwner(_)
                | Action::ReadSpec
        );
        // A read that works between two writes that fail is no progress.
        if !is_read {
            self.setback = None;
        }
    }

    fn credentials(&mut self, change: impl FnOnce(&mut Vec<Credential>)) {
        if let Some((_, shown)) = &mut self.federated {
            change(shown);
        }
    }

    fn failed(&mut self, action: &Action, failed: &Failed, claim: &Claim, now: Duration) {
        match action {
            Action::Create(..) => {
                self.identity = None;
                self.unsure = failed.transient.then_some(now + UNSURE);
            }
            Action::Delete(_) => self.identity = None,
            Action::PutCredential(..) | Action::DeleteCredential(..) => self.federated = None,
            _ => {}
        }
        let about_credentials = matches!(
            action,
            Action::ReadCredentials(_) | Action::DeleteCredential(..)
        );
        // Where nobody uses them, or they go with the identity anyhow, they are worth a try and no more.
        let needed = claim.federated && self.leaving.is_none();
        if about_credentials && !needed && !failed.transient {
            self.federated = Some((now, Vec::new()));
            return;
        }
        self.set_back(failed, now);
    }

    fn set_back(&mut self, failed: &Failed, now: Duration) {
        let failures = self.setback.as_ref().map_or(0, |before| before.failures);
        let pause = backoff::pause(PAUSES, failures);
        self.setback = Some(Setback {
            failures: failures.saturating_add(1),
            until: now + pause.max(failed.retry_after.unwrap_or_default()),
            reason: failed.reason.clone(),
            message: failed.message.clone(),
        });
    }
}

fn still_there() -> Failed {
    Failed {
        reason: "StillThere".into(),
        message: "Azure said that the identity is deleted, and still shows it".into(),
        retry_after: None,
        transient: true,
    }
}
