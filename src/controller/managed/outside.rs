//! What a managed identity's life touches outside of this process: Azure, the objects in Kubernetes, the
//! lease. Narrow traits, so that tests can let each of them fail, hang and forget.

use std::time::Duration;

use super::claim::Claim;
use super::federated::Credential;
use super::known::{Answer, Failed, Shown};
use super::naming;
use super::step::Action;
use crate::azure::arm::{ArmClient, ArmError, FederatedCredential, IdentityShown, IdentityWanted};
use crate::controller::known::Existence;
pub use crate::controller::lease::Lead as Leading;

/// Azure Resource Manager, as far as identities go.
pub trait Azure: Send + Sync + 'static {
    /// Sees to it that a write right after this needs no other request.
    fn prepare(&self, limit: Duration) -> impl Future<Output = Result<(), Failed>> + Send;

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

impl Azure for ArmClient {
    async fn prepare(&self, limit: Duration) -> Result<(), Failed> {
        Self::prepare(self, limit)
            .await
            .map_err(|error| told(&error))
    }

    async fn call(&self, action: &Action, limit: Duration) -> Result<Answer, Failed> {
        let answer = match action {
            Action::Read(id) => match self.identity(id, limit).await {
                Ok(identity) => Ok(Answer::Identity(Some(shown(&identity)))),
                Err(error) if error.is_absence() => Ok(Answer::Identity(None)),
                Err(error) => Err(error),
            },
            Action::Create(id, location, tag) => {
                let wanted = IdentityWanted {
                    location: location.clone(),
                    tags: [(naming::OWNER_TAG.to_owned(), tag.clone())].into(),
                };
                let made = self.put_identity(id, &wanted, limit).await;
                made.map(|identity| Answer::Identity(Some(shown(&identity))))
            }
            Action::Delete(id) => {
                let done = self.delete_identity(id, limit).await;
                done.map(|_| Answer::Done)
            }
            Action::ReadCredentials(id) => {
                let read = self.federated_credentials(id, limit).await;
                read.map(|all| Answer::Credentials(all.into_iter().map(credential).collect()))
            }
            Action::PutCredential(id, wanted) => {
                let wanted = FederatedCredential {
                    name: wanted.name.clone(),
                    issuer: wanted.issuer.clone(),
                    subject: wanted.subject.clone(),
                    audiences: wanted.audiences.clone(),
                };
                let put = self.put_federated_credential(id, &wanted, limit).await;
                put.map(|()| Answer::Done)
            }
            Action::DeleteCredential(id, name) => {
                let done = self.delete_federated_credential(id, name, limit).await;
                done.map(|_| Answer::Done)
            }
            // Kubernetes' own.
            _ => Ok(Answer::Done),
        };
        answer.map_err(|error| told(&error))
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
