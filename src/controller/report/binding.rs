//! An `AzureIdentityBinding`'s status: how many pods it names, and whether the grant is in force. Pure.

use std::collections::BTreeMap;

use super::Verdict;
use super::facts::Facts;
use crate::api::binding::AzureIdentityBindingStatus;
use crate::controller::world::Seen;
use crate::model::facts::BindingFacts;
use crate::model::ids::ObjectName;

pub(super) fn report(
    name: &ObjectName,
    seen: &Seen<BindingFacts>,
    facts: &Facts<'_>,
    identities: &BTreeMap<&ObjectName, Verdict>,
) -> (AzureIdentityBindingStatus, Verdict) {
    let binding = match &seen.said {
        Ok(binding) => binding,
        Err(error) => {
            let verdict = Verdict::no("Malformed", error.to_string());
            return (AzureIdentityBindingStatus::default(), verdict);
        }
    };
    let pods = facts.ledger.matched_pods(name);
    let status = AzureIdentityBindingStatus {
        matched_pods: Some(i32::try_from(pods).unwrap_or(i32::MAX)),
        ..AzureIdentityBindingStatus::default()
    };
    (status, verdict(binding, pods, identities))
}

fn verdict(
    binding: &BindingFacts,
    pods: usize,
    identities: &BTreeMap<&ObjectName, Verdict>,
) -> Verdict {
    let identity = &binding.identity;
    let name = ObjectName::new(binding.name.namespace.clone(), identity.clone());
    match identities.get(&name) {
        None => Verdict::no(
            "IdentityMissing",
            format!(
                "there is no AzureIdentity {identity} in namespace {}: create it, or correct spec.identity",
                binding.name.namespace
            ),
        ),
        Some(of) if !of.holds => Verdict::no(
            &of.reason,
            format!("AzureIdentity {identity}: {}", of.message),
        ),
        Some(_) if pods == 0 => Verdict::yes("NoPods", "no running pod fits its subjects"),
        Some(of) => Verdict::yes(
            "Granted",
            format!("AzureIdentity {identity}: {}", of.message),
        ),
    }
}
