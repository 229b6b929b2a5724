//! What an operator changes so that a policy admits an identity.

use super::Remedy;
use super::commands::{apply, endpoint, group, is_application, patch_json, policy_yaml};
use super::found::Found;
use super::yaml::{scalar, shell};
use crate::agent::conditions::{Clause, refusing};
use crate::model::account::{account_of, is_accounts};
use crate::model::facts::{IdentityFacts, Labels, Operator, PolicyFacts};
use crate::model::ids::ObjectName;

/// A policy must admit the identity: an operator's task.
pub(super) fn admit(found: &Found, name: &ObjectName) -> Vec<Remedy> {
    let account = account_of(name).and_then(|account| found.world.account(&account));
    let own = account.map(|account| &account.identity);
    let Some(known) = found.world.identity(name).or(own) else {
        return Vec::new();
    };
    let identity = &known.facts;
    let Some(labels) = found.world.namespace(&name.namespace) else {
        return vec![Remedy {
            what: format!(
                "the Namespace object {} must be known: put it beside the other manifests",
                name.namespace
            ),
            how: format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}",
                scalar(&name.namespace)
            ),
        }];
    };
    let mut remedies = Vec::new();
    for policy in found.world.policies() {
        remedies.extend(loosen(policy, identity, labels));
    }
    remedies.truncate(2);
    // Not the name of one that is there: applying would replace it.
    let taken = |name: &str| found.world.policies().any(|policy| *policy.name == *name);
    let mut free = name.namespace.to_string();
    while taken(&free) {
        free.push_str("-identities");
    }
    remedies.push(Remedy {
        what: format!(
            "an operator creates a policy for namespace {}",
            name.namespace
        ),
        how: apply(&policy_yaml(&free, identity)),
    });
    remedies
}

/// How a policy that refuses by a single clause would admit the identity.
fn loosen(policy: &PolicyFacts, identity: &IdentityFacts, namespace: &Labels) -> Option<Remedy> {
    let clauses: Vec<Clause> = refusing(policy, identity, namespace).collect();
    let scope = &policy.scope;
    let (field, value, has_some) = match clauses[..] {
        [Clause::WorkloadIdentity] | [Clause::Prefixes, Clause::WorkloadIdentity] => {
            return Some(let_accounts(policy, identity, clauses.len() > 1));
        }
        [Clause::Prefixes] if is_accounts(&identity.name) => {
            return Some(let_accounts(policy, identity, true));
        }
        [Clause::Prefixes] if is_application(identity) => {
            let client = identity.client_id.to_string();
            ("clientIDs", client, !scope.client_ids.is_empty())
        }
        [Clause::Prefixes | Clause::Others] => {
            let has_some = !scope.resource_id_prefixes.is_empty();
            ("resourceIDPrefixes", group(identity), has_some)
        }
        [Clause::Tenants] => ("tenantIDs", identity.tenant_id?.to_string(), true),
        [Clause::AuthorityHosts] => {
            let host = identity.authority_host.as_deref()?.to_owned();
            ("authorityHosts", host, !scope.authority_hosts.is_empty())
        }
        [Clause::TokenEndpoints] => {
            let url = endpoint(identity)?.to_owned();
            ("tokenEndpoints", url, !scope.token_endpoints.is_empty())
        }
        [Clause::Namespaces] => {
            let unmet: Vec<_> = policy.namespaces.unmet(namespace).collect();
            let [only] = unmet[..] else { return None };
            let value = only
                .values
                .first()
                .filter(|_| only.operator == Operator::In)?;
            let own = &identity.name.namespace;
            return Some(Remedy {
                what: format!(
                    "an operator gives namespace {own} the label {}={value}, which AzureIdentityPolicy {} looks for",
                    only.key, policy.name
                ),
                how: format!(
                    "kubectl label --overwrite namespace {own} {}={value}",
                    only.key
                ),
            });
        }
        _ => return None,
    };
    // The end of a list that is not there cannot be added to.
    let patch = if has_some {
        serde_json::json!([{"op": "add", "path": format!("/spec/{field}/-"), "value": value}])
    } else {
        serde_json::json!([{"op": "add", "path": format!("/spec/{field}"), "value": [value]}])
    };
    let name = ObjectName::new("", policy.name.clone());
    Some(Remedy {
        what: format!(
            "an operator lets AzureIdentityPolicy {} admit it (or the identity is corrected, if that is what is wrong)",
            policy.name
        ),
        how: patch_json("azureidentitypolicy", &name, &patch),
    })
}

/// Lets annotations of service accounts count under a policy, and this application where it must.
fn let_accounts(policy: &PolicyFacts, identity: &IdentityFacts, application: bool) -> Remedy {
    let mut spec = serde_json::json!({"workloadIdentity": true});
    if application {
        let listed = policy.scope.client_ids.iter().chain([&identity.client_id]);
        spec["clientIDs"] = listed.map(ToString::to_string).collect();
    }
    let patch = serde_json::json!({"spec": spec});
    Remedy {
        what: format!(
            "an operator lets annotations of service accounts count under AzureIdentityPolicy {}",
            policy.name
        ),
        how: format!(
            "kubectl patch azureidentitypolicy {} --type=merge -p {}",
            policy.name,
            shell(&patch.to_string())
        ),
    }
}
