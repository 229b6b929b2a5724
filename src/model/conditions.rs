//! The single conditions of a grant: whether an entry of a binding names a pod, whether a policy
//! admits an identity, and which condition fails if not. Pure, nothing is copied.
//!
//! The agent and the controller ask whether any fails, `lanyard explain` asks which: one piece of code,
//! so that what is assigned is what is served, and the explanation is no other opinion than the
//! decision. Views are borrowed: the three keep pods and identities in different ways.

use super::facts::{BindingFacts, Labels, PolicyFacts, SourceFacts, Subject};
use super::ids::{ArmId, Guid};
use super::managed;

/// Of a pod what bindings name it by.
#[derive(Clone, Copy, Debug)]
pub struct PodView<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its namespace's labels; `None` while they are not known: such a namespace matches no selector.
    pub namespace_labels: Option<&'a Labels>,
    /// Its service account.
    pub account: &'a str,
    /// Its own labels.
    pub labels: &'a Labels,
}

/// Of an identity what policies admit it by.
#[derive(Clone, Copy, Debug)]
pub struct IdentityView<'a> {
    /// The object's UID; empty where it has none.
    pub uid: &'a str,
    /// Client id, where it is known and to be trusted.
    pub client_id: Option<Guid>,
    /// ARM id, where stated.
    pub resource_id: Option<&'a ArmId>,
    /// Tenant, where stated.
    pub tenant_id: Option<Guid>,
    /// The Entra ID that it names.
    pub authority_host: Option<&'a str>,
    /// Where its tokens come from.
    pub sources: &'a [SourceFacts],
    /// Whether the annotations of a service account make it.
    pub is_accounts: bool,
}

/// A condition of a binding's entry that a pod does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The pod is of another namespace than the binding, and the entry has no `namespaceSelector`.
    OtherNamespace,
    /// `namespaceSelector`, and the labels of the pod's namespace are not known.
    UnknownNamespace,
    /// `namespaceSelector`.
    NamespaceSelector,
    /// `serviceAccounts`.
    ServiceAccount,
    /// `podSelector`.
    PodSelector,
}

/// What of an entry of a binding in `namespace` the pod does not meet; nothing: the entry names it.
pub fn unmet(
    subject: &Subject,
    namespace: &str,
    pod: PodView<'_>,
) -> impl Iterator<Item = Unmet> + use<> {
    let namespace = match &subject.namespace_selector {
        None => (pod.namespace != namespace).then_some(Unmet::OtherNamespace),
        Some(selector) => match pod.namespace_labels {
            None => Some(Unmet::UnknownNamespace),
            Some(labels) => (!selector.matches(labels)).then_some(Unmet::NamespaceSelector),
        },
    };
    let accounts = &subject.service_accounts;
    let account = accounts.is_empty() || accounts.iter().any(|name| *name == *pod.account);
    let labels = subject
        .pod_selector
        .as_ref()
        .is_none_or(|selector| selector.matches(pod.labels));
    let found = [
        namespace,
        (!account).then_some(Unmet::ServiceAccount),
        (!labels).then_some(Unmet::PodSelector),
    ];
    found.into_iter().flatten()
}

/// Whether a binding names the pod: one of its entries does.
#[must_use]
pub fn binds(binding: &BindingFacts, pod: PodView<'_>) -> bool {
    let namespace = &binding.name.namespace;
    let mut subjects = binding.subjects.iter();
    subjects.any(|subject| unmet(subject, namespace, pod).next().is_none())
}

/// A clause of a policy that refuses an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clause {
    /// `namespaces`.
    Namespaces,
    /// `resourceIDPrefixes`: it has none, or none that the identity lies under; nor is the identity
    /// one of its `clientIDs`.
    Prefixes,
    /// `resourceIDPrefixes`: the identity lies under one, but Lanyard made it for another object, and
    /// none is its whole id.
    Others,
    /// `tenantIDs`.
    Tenants,
    /// `authorityHosts`: the identity names another Entra ID.
    AuthorityHosts,
    /// `tokenEndpoints`: the identity names a token endpoint.
    TokenEndpoints,
    /// `workloadIdentity`: the identity is a service account's.
    WorkloadIdentity,
}

/// What of a policy refuses an identity of a namespace with these labels; nothing: it admits it.
pub fn refusing(
    policy: &PolicyFacts,
    identity: IdentityView<'_>,
    namespace: &Labels,
) -> impl Iterator<Item = Clause> + use<> {
    let scope = &policy.scope;
    let tenant = scope.tenant_ids.is_empty()
        || identity
            .tenant_id
            .is_none_or(|tenant| scope.tenant_ids.contains(&tenant));
    // Without a resource id the check is left to the token's own claims, at obtain.
    let prefixes = &scope.resource_id_prefixes;
    let under = !prefixes.is_empty()
        && identity
            .resource_id
            .is_none_or(|id| prefixes.iter().any(|prefix| id.is_under(prefix)));
    let client = identity.client_id;
    let listed = client.is_some_and(|client| scope.client_ids.contains(&client));
    let own = identity
        .resource_id
        .is_none_or(|id| listed || is_open(id, identity.uid, prefixes));
    let authority = identity.authority_host;
    let authority = authority.is_none_or(|host| is_listed(host, &scope.authority_hosts));
    let mut endpoints = identity.sources.iter().filter_map(|source| match source {
        SourceFacts::Federated(Some(endpoint)) => Some(&endpoint.url),
        _ => None,
    });
    let endpoint = endpoints.all(|url| is_listed(url, &scope.token_endpoints));
    let annotations = scope.workload_identity || !identity.is_accounts;
    let clauses = [
        (!policy.namespaces.matches(namespace)).then_some(Clause::Namespaces),
        (!under && !listed).then_some(Clause::Prefixes),
        (under && !own).then_some(Clause::Others),
        (!tenant).then_some(Clause::Tenants),
        (!authority).then_some(Clause::AuthorityHosts),
        (!endpoint).then_some(Clause::TokenEndpoints),
        (!annotations).then_some(Clause::WorkloadIdentity),
    ];
    clauses.into_iter().flatten()
}

/// Whether the object of this UID may name an identity under these prefixes: one that Lanyard made for
/// another object only where a prefix is its whole id (it was kept, say, and is to be used on).
#[must_use]
pub fn is_open(id: &ArmId, uid: &str, prefixes: &[String]) -> bool {
    !managed::is_others(id, uid) || prefixes.iter().any(|prefix| id.is(prefix))
}

/// Whether a URL is in the list; a slash at the end and the case of a host make no difference. That of
/// a path does: there two may be two tenants of a proxy.
fn is_listed(url: &str, list: &[String]) -> bool {
    let (origin, path) = parted(url);
    list.iter()
        .map(|listed| parted(listed))
        .any(|listed| origin.eq_ignore_ascii_case(listed.0) && path == listed.1)
}

/// Scheme with host and port, and the path without a slash at its end.
fn parted(url: &str) -> (&str, &str) {
    let url = url.trim_end_matches('/');
    let host = url.find("://").map_or(0, |at| at + 3);
    let path = url[host..].find('/').map_or(url.len(), |at| host + at);
    url.split_at(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origins_case_makes_no_difference_and_a_paths_does() {
        let list = ["https://Tokens.example:8443/Team-A/".to_owned()];
        assert!(is_listed("https://tokens.example:8443/Team-A", &list));
        for other in [
            "https://tokens.example:8443/team-a",
            "https://tokens.example:8443/Team-A/x",
            "https://tokens.example/Team-A",
            "https://tokens.example:8443",
            "https://tokens.example.:8443/Team-A",
        ] {
            assert!(!is_listed(other, &list), "{other}");
        }
    }
}
