//! Where tokens come from: one narrow trait, and what a fetch is told and may say.
//!
//! In: one of the identity's sources, the grant, the resource. Out: a token, "not possible here"
//! (the next source may be tried), or a fault (no other is). A fetch may block on the network up to
//! its deadline; it is never cancelled because its first caller went away.

use std::future::Future;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::facts::SourceFacts;
use crate::model::fault::Fault;
use crate::model::grant::{Asker, Grant};
use crate::model::token::Token;

/// Why a source gave no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// The source cannot serve this identity on this node, or cannot yet (the log's words).
    NotHere(String),
    /// It was refused, or it failed.
    Fault(Fault),
}

impl From<Fault> for SourceError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Whether somebody waits for a fetch; it may begin to matter while the fetch is queued.
#[derive(Clone, Debug)]
pub struct Urgency(watch::Receiver<bool>);

impl Urgency {
    /// Follows a switch: `true` means that a caller waits.
    #[must_use]
    pub const fn follow(switch: watch::Receiver<bool>) -> Self {
        Self(switch)
    }

    /// Whether somebody waits now.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends once somebody waits; never, when nobody ever will.
    pub async fn urgent(&mut self) {
        if self.0.wait_for(|urgent| *urgent).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One fetch.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which of the identity's sources.
    pub source: SourceFacts,
    /// For which grant.
    pub grant: Grant,
    /// For which resource, exactly as asked.
    pub resource: String,
    /// For whom: for fairness, and for credentials that are the pod's own.
    pub asker: Asker,
    /// A resource's challenge to pass on (JSON); such a token is for one answer only.
    pub claims: Option<String>,
    /// A token that the service itself has cached will not do.
    pub bypass_cache: bool,
    /// The fetch must have ended by then.
    pub deadline: Instant,
}

impl Call {
    /// Whether the service must make a new token.
    #[must_use]
    pub const fn is_anew(&self) -> bool {
        self.bypass_cache || self.claims.is_some()
    }
}

/// What fetches tokens.
pub trait TokenSource: Send + Sync + 'static {
    /// Fetches one token. Called at most once at a time for one cache key; calls with `claims`, which
    /// belong to no key, beside that.
    fn fetch(
        &self,
        call: Call,
        urgency: Urgency,
    ) -> impl Future<Output = Result<Token, SourceError>> + Send;

    /// Another instance takes over: give up the share of what is limited for the whole node; or
    /// (`false`) it does not any more.
    fn drain(&self, _draining: bool) {}
}
