//! The credentials of one identity, old and new, as they are used: which to present, which worked, which
//! were refused.
//!
//! In: what the Secret holds, what Entra said, `now` since the epoch. Out: candidates; what changes is
//! told by metrics, log and Events at once. Never waits: a short lock around pure steps.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::candidates::Candidates;
use super::expiry::{self, Notice};
use super::load::load;
use super::material::Credential;
use super::metrics::CredentialMetrics;
use super::unusable::{Problem, Unusable, date};
use crate::agent::events::Events;
use crate::agent::events::reason::Reason;
use crate::kubernetes::SecretData;
use crate::model::facts::{CredentialFacts, IdentityFacts};
use crate::model::ids::ObjectName;

/// What became of reading a Secret.
#[derive(Debug)]
pub enum Seen<'a> {
    /// It is there.
    There(&'a SecretData),
    /// It is, and cannot be read.
    Malformed,
    /// It is not, or not any more.
    Missing,
    /// The agent may not read it.
    Forbidden,
    /// The API server does not answer, for this reason.
    Away(&'a str),
    /// More are needed than are followed.
    TooMany(usize),
}

/// Where rings tell what happens to them.
#[derive(Clone, Debug)]
pub struct Teller {
    /// The series.
    pub metrics: CredentialMetrics,
    /// Events on identities.
    pub events: Events,
}

/// One identity's credentials.
#[derive(Debug)]
pub struct Ring {
    identity: Arc<IdentityFacts>,
    credential: Arc<CredentialFacts>,
    state: Mutex<State>,
    teller: Teller,
}

#[derive(Debug)]
struct State {
    candidates: Candidates,
    /// What is wrong with the Secret now, whether or not older credentials are left.
    problem: Option<Problem>,
    /// What was told of the newest certificate's end.
    told: Option<(Duration, Notice)>,
    /// How often its Secret was looked at: what was seen first must not replace what was seen last.
    looks: u64,
    /// Whether another ring, or none, is in its place.
    is_retired: bool,
}

impl Ring {
    /// A ring whose Secret was not read yet.
    pub(super) fn new(
        identity: Arc<IdentityFacts>,
        credential: Arc<CredentialFacts>,
        teller: Teller,
    ) -> Self {
        teller.metrics.begin(&identity.name);
        Self {
            identity,
            credential,
            state: Mutex::new(State {
                candidates: Candidates::default(),
                problem: Some(Problem::NotRead),
                told: None,
                looks: 0,
                is_retired: false,
            }),
            teller,
        }
    }

    /// The identity.
    pub fn identity(&self) -> &Arc<IdentityFacts> {
        &self.identity
    }

    /// The Secret.
    pub(super) fn secret(&self) -> ObjectName {
        ObjectName::new(
            self.identity.name.namespace.clone(),
            self.credential.secret.clone(),
        )
    }

    /// Whether it is the ring of this identity as it is now: what another one's credential did at
    /// Entra says nothing of this one's.
    pub(super) fn is_of(&self, identity: &IdentityFacts, credential: &CredentialFacts) -> bool {
        let own = &*self.identity;
        *self.credential == *credential
            && own.name == identity.name
            && own.uid == identity.uid
            && own.client_id == identity.client_id
            && own.tenant_id == identity.tenant_id
            && own.authority_host == identity.authority_host
    }

    /// What to present, the best first. Never empty when the ring came from
    /// [`Credentials::ring`](super::Credentials::ring) just now.
    #[must_use]
    pub fn candidates(&self, now: Duration) -> Vec<Arc<Credential>> {
        self.state.lock().candidates.in_order(now)
    }

    /// This one gave a token: those that the Secret held before are wiped.
    pub fn proved(&self, credential: &Credential) {
        let mut state = self.state.lock();
        state.candidates.proved(credential);
        if !state.is_retired {
            self.teller.metrics.usable(&self.identity.name, true);
        }
    }

    /// Entra refused this one with this code (`AADSTS…`; 0: it gave none). Others are tried first for a while.
    pub fn refused(&self, credential: &Credential, code: u32, now: Duration) {
        let name = &self.identity.name;
        let is_left = {
            let mut state = self.state.lock();
            state.candidates.refused(credential, now);
            if state.is_retired {
                return;
            }
            self.teller.metrics.refused(name, code);
            self.measure(&state, now);
            state.candidates.is_promising(now)
        };
        let secret = self.secret();
        let left = if is_left {
            "; another one is tried"
        } else {
            ""
        };
        let code_said = match code {
            0 => "no code".to_owned(),
            code => format!("AADSTS{code}"),
        };
        let text = format!("Entra ID refuses {credential} of Secret {secret} ({code_said}){left}");
        tracing::warn!(identity = %name, %secret, code, "Entra ID refuses the identity's credential");
        self.tell(Reason::CredentialRefused, &text);
    }

    /// Whether there is something to present at `now`, and why not.
    pub(super) fn check(&self, now: Duration) -> Result<(), Problem> {
        let state = self.state.lock();
        if let Some(since) = state.candidates.expired_since(now) {
            return Err(state.problem.clone().unwrap_or(Problem::Expired(since)));
        }
        match (&state.problem, state.candidates.is_empty()) {
            (Some(problem), true) => Err(problem.clone()),
            (None, true) => Err(Problem::Missing),
            _ => Ok(()),
        }
    }

    /// Takes over what became of reading the Secret. Whether there is a new credential.
    pub(super) fn take(&self, seen: &Seen<'_>, now: Duration) -> bool {
        let look = {
            let mut state = self.state.lock();
            state.looks += u64::from(!matches!(seen, Seen::Away(_)));
            state.looks
        };
        // Not under the lock, at which requests wait: opening a PKCS#12 store may take seconds.
        let read = match seen {
            Seen::There(data) => Some(load(&self.credential.form, data)),
            _ => None,
        };
        let (is_new, is_expired, problem) = {
            let mut state = self.state.lock();
            if state.is_retired || state.looks != look {
                return false;
            }
            let before = state.problem.clone();
            let is_new = state.take(seen, read);
            self.measure(&state, now);
            let problem = state.problem.clone().filter(|_| before != state.problem);
            // What is read well may have ended long ago: its owner hears of it now, too.
            let is_expired = is_new && state.candidates.expired_since(now).is_some();
            (is_new, is_expired, problem)
        };
        let (identity, secret) = (&self.identity.name, self.secret());
        if is_new {
            tracing::info!(%identity, %secret, "the identity's credential was read");
        }
        let is_told = is_expired || problem.is_some();
        if let Some(problem) = problem {
            tracing::warn!(%identity, %secret, %problem, "the identity's credential cannot be read");
        }
        self.remind(now, is_told);
        is_new
    }

    /// Tells of an end that comes near, and where wished of the problem that stands.
    pub(super) fn remind(&self, now: Duration, also_problems: bool) {
        let (problem, is_left, notice) = {
            let mut state = self.state.lock();
            self.measure(&state, now);
            let is_left = !state.candidates.is_empty();
            let expired = state.candidates.expired_since(now).map(Problem::Expired);
            (
                state.problem.clone().or(expired),
                is_left,
                state.notice(now),
            )
        };
        let secret = self.secret();
        if let Some(problem) = problem.filter(|_| also_problems) {
            let is_expired = matches!(problem, Problem::Expired(_));
            let unusable = Unusable {
                secret: secret.clone(),
                problem,
            };
            let kept = if is_left && !is_expired {
                "; the credential of before stays in use"
            } else {
                ""
            };
            if !unusable.may_retry() {
                self.tell(Reason::CredentialUnusable, &format!("{unusable}{kept}"));
            }
        }
        if let Some((credential, end)) = notice {
            let (day, left) = (date(end), expiry::left(end, now));
            let identity = &self.identity.name;
            tracing::warn!(%identity, %secret, ends = day, "the identity's certificate ends soon");
            let text = format!("Secret {secret}: {credential} ends on {day}, {left}");
            self.tell(Reason::CredentialExpiring, &text);
        }
    }

    /// Nobody needs it any more: its series go, and whoever still has it in hand tells nothing.
    pub(super) fn retire(&self) {
        let mut state = self.state.lock();
        state.is_retired = true;
        state.candidates.clear();
        self.teller.metrics.end(&self.identity.name);
    }

    fn measure(&self, state: &State, now: Duration) {
        if state.is_retired {
            return;
        }
        let Teller { metrics, .. } = &self.teller;
        let newest = state.candidates.newest();
        let end = newest.and_then(|credential| credential.not_after());
        metrics.expires(&self.identity.name, end);
        metrics.usable(&self.identity.name, state.candidates.is_promising(now));
    }

    fn tell(&self, reason: Reason, text: &str) {
        self.teller
            .events
            .about_identity(&self.identity, reason, text);
    }
}

impl State {
    /// `read`: what the Secret holds, where it is there.
    fn take(&mut self, seen: &Seen<'_>, read: Option<Result<Vec<Credential>, Problem>>) -> bool {
        let (held, problem) = match seen {
            Seen::There(_) => match read {
                Some(Ok(held)) => (Some(held), None),
                // Somebody's mistake: what worked until now stays.
                Some(Err(problem)) => (None, Some(problem)),
                None => return false,
            },
            Seen::Malformed => (None, Some(Problem::Malformed)),
            Seen::Missing => {
                // Whoever deletes it wants it gone.
                self.candidates.clear();
                (None, Some(Problem::Missing))
            }
            Seen::Forbidden => (None, Some(Problem::Forbidden)),
            Seen::TooMany(most) => (None, Some(Problem::TooMany(*most))),
            Seen::Away(why) => {
                if matches!(self.problem, Some(Problem::NotRead | Problem::Away(_))) {
                    self.problem = Some(Problem::Away((*why).into()));
                }
                return false;
            }
        };
        self.problem = problem;
        held.is_some_and(|held| self.candidates.replace(held))
    }

    /// The newest credential and its end, where that is to be told now.
    fn notice(&mut self, now: Duration) -> Option<(Arc<Credential>, Duration)> {
        let newest = self.candidates.newest()?.clone();
        let end = newest.not_after()?;
        let told = self.told.filter(|(of, _)| *of == end).map(|(_, told)| told);
        let notice = Notice::due(end, now, told)?;
        self.told = Some((end, notice));
        Some((newest, end))
    }
}
