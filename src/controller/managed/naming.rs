//! What things of a managed identity are called in Azure. Pure.
//!
//! In: the cluster's UID (that of its namespace `kube-system`), the object's name and UID, an issuer, a
//! service account. Out: names that are the same each time, so that a crash never makes two, and that
//! no other cluster and no later object of the same name can have.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use crate::model::ids::{ArmId, NotAnArmId, ObjectName};
use crate::model::managed::PREFIX;

/// The tag that says whose an identity in Azure is. Only one with exactly our value is ever adopted,
/// changed or deleted.
pub const OWNER_TAG: &str = "lanyard-owner";

/// The audience that Entra ID wants in tokens that are exchanged.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// Azure's limit for the value of a tag.
const LONGEST_TAG: usize = 256;
/// Azure's limit for the name of a federated credential.
const LONGEST_CREDENTIAL: usize = 120;

/// The ARM id of the identity: `lanyard-<cluster uid>-<object uid>` in its resource group.
pub fn resource_id(group: &str, cluster: &str, uid: &str) -> Result<ArmId, NotAnArmId> {
    let group = group.trim_end_matches('/');
    format!(
        "{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{PREFIX}{cluster}-{uid}"
    )
    .parse()
}

/// The value of the ownership tag: `<cluster uid>/<namespace>/<name>/<object uid>`. A name too long
/// for a tag is cut: the UIDs decide.
#[must_use]
pub fn owner_tag(cluster: &str, name: &ObjectName, uid: &str) -> String {
    let rest = cluster.len() + name.namespace.len() + uid.len() + 3;
    let cut = cut(&name.name, LONGEST_TAG.saturating_sub(rest));
    format!("{cluster}/{}/{cut}/{uid}", name.namespace)
}

/// The subject in a service account's tokens.
#[must_use]
pub fn subject(account: &ObjectName) -> String {
    format!(
        "system:serviceaccount:{}:{}",
        account.namespace, account.name
    )
}

/// The service account that a subject names.
#[must_use]
pub fn account(subject: &str) -> Option<ObjectName> {
    let rest = subject.strip_prefix("system:serviceaccount:")?;
    let (namespace, name) = rest.split_once(':')?;
    Some(ObjectName::new(namespace, name))
}

/// The name of a service account's federated credential: `<namespace>-<account>-<8 hex>`, the hex being
/// the start of the SHA-256 of issuer and subject. Azure takes 3 to 120 letters, digits, `-` and `_`, the
/// first a letter or digit.
#[must_use]
pub fn credential(issuer: &str, account: &ObjectName) -> String {
    let readable = format!("{}-{}", account.namespace, account.name);
    let plain = |c: char| {
        let taken = c.is_ascii_alphanumeric() || c == '-';
        if taken { c } else { '-' }
    };
    let readable: String = readable.chars().map(plain).collect();
    let mut name = cut(&readable, LONGEST_CREDENTIAL - 9).to_owned();
    name.push('-');
    let hash = digest(
        &SHA256,
        format!("{issuer}\n{}", subject(account)).as_bytes(),
    );
    for byte in &hash.as_ref()[..4] {
        // Writing to a String does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The beginning of an ASCII text.
fn cut(text: &str, most: usize) -> &str {
    text.get(..most).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "c0000000-0000-4000-8000-000000000001";
    const UID: &str = "0b000000-0000-4000-8000-000000000002";

    #[test]
    fn the_name_holds_both_uids_and_the_tag_says_whose_it_is() {
        let id = resource_id("/subscriptions/s/resourceGroups/shop/", CLUSTER, UID).unwrap();
        assert_eq!(
            id.as_written(),
            format!(
                "/subscriptions/s/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/lanyard-{CLUSTER}-{UID}"
            )
        );
        assert_eq!(crate::model::managed::made_for(&id), Some(UID));
        let tag = owner_tag(CLUSTER, &ObjectName::new("shop", "payments"), UID);
        assert_eq!(tag, format!("{CLUSTER}/shop/payments/{UID}"));
        let long = ObjectName::new("n".repeat(63), "x".repeat(253));
        let tag = owner_tag(CLUSTER, &long, UID);
        assert!(tag.len() == LONGEST_TAG && tag.ends_with(UID), "{tag}");
    }

    #[test]
    fn credentials_have_names_that_azure_takes_and_that_tell_accounts_apart() {
        let issuer = "https://issuer.example";
        let web = credential(issuer, &ObjectName::new("shop", "web.front"));
        // printf 'https://issuer.example\nsystem:serviceaccount:shop:web.front' | sha256sum
        assert!(web.starts_with("shop-web-front-"), "{web}");
        let names = [
            web,
            credential(issuer, &ObjectName::new("shop", "web-front")),
            credential(
                "https://other.example",
                &ObjectName::new("shop", "web.front"),
            ),
            credential(issuer, &ObjectName::new("shop-web", "front")),
            credential(issuer, &ObjectName::new("n".repeat(63), "x".repeat(253))),
            credential(issuer, &ObjectName::new("n".repeat(63), "x".repeat(252))),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!((3..=120).contains(&name.len()), "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()));
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
            assert!(!names[..at].contains(name), "{name} twice");
        }
    }

    #[test]
    fn a_subject_names_its_account_and_nothing_else_does() {
        let account_of = ObjectName::new("shop", "web");
        assert_eq!(account(&subject(&account_of)), Some(account_of));
        assert_eq!(account("repo:shop/web:ref:refs/heads/main"), None);
    }
}
