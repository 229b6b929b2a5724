//! What a managed identity's life touches outside of this process: Azure, the objects in Kubernetes, the
//! lease. Narrow traits, so that tests can let each of them fail, hang and forget.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::claim::Claim;
use super::federated::Credential;
use super::known::{Answer, Failed, Shown};
use super::naming;
use super::step::Action;
use crate::azure::arm::{
    ArmClient, ArmError, ArmErrorKind, FederatedCredential, IdentityShown, IdentityWanted,
};
use crate::controller::apply::{Access, NotBefore, Paces};
use crate::controller::known::Existence;
pub use crate::controller::lease::Lead as Leading;
use crate::model::ids::ArmId;

/// How long 429 without `Retry-After` lasts.
const THROTTLED: Duration = Duration::from_secs(30);

/// Azure Resource Manager, as far as identities go.
pub trait Azure: Send + Sync + 'static {
    /// Sees to it that a write right after this needs no other request.
    fn prepare(&self, limit: Duration) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Whether it may be asked now, as often as it was asked before and as it asked itself to be left
    /// alone.
    fn admit(&self, _: &Action) -> Result<(), NotBefore> {
        Ok(())
    }

    /// Does what is Azure's of the actions. Nothing is sent after the limit.
    fn call(
        &self,
        action: &Action,
        limit: Duration,
    ) -> impl Future<Output = Result<Answer, Failed>> + Send;
}

/// The objects in Kubernetes.
pub trait Objects: Send + Sync + 'static {
    /// Does what is Kubernetes' of the actions, to the object of this claim and no later one of its name.
    fn call(
        &self,
        claim: &Claim,
        action: &Action,
    ) -> impl Future<Output = Result<Answer, Failed>> + Send;
}

/// Azure Resource Manager, at the rates of this process.
pub struct Paced {
    /// Azure Resource Manager.
    pub arm: ArmClient,
    /// The rates, and what Azure asked for: it counts for all identities of a subscription.
    pub paces: Arc<Paces>,
}

impl Azure for Paced {
    async fn prepare(&self, limit: Duration) -> Result<(), Failed> {
        Azure::prepare(&self.arm, limit).await
    }

    fn admit(&self, action: &Action) -> Result<(), NotBefore> {
        let access = match action {
            Action::Read(_) | Action::ReadCredentials(_) => Access::Read,
            _ => Access::Write,
        };
        action
            .identity()
            .map_or(Ok(()), |id| self.paces.identity(id, access))
    }

    async fn call(&self, action: &Action, limit: Duration) -> Result<Answer, Failed> {
        let answer = asked(&self.arm, action, limit).await;
        if let (Err(error), Some(id)) = (&answer, action.identity())
            && error.kind == ArmErrorKind::Throttled
        {
            let until = Instant::now() + error.retry_after.unwrap_or(THROTTLED);
            let all = error.code.to_ascii_lowercase().starts_with("subscription");
            self.paces.identities_wait(id, until, all);
        }
        answer.map_err(|error| told(&error))
    }
}

impl Azure for ArmClient {
    async fn prepare(&self, limit: Duration) -> Result<(), Failed> {
        Self::prepare(self, limit)
            .await
            .map_err(|error| told(&error))
    }

    async fn call(&self, action: &Action, limit: Duration) -> Result<Answer, Failed> {
        let answer = asked(self, action, limit).await;
        answer.map_err(|error| told(&error))
    }
}

impl Action {
    /// The identity in Azure that it is about.
    const fn identity(&self) -> Option<&ArmId> {
        match self {
            Self::Read(id)
            | Self::Create(id, ..)
            | Self::Delete(id)
            | Self::ReadCredentials(id)
            | Self::PutCredential(id, _)
            | Self::DeleteCredential(id, _) => Some(id),
            _ => None,
        }
    }
}

async fn asked(arm: &ArmClient, action: &Action, limit: Duration) -> Result<Answer, ArmError> {
    match action {
        Action::Read(id) => match arm.identity(id, limit).await {
            Ok(identity) => Ok(Answer::Identity(Some(shown(&identity)))),
            Err(error) if error.is_absence() => Ok(Answer::Identity(None)),
            Err(error) => Err(error),
        },
        Action::Create(id, location, tag) => {
            let wanted = IdentityWanted {
                location: location.clone(),
                tags: [(naming::OWNER_TAG.to_owned(), tag.clone())].into(),
            };
            let made = arm.put_identity(id, &wanted, limit).await;
            made.map(|identity| Answer::Identity(Some(shown(&identity))))
        }
        Action::Delete(id) => {
            let done = arm.delete_identity(id, limit).await;
            done.map(|_| Answer::Done)
        }
        Action::ReadCredentials(id) => {
            let read = arm.federated_credentials(id, limit).await;
            read.map(|all| Answer::Credentials(all.into_iter().map(credential).collect()))
        }
        Action::PutCredential(id, wanted) => {
            let wanted = FederatedCredential {
                name: wanted.name.clone(),
                issuer: wanted.issuer.clone(),
                subject: wanted.subject.clone(),
                audiences: wanted.audiences.clone(),
            };
            let put = arm.put_federated_credential(id, &wanted, limit).await;
            put.map(|()| Answer::Done)
        }
        Action::DeleteCredential(id, name) => {
            let done = arm.delete_federated_credential(id, name, limit).await;
            done.map(|_| Answer::Done)
        }
        // Kubernetes' own.
        _ => Ok(Answer::Done),
    }
}

fn shown(identity: &IdentityShown) -> Shown {
    Shown {
        existence: Existence::of(identity),
        tag: identity.tags.get(naming::OWNER_TAG).cloned(),
    }
}

fn credential(shown: FederatedCredential) -> Credential {
    Credential {
        name: shown.name,
        issuer: shown.issuer,
        subject: shown.subject,
        audiences: shown.audiences,
    }
}

fn told(error: &ArmError) -> Failed {
    Failed {
        reason: error.kind.reason().into(),
        message: error.in_full().into(),
        retry_after: error.retry_after,
        transient: error.is_transient(),
    }
}
