//! What a cached token is filed under. Pure.
//!
//! In: a source and an identity. Out: an [`IdentityKey`]; beside it the resource, exactly as asked.
//! Invariant 5: nobody gets a token that was cached for somebody else's credential. A source that
//! presents a credential of the `AzureIdentity`'s own can only make a key with that object's name,
//! UID and generation in it; [`IdentityKey::of`] must say for each new source which kind it is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::model::facts::{IdentityFacts, SourceFacts};
use crate::model::grant::Asker;
use crate::model::ids::{Guid, ObjectName};

/// One identity by one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdentityKey {
    credential: Credential,
    tenant: Option<Guid>,
    client_id: Guid,
}

/// What proves to Azure that the token may be given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// The node itself (IMDS): every `AzureIdentity` that names the client id gets the same token,
    /// and each grant's policy is held against it whenever it is served.
    Node(&'static str),
    /// A credential that belongs to one `AzureIdentity`.
    Own(Owner),
    /// The token of a service account (namespace and name), for one `AzureIdentity`.
    Pods(Owner, ObjectName),
}

/// The `AzureIdentity` that a credential belongs to. The name counts beside the UID, and what the
/// source says beside the generation, because manifests in a folder may have neither.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    source: SourceFacts,
    name: ObjectName,
    uid: Arc<str>,
    generation: i64,
    authority_host: Option<Arc<str>>,
}

/// Whose calls to a service are counted, paced and paused together: a client id at IMDS, which knows no
/// more; elsewhere one `AzureIdentity`'s use of it, since anybody may write another's client id into his
/// own. Cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Applicant {
    client_id: Guid,
    /// A hash of whose credential it is; 0: the node's.
    owner: u64,
}

impl Applicant {
    /// The applicant of an identity's calls to one of its sources.
    #[must_use]
    pub fn of(source: &SourceFacts, identity: &IdentityFacts) -> Self {
        let client_id = identity.client_id;
        let owner = match source {
            SourceFacts::Imds => 0,
            SourceFacts::ServicePrincipal(_) | SourceFacts::Federated(_) => {
                let mut hasher = DefaultHasher::new();
                (&identity.name, &identity.uid, identity.tenant_id).hash(&mut hasher);
                hasher.finish()
            }
        };
        Self { client_id, owner }
    }
}

impl Credential {
    /// What a source presents for this identity and whoever asks.
    fn of(source: &SourceFacts, identity: &IdentityFacts, asker: &Asker) -> Self {
        match source {
            SourceFacts::Imds => Self::Node(source.as_str()),
            SourceFacts::ServicePrincipal(_) => Self::Own(Owner::of(source, identity)),
            SourceFacts::Federated(_) => Self::Pods(
                Owner::of(source, identity),
                ObjectName {
                    namespace: Arc::clone(&asker.pod.namespace),
                    name: Arc::clone(&asker.service_account),
                },
            ),
        }
    }
}

impl Owner {
    fn of(source: &SourceFacts, identity: &IdentityFacts) -> Self {
        Self {
            source: source.clone(),
            name: identity.name.clone(),
            uid: Arc::clone(&identity.uid),
            generation: identity.generation,
            authority_host: identity.authority_host.clone(),
        }
    }
}

impl IdentityKey {
    /// The key of an identity's tokens by one of its sources, for whoever asks. Copies no text.
    #[must_use]
    pub fn of(source: &SourceFacts, identity: &IdentityFacts, asker: &Asker) -> Self {
        Self {
            credential: Credential::of(source, identity, asker),
            tenant: identity.tenant_id,
            client_id: identity.client_id,
        }
    }

    /// The `AzureIdentity` whose own credential gives these tokens; `None`: the node's.
    #[must_use]
    pub const fn owner(&self) -> Option<&ObjectName> {
        match &self.credential {
            Credential::Node(_) => None,
            Credential::Own(owner) | Credential::Pods(owner, _) => Some(&owner.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::{CredentialFacts, CredentialForm};

    fn identity(namespace: &str, uid: &str, generation: i64) -> IdentityFacts {
        IdentityFacts {
            name: ObjectName::new(namespace, "app"),
            uid: uid.into(),
            generation,
            client_id: "11111111-1111-4111-8111-111111111111".parse().unwrap(),
            tenant_id: None,
            object_id: None,
            resource_id: None,
            sources: vec![SourceFacts::Imds],
            allowed_resources: vec![],
            authority_host: None,
        }
    }

    fn asker(namespace: &str, service_account: &str) -> Asker {
        Asker {
            uid: "uid-pod".into(),
            pod: ObjectName::new(namespace, "pod"),
            service_account: service_account.into(),
        }
    }

    fn secret(name: &str) -> SourceFacts {
        SourceFacts::ServicePrincipal(Arc::new(CredentialFacts {
            secret: name.into(),
            form: CredentialForm::Secret { key: "key".into() },
        }))
    }

    #[test]
    fn a_credential_of_ones_own_is_never_shared() {
        let own = |source: &str, identity: &IdentityFacts| {
            let source = match source {
                "federated" => SourceFacts::Federated(None),
                name => secret(name),
            };
            IdentityKey::of(&source, identity, &asker("team-a", "app"))
        };
        let theirs = own("secret", &identity("team-a", "uid-1", 1));
        // The attack: the same client id, named by another object, with any credential.
        for (source, mine) in [
            ("secret", identity("team-b", "uid-2", 1)),
            ("secret", identity("team-a", "uid-2", 1)),
            ("secret", identity("team-a", "uid-1", 2)),
            ("federated", identity("team-a", "uid-1", 1)),
            ("secret", identity("team-b", "uid-1", 1)),
        ] {
            assert_ne!(theirs, own(source, &mine), "{source} {mine:?}");
        }
        // Manifests without UIDs do not make two objects one.
        assert_ne!(
            own("secret", &identity("team-a", "", 0)),
            own("secret", &identity("team-b", "", 0))
        );
        assert_ne!(
            theirs,
            IdentityKey::of(
                &SourceFacts::Imds,
                &identity("team-a", "uid-1", 1),
                &asker("team-a", "app")
            )
        );
        assert_eq!(theirs, own("secret", &identity("team-a", "uid-1", 1)));
    }

    #[test]
    fn what_the_source_says_counts_where_nothing_is_counted() {
        let plain = identity("team-a", "", 0);
        let asker = asker("team-a", "app");
        let key = |source, identity| IdentityKey::of(&source, identity, &asker);
        assert_eq!(key(secret("one"), &plain), key(secret("one"), &plain));
        assert_ne!(key(secret("one"), &plain), key(secret("two"), &plain));
        let elsewhere = IdentityFacts {
            authority_host: Some("https://login.microsoftonline.us".into()),
            ..plain.clone()
        };
        assert_ne!(key(secret("one"), &plain), key(secret("one"), &elsewhere));
    }

    #[test]
    fn a_pods_own_credential_is_its_service_accounts() {
        let identity = identity("team-a", "uid-1", 1);
        let federated = SourceFacts::Federated(None);
        let key = |asker: &Asker| IdentityKey::of(&federated, &identity, asker);
        let theirs = key(&asker("team-a", "app"));
        assert_ne!(theirs, key(&asker("team-a", "other")));
        assert_ne!(theirs, key(&asker("team-b", "app")));
        let mut twin = asker("team-a", "app");
        twin.uid = "uid-of-another-pod".into();
        twin.pod = ObjectName::new("team-a", "another");
        assert_eq!(theirs, key(&twin));
        assert_eq!(theirs.owner(), Some(&identity.name));
    }

    #[test]
    fn who_writes_anothers_client_id_has_no_part_in_his_pace() {
        let theirs = identity("team-a", "uid-1", 1);
        let mine = identity("team-b", "uid-2", 1);
        let of = |source: &SourceFacts, identity| Applicant::of(source, identity);
        let federated = SourceFacts::Federated(None);
        assert_ne!(of(&federated, &theirs), of(&federated, &mine));
        assert_eq!(
            of(&SourceFacts::Imds, &theirs),
            of(&SourceFacts::Imds, &mine)
        );
        let changed = identity("team-a", "uid-1", 2);
        assert_eq!(of(&federated, &theirs), of(&federated, &changed));
    }

    #[test]
    fn by_imds_the_client_id_and_tenant_decide() {
        let key = |identity: &IdentityFacts| {
            IdentityKey::of(&SourceFacts::Imds, identity, &asker("team-a", "app"))
        };
        let one = identity("team-a", "uid-1", 1);
        assert_eq!(key(&one), key(&identity("team-b", "uid-2", 7)));
        let mut other = one.clone();
        other.client_id = "22222222-2222-4222-8222-222222222222".parse().unwrap();
        assert_ne!(key(&one), key(&other));
        let mut other = one.clone();
        other.tenant_id = Some(one.client_id);
        assert_ne!(key(&one), key(&other));
    }
}
