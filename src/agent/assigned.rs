//! Whether an identity is on this node, as far as the controller says (`--assignments=required`): what
//! that means for a request. Pure.
//!
//! It decides about asking the node's IMDS only: who has a token of a granted identity in the cache
//! gets it, whatever becomes of the assignment.

use std::time::Duration;

use crate::model::facts::{NodeAssignments, SourceFacts, Standing};
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Grant;

/// Pause that a caller is told after it has waited in vain.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How far the granted identity is on its way to this node; `None` where that does not count.
#[must_use]
pub fn standing(assignments: &NodeAssignments, grant: &Grant) -> Option<Standing> {
    let mut sources = grant.identity.sources.iter();
    // Other sources need nothing on the node.
    let by_imds = sources.all(|source| matches!(source, SourceFacts::Imds));
    by_imds.then(|| assignments.standing(&grant.identity))?
}

/// Whether waiting a little may help.
#[must_use]
pub fn is_on_its_way(assignments: &NodeAssignments, grant: &Grant) -> bool {
    standing(assignments, grant) == Some(Standing::Pending)
}

/// The grant as obtaining needs it, or why it cannot be used on this node.
pub fn admit(assignments: &NodeAssignments, grant: &Grant) -> Result<Grant, Fault> {
    let identity = &grant.identity.name;
    match standing(assignments, grant) {
        None => Ok(grant.clone()),
        // Azure may need minutes from then on.
        Some(Standing::Assigned { since }) => Ok(Grant {
            first_seen: since,
            ..grant.clone()
        }),
        Some(Standing::Pending) => Err(Fault::new(
            FaultKind::NotYetAssigned,
            "The identity is being assigned to this node",
        )
        .with_retry_after(RETRY_AFTER)
        .with_detail(format!(
            "no AzureAssignment says yet that {identity} is on this node"
        ))),
        Some(Standing::Failed { why }) => Err(Fault::new(
            FaultKind::IdentityNotFound,
            "Identity not found: Azure refused to assign it to this node",
        )
        .with_detail(format!(
            "{identity} could not be assigned to this node: {why}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::grants::grants;
    use super::super::testkit::{
        arm, binding, guid, identity, namespace, object, pod, pod_at, policy, world,
    };
    use super::*;
    use crate::api::object::Object;
    use crate::model::facts::AssignmentFacts;

    const VM: &str =
        "/subscriptions/s/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachines/n";

    fn grant() -> Grant {
        let world = world([
            namespace("a", "a"),
            pod("a", "p", "10.0.0.1", None),
            identity("a", "id", 1),
            binding("a", "id", &json!([{"podSelector": {}}]), false),
            policy("p", "a", &["/subscriptions"]),
        ]);
        grants(&pod_at(&world, "10.0.0.1"), &world)
            .granted
            .remove(0)
    }

    fn node(entries: &serde_json::Value) -> NodeAssignments {
        let name = VM
            .parse::<crate::model::compute::Compute>()
            .unwrap()
            .assignment_name();
        let object = object(
            json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureAssignment",
            "metadata": {"name": name}, "spec": {"computeID": VM}, "status": {"identities": entries}}),
        );
        let Object::Assignment(facts) = object else {
            panic!("an assignment");
        };
        let facts: AssignmentFacts = facts;
        NodeAssignments::Required(Some(Arc::new(facts)))
    }

    fn entry(state: &str) -> serde_json::Value {
        json!({"resourceID": arm("RG-A", "ID"), "state": state, "since": "2026-11-21T05:00:00Z",
            "reason": "LinkedAuthorizationFailed", "message": "not yours"})
    }

    #[test]
    fn without_a_controller_nothing_is_waited_for() {
        let grant = grant();
        assert_eq!(admit(&NodeAssignments::Ignored, &grant).unwrap(), grant);
    }

    #[test]
    fn an_assigned_identity_is_new_since_its_assignment() {
        let admitted = admit(&node(&json!([entry("Assigned")])), &grant()).unwrap();
        assert_eq!(admitted.first_seen.as_secs(), 1_795_237_200);
    }

    #[test]
    fn what_is_on_its_way_or_unknown_is_told_to_try_again() {
        for node in [
            NodeAssignments::Required(None),
            node(&json!([])),
            node(&json!([entry("Pending")])),
            node(&json!([entry("Removing")])),
            node(
                &json!([{"resourceID": arm("rg-b", "id"), "state": "Assigned", "since": "2026-11-21T05:00:00Z"}]),
            ),
            // Same client id, other ARM id: the ARM id says who it is.
            node(
                &json!([{"resourceID": arm("rg-b", "id"), "clientID": guid(1), "state": "Assigned", "since": "2026-11-21T05:00:00Z"}]),
            ),
        ] {
            assert!(is_on_its_way(&node, &grant()), "{node:?}");
            let fault = admit(&node, &grant()).unwrap_err();
            assert_eq!(fault.kind, FaultKind::NotYetAssigned);
            assert!(fault.retry_after.is_some());
        }
    }

    #[test]
    fn azures_refusal_is_final_and_its_words_are_for_the_log() {
        let fault = admit(&node(&json!([entry("Failed")])), &grant()).unwrap_err();
        assert_eq!(fault.kind, FaultKind::IdentityNotFound);
        assert!(fault.detail.contains(
            "a/id could not be assigned to this node: LinkedAuthorizationFailed: not yours"
        ));
        assert!(!fault.public.contains("Linked"), "{}", fault.public);
    }

    #[test]
    fn an_identity_without_an_arm_id_is_found_by_its_client_id() {
        let mut grant = grant();
        let facts = Arc::make_mut(&mut grant.identity);
        facts.resource_id = None;
        let known = json!([{"resourceID": arm("rg-x", "y"), "clientID": guid(1), "state": "Assigned", "since": "2026-11-21T05:00:00Z"}]);
        assert!(admit(&node(&known), &grant).is_ok());
        assert!(admit(&node(&json!([entry("Assigned")])), &grant).is_err());
    }
}
