//! What the controller would do, without doing it: `--dry-run`.
//!
//! In: the Kubernetes API (or a folder of manifests) and ARM, both only read. Out: a plan for each compute resource. Ends when
//! everything was observed once and every compute resource read, or failed to be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::core::Core;
use super::source::Source;
use crate::azure::arm::ArmClient;
use crate::controller::apply::Wanted;
use crate::controller::config::{Config, Pace};
use crate::controller::desire::Refusal;
use crate::controller::known::{Existence, Shown};
use crate::controller::plan::{Patch, Plan, Situation, plan};
use crate::controller::record::Record;
use crate::controller::records::Records;
use crate::model::ids::ArmId;
use crate::serve::clock;
use crate::serve::ready::Readiness;

/// For one read of ARM.
const READ: Duration = Duration::from_secs(30);
/// Reads of ARM at once.
const AT_ONCE: usize = 8;

/// What would be done, by compute resource.
#[derive(Debug, Serialize)]
pub struct Plans {
    /// The plans, by ARM id.
    pub computes: Vec<ComputePlan>,
    /// Identities that pods may use and that would not be assigned, or cannot be looked at, and why:
    /// by the name of the `AzureIdentity`, or by ARM id.
    pub refused: BTreeMap<String, String>,
}

/// What would be done to one compute resource.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComputePlan {
    /// ARM id of the virtual machine or scale set.
    #[serde(rename = "computeID")]
    pub compute_id: ArmId,
    /// How many nodes it is.
    pub nodes: usize,
    /// Identities that would be added.
    pub add: Vec<ArmId>,
    /// Identities that would be removed now.
    pub remove: Vec<ArmId>,
    /// What each identity's entry would say: its state, and why.
    pub identities: BTreeMap<String, String>,
    /// Why nothing can be planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Works out the plans.
pub async fn dry_run(config: Config) -> anyhow::Result<Plans> {
    let source = Source::of(&config).await?;
    let arm = super::azure::arm(&config.azure)?;
    let (batches, mut incoming) = mpsc::channel(super::BATCHES);
    let registry = Registry::new();
    let latch = Readiness::default().latch("watches");
    let mut watching = JoinSet::new();
    source.observe(
        config.host_network_pods,
        batches,
        latch,
        &registry,
        &mut watching,
    )?;
    let mut core = Core::new(super::metrics::reconcile_seconds(&registry)?);
    while !core.complete {
        let batch = incoming.recv().await.context("nobody observes any more")?;
        core.take(batch);
    }
    drop(watching);
    let kept = source.records().all().await?;
    let mut wanted: BTreeMap<ArmId, (Wanted, Record)> = core
        .all_wanted()
        .into_iter()
        .map(|wanted| {
            (
                wanted.desire.compute.id.clone(),
                (wanted, Record::default()),
            )
        })
        .collect();
    for one in kept {
        let entry = wanted.entry(one.compute.id.clone());
        entry
            .or_insert_with(|| (Wanted::nothing(one.compute), Record::default()))
            .1 = one.record;
    }
    let (existence, unread) = existences(&arm, &core).await;
    let mut refused = refusals(&core);
    refused.extend(unread);
    let mut computes = Vec::new();
    for (wanted, record) in wanted.into_values() {
        if wanted.desire.wanted.is_empty() && record.entries.is_empty() {
            continue;
        }
        computes.push(one(&arm, &wanted, &record, &existence, config.pace).await);
    }
    Ok(Plans { computes, refused })
}

/// Identities that pods may use, get from IMDS, and that nothing is assigned of. Managed ones are no
/// part of a dry run.
fn refusals(core: &Core) -> BTreeMap<String, String> {
    let names = core.world.identities.keys();
    names
        .filter_map(|name| {
            let used = core.ledger.identity(name);
            let refusal = used.refusal.filter(|_| used.pods > 0)?;
            let is_fine = matches!(
                refusal,
                Refusal::NotByImds | Refusal::NotCreated | Refusal::Deleting
            );
            let why = || format!("{}: {refusal}", refusal.reason());
            (!is_fine).then(|| (name.to_string(), why()))
        })
        .collect()
}

/// What ARM says of all identities that are named, and why it says nothing of some.
async fn existences(
    arm: &ArmClient,
    core: &Core,
) -> (BTreeMap<ArmId, Existence>, BTreeMap<String, String>) {
    let mut found = BTreeMap::new();
    let mut unread = BTreeMap::new();
    let mut take = |(id, looked): (ArmId, Result<Existence, String>)| {
        let existence = looked.unwrap_or_else(|why| {
            unread.insert(id.to_string(), why);
            Existence::Unknown
        });
        found.insert(id, existence);
    };
    let mut reads = JoinSet::new();
    for id in core.ledger.named().clone() {
        while reads.len() >= AT_ONCE {
            reads
                .join_next()
                .await
                .and_then(Result::ok)
                .into_iter()
                .for_each(&mut take);
        }
        let arm = arm.clone();
        reads.spawn(async move {
            let looked = match arm.identity(&id, READ).await {
                Ok(shown) => Ok(Existence::of(&shown)),
                Err(error) if error.is_absence() => Ok(Existence::Missing),
                Err(error) => Err(error.in_full_to_assign()),
            };
            (id, looked)
        });
    }
    while let Some(one) = reads.join_next().await {
        one.into_iter().for_each(&mut take);
    }
    (found, unread)
}

async fn one(
    arm: &ArmClient,
    wanted: &Wanted,
    record: &Record,
    existence: &BTreeMap<ArmId, Existence>,
    pace: Pace,
) -> ComputePlan {
    let desire = &wanted.desire;
    let empty = |problem: Option<String>| ComputePlan {
        compute_id: desire.compute.id.clone(),
        nodes: desire.nodes,
        add: Vec::new(),
        remove: Vec::new(),
        identities: BTreeMap::new(),
        problem,
    };
    let shown = match arm.compute(&desire.compute, READ).await {
        Ok(shown) => shown,
        Err(error) => return empty(Some(error.in_full())),
    };
    let now = clock::since_epoch();
    let shown = Shown::of(&shown, now);
    let Plan { record, patch, .. } = plan(&Situation {
        desire,
        immutable: &wanted.immutable,
        mutable: &wanted.mutable,
        record,
        shown: Some(&shown),
        existence,
        setbacks: &BTreeMap::new(),
        grace: pace.removal_grace,
        now,
    });
    let Patch { add, remove } = patch.unwrap_or_default();
    ComputePlan {
        add: add.into_iter().collect(),
        remove: remove.into_iter().collect(),
        identities: record
            .entries
            .iter()
            .map(|(id, entry)| {
                let why = entry.reason.as_deref().map(|why| format!(": {why}"));
                (
                    id.to_string(),
                    format!("{:?}{}", entry.state, why.unwrap_or_default()),
                )
            })
            .collect(),
        ..empty(None)
    }
}

impl Plans {
    /// As text for people, or as JSON.
    pub fn printed(&self, json: bool) -> anyhow::Result<String> {
        if json {
            return Ok(serde_json::to_string_pretty(self)? + "\n");
        }
        let mut text = String::new();
        for one in &self.computes {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{} ({} nodes)", one.compute_id, one.nodes);
            if let Some(problem) = &one.problem {
                let _ = writeln!(text, "  ! {problem}");
            }
            for id in &one.add {
                let _ = writeln!(text, "  + {id}");
            }
            for id in &one.remove {
                let _ = writeln!(text, "  - {id}");
            }
            let quiet = |id: &&String| {
                !one.add
                    .iter()
                    .chain(&one.remove)
                    .any(|of| *of.to_string() == ***id)
            };
            for id in one.identities.keys().filter(quiet) {
                let _ = writeln!(text, "    {id} ({})", one.identities[id]);
            }
        }
        for (of, why) in &self.refused {
            let _ = writeln!(text, "! {of}: {why}");
        }
        let unplanned = self.computes.iter().filter(|one| one.problem.is_some());
        match unplanned.count() {
            0 => {}
            count => {
                let _ = writeln!(text, "{count} compute resources could not be planned.");
            }
        }
        let (mut calls, all) = (0, self.computes.len());
        for one in &self.computes {
            calls += usize::from(!one.add.is_empty() || !one.remove.is_empty());
        }
        let _ = writeln!(
            text,
            "{calls} of {all} compute resources would be changed. Nothing was written."
        );
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_planned_is_not_told_as_in_order() {
        let scale_set = "/subscriptions/s/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/pool";
        let plans = Plans {
            computes: vec![ComputePlan {
                compute_id: scale_set.parse().unwrap(),
                nodes: 2,
                add: Vec::new(),
                remove: Vec::new(),
                identities: BTreeMap::new(),
                problem: Some("Forbidden".to_owned()),
            }],
            refused: BTreeMap::from([("shop/till".to_owned(), "NoResourceID: why".to_owned())]),
        };
        let text = plans.printed(false).unwrap();
        for line in [
            "! shop/till: NoResourceID: why\n",
            "1 compute resources could not be planned.\n",
            "0 of 1 compute resources would be changed.",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
