//! Who asks and what he may, asked of the API server: each question with a deadline, not twice within ten seconds, not
//! by several at once about the same token, and not more often than it can bear.
//!
//! In: a bearer token, a pod. Out: a user, leave, or a fault. Where there is no answer nobody is let in.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::metrics::{Outcome, Review, ReviewMetrics};
use super::seen::Seen;
use super::{UNPROVEN, too_much};
use crate::kubernetes::{Access, Cluster, Failure, Reviewed, TokenReview};
use crate::model::fault::{Fault, FaultKind};
use crate::model::ids::ObjectName;
use crate::model::presented::SecretDigest;

/// What a bearer token must be for: one that its owner uses elsewhere, too, could be replayed by whom he shows it.
pub const AUDIENCE: &str = "lanyard.dev";
/// What whoever asks on behalf of a pod must be allowed to `create`: `pods/azuretoken`.
const SUBRESOURCE: &str = "azuretoken";
/// The longest that one review may take.
const LIMIT: Duration = Duration::from_secs(5);
/// When whoever got none is to come again.
const LATER: Duration = Duration::from_secs(2);
/// Tokens are reviewed at once in so many groups, one of a group after the other.
const GROUPS: usize = 16;

/// Who answers reviews.
pub trait Reviewer: Send + Sync + 'static {
    /// Whose token that is, for [`AUDIENCE`].
    fn who(
        &self,
        token: &SecretString,
        limit: Duration,
    ) -> impl Future<Output = Result<TokenReview, Failure>> + Send;

    /// Whether he may ask on behalf of that pod.
    fn may(
        &self,
        who: &Reviewed,
        pod: &ObjectName,
        limit: Duration,
    ) -> impl Future<Output = Result<bool, Failure>> + Send;
}

impl Reviewer for Cluster {
    async fn who(&self, token: &SecretString, limit: Duration) -> Result<TokenReview, Failure> {
        Self::who(self, token, AUDIENCE, limit).await
    }

    async fn may(
        &self,
        who: &Reviewed,
        pod: &ObjectName,
        limit: Duration,
    ) -> Result<bool, Failure> {
        let what = Access {
            verb: "create",
            resource: "pods",
            subresource: SUBRESOURCE,
            namespace: &pod.namespace,
            name: &pod.name,
        };
        Self::may(self, who, what, limit).await
    }
}

/// Reviews, and what they said lately.
pub struct Reviews<R> {
    reviewer: R,
    metrics: ReviewMetrics,
    seen: Mutex<Seen>,
    groups: [tokio::sync::Mutex<()>; GROUPS],
    start: Instant,
}

impl<R: Reviewer> Reviews<R> {
    /// Nothing is known yet.
    pub fn new(reviewer: R, metrics: ReviewMetrics) -> Self {
        Self {
            reviewer,
            metrics,
            seen: Mutex::default(),
            groups: Default::default(),
            start: Instant::now(),
        }
    }

    /// Whose token that is.
    pub(super) async fn who(&self, token: &SecretString) -> Result<Arc<Reviewed>, Fault> {
        let count = |outcome| self.metrics.count(Review::Token, outcome);
        let digest = digest(token);
        let known = || {
            let known = self.seen.lock().who(&digest, self.now());
            known.inspect(|_| count(Outcome::Remembered))
        };
        // Who is known waits for no stranger whose token is in the same group.
        if let Some(who) = known() {
            return Ok(who);
        }
        let turn = self.turn(&digest).await;
        let _turn = turn.inspect_err(|_| count(Outcome::Failed))?;
        // Somebody may have asked about the same token meanwhile.
        if let Some(who) = known() {
            return Ok(who);
        }
        self.admit(&digest)
            .inspect_err(|_| count(Outcome::Limited))?;
        match self.reviewer.who(token, LIMIT).await {
            Ok(TokenReview::Proven(who)) => {
                count(Outcome::Allowed);
                let who = Arc::new(who);
                let mut seen = self.seen.lock();
                seen.proven(digest, who.clone(), self.now());
                Ok(who)
            }
            Ok(TokenReview::Unproven(why)) => {
                count(Outcome::Denied);
                self.seen.lock().unproven(&digest);
                Err(Fault::new(FaultKind::HostTokenUnproven, UNPROVEN).with_detail(why))
            }
            Err(failure) => {
                count(Outcome::Failed);
                Err(unavailable(&failure))
            }
        }
    }

    /// Whether he may ask on behalf of that pod.
    pub(super) async fn may(
        &self,
        token: &SecretString,
        who: &Reviewed,
        pod: &ObjectName,
    ) -> Result<(), Fault> {
        let count = |outcome| self.metrics.count(Review::Access, outcome);
        let digest = digest(token);
        // Those who come together with a new token wait for the first of them: after that it is no stranger's.
        if !self.seen.lock().is_useful(&digest, self.now()) {
            let turn = self.turn(&digest).await;
            let turn = turn.inspect_err(|_| count(Outcome::Failed))?;
            if !self.seen.lock().is_useful(&digest, self.now()) {
                return self.access(&digest, who, pod).await;
            }
            drop(turn);
        }
        if self.seen.lock().may(&digest, pod, self.now()) {
            count(Outcome::Remembered);
            return Ok(());
        }
        self.access(&digest, who, pod).await
    }

    async fn access(
        &self,
        digest: &SecretDigest,
        who: &Reviewed,
        pod: &ObjectName,
    ) -> Result<(), Fault> {
        let count = |outcome| self.metrics.count(Review::Access, outcome);
        self.admit(digest)
            .inspect_err(|_| count(Outcome::Limited))?;
        match self.reviewer.may(who, pod, LIMIT).await {
            Ok(true) => {
                count(Outcome::Allowed);
                self.seen.lock().allowed(digest, pod, self.now());
                Ok(())
            }
            Ok(false) => {
                count(Outcome::Denied);
                Err(forbidden(who, pod))
            }
            Err(failure) => {
                count(Outcome::Failed);
                Err(unavailable(&failure))
            }
        }
    }

    /// One after the other, of those whose tokens are in one group.
    async fn turn(&self, token: &SecretDigest) -> Result<tokio::sync::MutexGuard<'_, ()>, Fault> {
        let group = usize::from(token.first_byte()) % GROUPS;
        let turn = tokio::time::timeout(LIMIT, self.groups[group].lock()).await;
        turn.map_err(|_| unavailable(&Failure::Late(LIMIT)))
    }

    fn admit(&self, token: &SecretDigest) -> Result<(), Fault> {
        let admitted = self.seen.lock().admit(token, self.now());
        admitted.map_err(too_much)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

fn digest(token: &SecretString) -> SecretDigest {
    SecretDigest::of(token.expose_secret().as_bytes())
}

fn forbidden(who: &Reviewed, pod: &ObjectName) -> Fault {
    let public = "The caller may not create pods/azuretoken for this pod";
    let detail = format!("{} on behalf of {pod}", who.username);
    Fault::new(FaultKind::HostTokenForbidden, public).with_detail(detail)
}

fn unavailable(failure: &Failure) -> Fault {
    let public = "The API server does not say who asks and whether he may, try again";
    Fault::new(FaultKind::ReviewUnavailable, public)
        .with_detail(failure.to_string())
        .with_retry_after(LATER)
}
