//! The single conditions of a grant: whether an entry of a binding names a pod, whether a policy
//! admits an identity, and which condition fails if not. Pure, nothing is copied.
//!
//! [`super::grants`] asks whether any fails, `lanyard explain` asks which: one piece of code, so that
//! the explanation cannot be another opinion than the decision.

use super::world::World;
use crate::model::account::is_accounts;
use crate::model::facts::{
    BindingFacts, IdentityFacts, Labels, PodFacts, PolicyFacts, SourceFacts, Subject,
};

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

/// What of an entry of `binding` the pod does not meet; nothing: the entry names it.
pub fn unmet<'a>(
    subject: &'a Subject,
    binding: &'a BindingFacts,
    pod: &'a PodFacts,
    world: &'a World,
) -> impl Iterator<Item = Unmet> + 'a {
    let namespace = match &subject.namespace_selector {
        None => (pod.name.namespace != binding.name.namespace).then_some(Unmet::OtherNamespace),
        Some(selector) => match world.namespace(&pod.name.namespace) {
            None => Some(Unmet::UnknownNamespace),
            Some(labels) => (!selector.matches(labels)).then_some(Unmet::NamespaceSelector),
        },
    };
    let accounts = &subject.service_accounts;
    let account = accounts.is_empty() || accounts.iter().any(|name| **name == *pod.service_account);
    let labels = subject
        .pod_selector
        .as_ref()
        .is_none_or(|selector| selector.matches(&pod.labels));
    let found = [
        namespace,
        (!account).then_some(Unmet::ServiceAccount),
        (!labels).then_some(Unmet::PodSelector),
    ];
    found.into_iter().flatten()
}

/// Whether a binding names the pod: one of its entries does.
#[must_use]
pub fn binds(binding: &BindingFacts, pod: &PodFacts, world: &World) -> bool {
    let mut subjects = binding.subjects.iter();
    subjects.any(|subject| unmet(subject, binding, pod, world).next().is_none())
}

/// A clause of a policy that refuses an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clause {
    /// `namespaces`.
    Namespaces,
    /// `resourceIDPrefixes`: it has none, or none that the identity lies under; nor is the identity
    /// one of its `clientIDs`.
    Prefixes,
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
pub fn refusing<'a>(
    policy: &'a PolicyFacts,
    identity: &'a IdentityFacts,
    namespace: &'a Labels,
) -> impl Iterator<Item = Clause> + 'a {
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
            .as_ref()
            .is_none_or(|id| prefixes.iter().any(|prefix| id.is_under(prefix)));
    let resource = under || scope.client_ids.contains(&identity.client_id);
    let authority = identity.authority_host.as_ref();
    let authority = authority.is_none_or(|host| is_listed(host, &scope.authority_hosts));
    let mut endpoints = identity.sources.iter().filter_map(|source| match source {
        SourceFacts::Federated(Some(endpoint)) => Some(&endpoint.url),
        _ => None,
    });
    let endpoint = endpoints.all(|url| is_listed(url, &scope.token_endpoints));
    let annotations = scope.workload_identity || !is_accounts(&identity.name);
    let clauses = [
        (!policy.namespaces.matches(namespace)).then_some(Clause::Namespaces),
        (!resource).then_some(Clause::Prefixes),
        (!tenant).then_some(Clause::Tenants),
        (!authority).then_some(Clause::AuthorityHosts),
        (!endpoint).then_some(Clause::TokenEndpoints),
        (!annotations).then_some(Clause::WorkloadIdentity),
    ];
    clauses.into_iter().flatten()
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
