//! What was observed in Kubernetes → one [`Claim`] for each `AzureIdentity` with `spec.managed`. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claim::Claim;
use super::{FINALIZER, accounts};
use crate::api::assignment::{AssignmentState, AzureAssignment};
use crate::controller::world::{SeenIdentity, World};
use crate::model::facts::SourceFacts;
use crate::model::ids::{ArmId, ObjectName};

/// Whether an object concerns us: it is to be managed, or our finalizer holds it.
#[must_use]
pub fn concerns(seen: &SeenIdentity) -> bool {
    let held = seen.meta.finalizers.iter().any(|name| name == FINALIZER);
    let managed = seen.said.as_ref().is_ok_and(|said| said.managed.is_some());
    held || managed
}

/// The claims of these objects; `None` for one that is not there or does not concern us. `leaving`:
/// Lanyard is being removed, so that it counts where they are still assigned.
#[must_use]
pub fn claims<'a>(
    world: &World,
    names: impl IntoIterator<Item = &'a ObjectName> + Clone,
    leaving: bool,
) -> BTreeMap<ObjectName, Option<Claim>> {
    let ours = |name: &&ObjectName| {
        world
            .identities
            .get(*name)
            .is_some_and(|seen| concerns(seen))
    };
    // A pass over all pods: not for the changes of those that are none of ours.
    let mut bound = accounts::bound(world, names.clone().into_iter().filter(ours));
    let mut claims = BTreeMap::new();
    for name in names {
        let seen = world.identities.get(name).filter(|seen| concerns(seen));
        let accounts = bound.remove(name).unwrap_or_default();
        let claim = seen.map(|seen| claim(world, name, seen, accounts, leaving));
        claims.insert(name.clone(), claim);
    }
    claims
}

fn claim(
    world: &World,
    name: &ObjectName,
    seen: &SeenIdentity,
    accounts: BTreeSet<ObjectName>,
    leaving: bool,
) -> Claim {
    let meta = &seen.meta;
    let said = seen.said.as_ref();
    let sources = said.map(|said| &said.sources[..]).unwrap_or_default();
    let spec = match said {
        Ok(said) => said.managed.clone().map(Arc::new).ok_or_else(|| {
            // The API server does not let it be taken out of the spec.
            Arc::from("spec.managed is missing")
        }),
        Err(malformed) => Err(malformed.to_string().into()),
    };
    let admitted = spec
        .as_ref()
        .is_ok_and(|spec| is_admitted(world, &name.namespace, &spec.resource_group));
    Claim {
        name: name.clone(),
        uid: meta.uid.clone(),
        generation: meta.generation,
        version: meta.version.parse().unwrap_or_default(),
        deleting: meta.deleting,
        held: meta.finalizers.iter().any(|name| name == FINALIZER),
        owners: meta.owners.clone(),
        // A token endpoint of one's own asks nobody in Azure whom it trusts. What cannot be read may be.
        federated: said.is_err() || sources.contains(&SourceFacts::Federated(None)),
        admitted,
        accounts,
        assigned: if meta.deleting || leaving {
            assigned(world, &meta.uid)
        } else {
            BTreeSet::new()
        },
        spec,
    }
}

/// Whether a policy lets a namespace have identities in a resource group. Nothing is admitted where the
/// namespace's labels are not known.
fn is_admitted(world: &World, namespace: &str, group: &str) -> bool {
    let (Some(labels), Ok(group)) = (world.namespaces.get(namespace), group.parse::<ArmId>())
    else {
        return false;
    };
    let policies = world.policies.values().filter(|seen| !seen.meta.deleting);
    let mut policies = policies.filter_map(|seen| seen.said.as_ref().ok());
    policies.any(|policy| {
        policy.namespaces.matches(labels) && policy.scope.managed_groups.contains(&group)
    })
}

/// Where the identity of an object with this UID is still assigned: its name ends with it.
fn assigned(world: &World, uid: &str) -> BTreeSet<Arc<str>> {
    let end = format!("-{uid}").to_ascii_lowercase();
    let has = |assignment: &&Arc<AzureAssignment>| {
        let status = assignment
            .status
            .iter()
            .flat_map(|status| &status.identities);
        let there = |state| matches!(state, AssignmentState::Assigned | AssignmentState::Removing);
        status.into_iter().any(|one| {
            let id = one.resource_id.trim_end_matches('/').to_ascii_lowercase();
            id.ends_with(&end) && there(one.state)
        })
    };
    let all = world.assignments.iter();
    all.filter(|(_, assignment)| has(assignment))
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::identity::AzureIdentity;
    use crate::controller::world::{Change, Meta, Seen};
    use crate::model::facts::{LabelSelector, PolicyFacts, PolicyScope};

    const GROUP: &str = "/subscriptions/s/resourceGroups/shop";
    const UID: &str = "0b000000-0000-4000-8000-000000000002";

    fn world(groups: &[&str], sources: &serde_json::Value) -> World {
        let mut world = World::default();
        world.apply(Change::Namespace("shop".into(), Some(Arc::default())));
        let policy = Seen {
            meta: Meta::default(),
            said: Ok(PolicyFacts {
                name: "p".into(),
                namespaces: LabelSelector::default(),
                scope: Arc::new(PolicyScope {
                    managed_groups: groups.iter().map(|id| id.parse().unwrap()).collect(),
                    ..PolicyScope::default()
                }),
            }),
            status: (),
        };
        world.apply(Change::Policy("p".into(), Some(Arc::new(policy))));
        let object = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity", "metadata": {"name": "payments"},
            "spec": {"managed": {"resourceGroup": GROUP, "location": "westeurope"}, "tokenSources": sources}});
        let object: AzureIdentity = serde_json::from_value(object).unwrap();
        let seen = Seen {
            meta: Meta {
                uid: UID.into(),
                version: "17".into(),
                ..Meta::default()
            },
            said: object.stated().map(Arc::new),
            status: None,
        };
        world.apply(Change::Identity(name(), Some(Arc::new(seen))));
        world
    }

    fn name() -> ObjectName {
        ObjectName::new("shop", "payments")
    }

    fn one(world: &World, leaving: bool) -> Claim {
        claims(world, [&name()], leaving)
            .remove(&name())
            .unwrap()
            .unwrap()
    }

    #[test]
    fn groups_are_compared_whole_and_without_case() {
        for (group, admitted) in [
            (GROUP, true),
            ("/Subscriptions/S/ResourceGroups/SHOP/", true),
            ("/subscriptions/s/resourceGroups/shop-2", false),
            ("/subscriptions/s/resourceGroups/sho", false),
            ("/subscriptions/s", false),
        ] {
            let world = world(&[group], &json!([{"imds": {}}]));
            assert_eq!(one(&world, false).admitted, admitted, "{group}");
        }
        let mut unknown = world(&[GROUP], &json!([{"imds": {}}]));
        unknown.namespaces.clear();
        assert!(!one(&unknown, false).admitted);
    }

    #[test]
    fn credentials_are_for_the_exchange_at_entra() {
        for (sources, federated) in [
            (json!([{"imds": {}}]), false),
            (json!([{"imds": {}}, {"federated": {}}]), true),
            (
                json!([{"federated": {"tokenEndpoint": "https://tokens.example"}}]),
                false,
            ),
        ] {
            assert_eq!(one(&world(&[], &sources), false).federated, federated);
        }
    }

    #[test]
    fn what_cannot_be_used_concerns_us_as_long_as_we_hold_it() {
        let mut world = world(&[GROUP], &json!([{"nodeSystemAssigned": {}}]));
        assert!(claims(&world, [&name()], false)[&name()].is_none());
        let mut seen = (*world.identities[&name()]).clone();
        seen.meta.finalizers = vec!["other".into(), FINALIZER.into()];
        world.apply(Change::Identity(name(), Some(Arc::new(seen))));
        let claim = one(&world, false);
        assert!(claim.held && claim.spec.is_err() && claim.federated);
    }

    #[test]
    fn where_it_is_assigned_counts_while_it_is_to_go() {
        let mut world = world(&[GROUP], &json!([{"imds": {}}]));
        let id = format!(
            "{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/lanyard-C-{UID}"
        );
        for (name, state) in [("a", "Assigned"), ("b", "Removing"), ("c", "Failed")] {
            let assignment = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureAssignment", "metadata": {"name": name},
                "spec": {"computeID": "x"}, "status": {"identities":
                    [{"resourceID": id.to_uppercase(), "state": state, "since": "2026-11-21T12:00:00Z"}]}});
            let assignment = serde_json::from_value(assignment).unwrap();
            world.apply(Change::Assignment(name.into(), Some(Arc::new(assignment))));
        }
        assert!(one(&world, false).assigned.is_empty());
        let names: Vec<_> = one(&world, true).assigned.into_iter().collect();
        assert_eq!(names, [Arc::from("a"), Arc::from("b")]);
    }
}
