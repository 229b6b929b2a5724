//! What a service account that is set up for Azure Workload Identity says, and the identity that
//! this makes for its pods: a federated one, of a name that no `AzureIdentity` can have.
//!
//! Holds invariant 5: two accounts with the same client id are two identities by name and UID, so
//! that neither gets what was cached for the other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::facts::{IdentityFacts, SourceFacts};
use super::ids::{Guid, ObjectName};

/// Before the account's name in the identity's. Kubernetes takes no object name with a colon.
const PREFIX: &str = "serviceaccount:";

/// A `ServiceAccount` with the annotation `azure.workload.identity/client-id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFacts {
    /// Namespace and name.
    pub name: ObjectName,
    /// Object UID, empty where the manifests give none.
    pub uid: Arc<str>,
    /// The application's client id.
    pub client_id: Guid,
    /// Its tenant, when stated.
    pub tenant_id: Option<Guid>,
}

impl AccountFacts {
    /// The identity of the account's pods.
    #[must_use]
    pub fn identity(&self) -> IdentityFacts {
        IdentityFacts {
            name: identity_name(&self.name),
            uid: self.uid.clone(),
            // Of what an account says only the two ids count, and both are in the cache's key.
            generation: 0,
            client_id: self.client_id,
            tenant_id: self.tenant_id,
            object_id: None,
            resource_id: None,
            sources: vec![SourceFacts::Federated(None)],
            allowed_resources: Vec::new(),
            authority_host: None,
        }
    }
}

/// What the identity of a service account is called.
#[must_use]
pub fn identity_name(account: &ObjectName) -> ObjectName {
    ObjectName::new(
        account.namespace.clone(),
        format!("{PREFIX}{}", account.name),
    )
}

/// The service account whose identity is called so; `None` for an `AzureIdentity`.
#[must_use]
pub fn account_of(identity: &ObjectName) -> Option<ObjectName> {
    let account = identity.name.strip_prefix(PREFIX)?;
    Some(ObjectName::new(identity.namespace.clone(), account))
}

/// Whether an identity of this name is a service account's. Copies nothing.
#[must_use]
pub fn is_accounts(identity: &ObjectName) -> bool {
    identity.name.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_and_its_identity_name_each_other() {
        let account = ObjectName::new("shop", "app");
        let identity = identity_name(&account);
        assert_eq!(&*identity.name, "serviceaccount:app");
        assert!(is_accounts(&identity) && !is_accounts(&account));
        assert_eq!(account_of(&identity), Some(account.clone()));
        assert_eq!(account_of(&account), None);
    }
}
