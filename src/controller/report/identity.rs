//! An `AzureIdentity`'s status: its ids, where it is, and whether pods can get its tokens. Pure.

use super::Verdict;
use super::facts::{Facts, Index};
use super::ids::{self, Ids};
use super::reach::Reach;
use super::verdict;
use crate::api::identity::{AzureIdentityStatus, Stated};
use crate::controller::desire::Use;
use crate::controller::managed::ManagedOutcome;
use crate::controller::world::SeenIdentity;
use crate::model::ids::ObjectName;

/// One identity with all that its verdict is made of.
pub(super) struct Case<'a> {
    pub name: &'a ObjectName,
    pub seen: &'a SeenIdentity,
    pub stated: &'a Stated,
    pub outcome: Option<&'a ManagedOutcome>,
    pub ids: Ids,
    pub used: Use,
    pub reach: Reach<'a>,
    pub index: &'a Index<'a>,
    pub facts: &'a Facts<'a>,
}

pub(super) fn report(
    name: &ObjectName,
    seen: &SeenIdentity,
    facts: &Facts<'_>,
    index: &Index<'_>,
) -> (AzureIdentityStatus, Verdict) {
    let stated = match &seen.said {
        Ok(stated) => stated,
        Err(error) => {
            let verdict = Verdict::no("Malformed", error.to_string());
            return (AzureIdentityStatus::default(), verdict);
        }
    };
    let outcome = stated.managed.as_ref().and(facts.board.managed(name));
    let outcome = outcome.filter(|outcome| outcome.uid == seen.meta.uid);
    let ids = ids::ids(seen, stated, outcome.as_ref(), facts);
    let used = facts.ledger.identity(name);
    let reach = Reach::new(ids.resource.as_ref(), &used, index, facts.computes);
    let case = Case {
        name,
        seen,
        stated,
        outcome: outcome.as_ref(),
        ids,
        used,
        reach,
        index,
        facts,
    };
    (status(&case), verdict::verdict(&case))
}

fn status(case: &Case<'_>) -> AzureIdentityStatus {
    let text = |id: Option<crate::model::ids::Guid>| id.map(|id| id.to_string());
    let count = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX));
    let (ids, reach) = (&case.ids, &case.reach);
    AzureIdentityStatus {
        // The draft's.
        observed_generation: None,
        client_id: text(ids.client),
        tenant_id: text(ids.tenant),
        principal_id: text(ids.principal),
        resource_id: ids.resource.as_ref().map(|id| id.as_written().to_owned()),
        assigned_to: reach.assigned_to.clone(),
        assigned_nodes: count(reach.assigned),
        wanted_nodes: count(reach.wanted),
        conditions: Vec::new(),
    }
}
