//! User-assigned identities and their federated credentials at ARM: read, made, deleted.
//!
//! In: ids, what is to be, deadlines. Out: what ARM shows, or an [`ArmError`]. Blocks on the network as the
//! rest of the client does. Whether an identity is ours to change, its tags say: whoever calls checks that.

use std::time::Duration;

use hyper::{Method, Uri};
use tokio::time::Instant;

use super::identity::{self, FederatedCredential, IdentityShown, IdentityWanted};
use super::operation::is_same_origin;
use super::{ArmClient, ArmError, ArmErrorKind, Call, IDENTITY_API, Reply, json, unusable};
use crate::model::ids::ArmId;

const CREDENTIALS: &str = "federatedIdentityCredentials";
/// Pages of a list that are read: ARM has 20 credentials at most, and one page for them.
const MOST_PAGES: usize = 20;

impl ArmClient {
    /// Reads a user-assigned identity.
    pub async fn identity(&self, id: &ArmId, limit: Duration) -> Result<IdentityShown, ArmError> {
        let uri = self.identity_uri(id, &[])?;
        let reply = self.send(Call::new(Method::GET, uri, id), limit).await?;
        read(&reply, id)
    }

    /// Makes a user-assigned identity, or changes the tags of the one that there is.
    pub async fn put_identity(
        &self,
        id: &ArmId,
        wanted: &IdentityWanted,
        limit: Duration,
    ) -> Result<IdentityShown, ArmError> {
        let uri = self.identity_uri(id, &[])?;
        let call = Call {
            body: Some(wanted.body()),
            ..Call::new(Method::PUT, uri, id)
        };
        let reply = self.send(call, limit).await?;
        read(&reply, id)
    }

    /// Deletes a user-assigned identity. Whether there was one.
    pub async fn delete_identity(&self, id: &ArmId, limit: Duration) -> Result<bool, ArmError> {
        let uri = self.identity_uri(id, &[])?;
        self.delete(Call::new(Method::DELETE, uri, id), limit).await
    }

    /// The federated credentials of an identity.
    pub async fn federated_credentials(
        &self,
        id: &ArmId,
        limit: Duration,
    ) -> Result<Vec<FederatedCredential>, ArmError> {
        let until = Instant::now() + limit;
        let mut uri = self.identity_uri(id, &[CREDENTIALS])?;
        let mut all = Vec::new();
        for _ in 0..MOST_PAGES {
            let left = until.saturating_duration_since(Instant::now());
            let reply = self.send(Call::new(Method::GET, uri, id), left).await?;
            let read = identity::read_credentials(&json(&reply, id)?);
            let (page, next) = read.map_err(|why| unusable(&reply, &why, id))?;
            all.extend(page);
            let Some(next) = next else {
                return Ok(all);
            };
            let next: Option<Uri> = next.parse().ok();
            let next = next.filter(|next| is_same_origin(next, self.endpoint.uri()));
            uri = next.ok_or_else(|| unusable(&reply, "its next page is elsewhere", id))?;
        }
        Err(ArmError::new(ArmErrorKind::Nonsense, "the list has no end").about(id))
    }

    /// Makes or replaces a federated credential. Azure takes one such write for an identity at a time.
    pub async fn put_federated_credential(
        &self,
        id: &ArmId,
        credential: &FederatedCredential,
        limit: Duration,
    ) -> Result<(), ArmError> {
        let uri = self.identity_uri(id, &[CREDENTIALS, &credential.name])?;
        let call = Call {
            body: Some(credential.body()),
            ..Call::new(Method::PUT, uri, id)
        };
        let reply = self.send(call, limit).await?;
        json(&reply, id).map(drop)
    }

    /// Deletes a federated credential. Whether there was one.
    pub async fn delete_federated_credential(
        &self,
        id: &ArmId,
        name: &str,
        limit: Duration,
    ) -> Result<bool, ArmError> {
        let uri = self.identity_uri(id, &[CREDENTIALS, name])?;
        self.delete(Call::new(Method::DELETE, uri, id), limit).await
    }

    async fn delete(&self, call: Call<'_>, limit: Duration) -> Result<bool, ArmError> {
        let resource = call.asked.resource;
        match self.send(call, limit).await {
            // ARM says nothing more; what does is something in between.
            Ok(reply) if !reply.body.trim_ascii().is_empty() => {
                json(&reply, resource)?;
                Ok(true)
            }
            Ok(reply) => Ok(reply.status != 204),
            Err(error) if error.kind == ArmErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An id of anything else is refused: nothing else is ever written or deleted this way.
    fn identity_uri(&self, id: &ArmId, below: &[&str]) -> Result<Uri, ArmError> {
        let segments: Vec<&str> = id.as_written().trim_matches('/').split('/').collect();
        let is = |at: usize, word: &str| {
            let segment = segments.get(at);
            segment.is_some_and(|segment| segment.eq_ignore_ascii_case(word))
        };
        let is_identity = segments.len() == 8
            && is(2, "resourceGroups")
            && is(4, "providers")
            && is(5, "Microsoft.ManagedIdentity")
            && is(6, "userAssignedIdentities");
        // A name without letters would end at another resource, or at the list.
        let is_named = below.iter().all(|name| !name.chars().all(|c| c == '.'));
        if !is_identity || !is_named {
            let words = format!(
                "`{id}` is no user-assigned identity (expected /subscriptions/…/resourceGroups/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME)"
            );
            return Err(ArmError::new(ArmErrorKind::BadIdentity, words).about(id));
        }
        self.uri(id, below, IDENTITY_API)
    }
}

/// The identity of this id and no other: agents believe who it is said to be.
fn read(reply: &Reply, id: &ArmId) -> Result<IdentityShown, ArmError> {
    let shown = identity::read(&json(reply, id)?);
    let shown = shown.map_err(|why| unusable(reply, &why, id))?;
    if shown.id == *id {
        Ok(shown)
    } else {
        Err(unusable(reply, "it is about another identity", id))
    }
}
