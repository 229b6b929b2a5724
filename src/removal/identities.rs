//! Lets go of managed identities before the controller goes: without it nobody would take away the
//! finalizers that hold their objects, and their namespaces could not be deleted.
//!
//! In: what is to become of them, how long to wait for the controller. Out: a [`Released`]: what it did, and
//! whose finalizers were taken away here. Blocks on the API server; every call has a deadline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::ask::{Removal, RemovalError, mark};
use crate::api::identity::AzureIdentity;
use crate::api::removal::{DELETE, FINALIZER, RETAIN};
use crate::kubernetes::{CallError, Cluster, Kind};

const POLL: Duration = Duration::from_secs(1);
/// How often is said that others are waited for, where nothing changes.
const WAITING: Duration = Duration::from_secs(15);
/// Somebody else may write an object between our look and our write.
const TRIES: usize = 5;
/// The controller's pods, as the chart labels them.
const CONTROLLER: &str = "app.kubernetes.io/part-of=lanyard,app.kubernetes.io/component=controller";

/// What is to become of managed identities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Fate {
    /// They stay in Azure; the next Lanyard of this cluster finds them by their tag.
    #[default]
    Retain,
    /// They are removed from Azure, but for those whose `deletionPolicy` is `Retain`.
    Delete,
}

impl Fate {
    /// As the marker says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retain => RETAIN,
            Self::Delete => DELETE,
        }
    }
}

/// What became of the objects that our finalizer held, by `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// How many the controller let go.
    pub by_controller: usize,
    /// Whose finalizer was taken away here, with the ARM id as far as it is known.
    pub here: BTreeMap<String, String>,
    /// Whose finalizer could not be taken away, and why.
    pub held: BTreeMap<String, String>,
}

impl Released {
    /// Whether all came as it was asked.
    #[must_use]
    pub fn complete(&self, fate: Fate) -> bool {
        self.held.is_empty() && (fate == Fate::Retain || self.here.is_empty())
    }

    /// For a person; nothing where there was nothing.
    #[must_use]
    pub fn report(&self, fate: Fate) -> String {
        let mut text = String::new();
        if self.by_controller > 0 {
            let what = match fate {
                Fate::Retain => "stay in Azure",
                Fate::Delete => "were removed from Azure, or stay by their deletionPolicy",
            };
            let _ = writeln!(text, "{} managed identities {what}.", self.by_controller);
        }
        if !self.here.is_empty() {
            let why = match fate {
                Fate::Retain => {
                    "no controller let go of these, which is done now; they stay in Azure:"
                }
                Fate::Delete => {
                    "NOT REMOVED from Azure, where they stay with their tag lanyard-owner; nothing holds their objects any more:"
                }
            };
            let _ = writeln!(text, "{why}");
            for (name, id) in &self.here {
                let _ = writeln!(text, "  {name} {id}");
            }
        }
        for (name, why) in &self.held {
            let _ = writeln!(text, "STILL HELD by finalizer {FINALIZER}: {name} ({why})");
        }
        text
    }
}

/// Waits until the controller has let go of all, and takes the rest of the finalizers away. `told` gets a
/// line at a time about how far it is.
pub async fn let_go(
    cluster: &Cluster,
    removal: &Removal,
    timeout: Duration,
    told: impl Fn(&str),
) -> Result<Released, RemovalError> {
    let mut held = held(cluster).await?;
    let (all, end) = (held.len(), Instant::now() + timeout);
    let controller = match controller(cluster, removal).await? {
        // It must hear of it although nothing is held: it may be about to create one.
        Some(owner) => mark(cluster, removal, &owner).await.map(|()| true)?,
        None => false,
    };
    let mut said = (usize::MAX, Instant::now());
    while controller && !held.is_empty() && Instant::now() < end {
        if said.0 != held.len() || said.1.elapsed() >= WAITING {
            said = (held.len(), Instant::now());
            let fate = removal.identities.as_str();
            told(&format!(
                "managed identities ({fate}): waiting for {} of {all}",
                held.len()
            ));
        }
        sleep(POLL).await;
        // The API server may be away for a moment.
        held = self::held(cluster).await.unwrap_or(held);
    }
    let mut released = Released {
        by_controller: all.saturating_sub(held.len()),
        ..Released::default()
    };
    for (name, object) in held {
        match strip(cluster, &object).await {
            Ok(()) => released.here.insert(name, resource_id(&object)),
            Err(error) => released.held.insert(name, error.to_string()),
        };
    }
    Ok(released)
}

/// The objects that our finalizer holds.
async fn held(cluster: &Cluster) -> Result<BTreeMap<String, Value>, RemovalError> {
    let all = ListParams::default();
    let objects = match cluster.list(Kind::OURS[0], None, &all).await {
        Err(error) if is(&error, 404) => Vec::new(),
        listed => listed.map_err(|source| RemovalError::Call {
            what: "list AzureIdentities".to_owned(),
            source,
        })?,
    };
    let is_held = |object: &Value| {
        let finalizers = object["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER))
    };
    let name = |object: &Value| {
        let part = |of: &str| {
            object["metadata"][of]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        format!("{}/{}", part("namespace"), part("name"))
    };
    let held = objects.into_iter().filter(is_held);
    Ok(held.map(|object| (name(&object), object)).collect())
}

/// What the controller's pods belong to, if there are any that have not ended.
async fn controller(
    cluster: &Cluster,
    removal: &Removal,
) -> Result<Option<OwnerReference>, RemovalError> {
    let api = Api::<Pod>::namespaced(cluster.client.clone(), &removal.namespace);
    let parameters = ListParams::default().labels(CONTROLLER);
    let pods = cluster.call(api.list(&parameters)).await;
    let pods = pods.map_err(|source| RemovalError::Call {
        what: format!(
            "list the controller's pods in namespace {}",
            removal.namespace
        ),
        source,
    })?;
    let mut lives = pods.items.into_iter().filter(|pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    });
    let owner = lives.find_map(|pod| pod.metadata.owner_references?.into_iter().next());
    Ok(owner.map(|owner| OwnerReference {
        controller: None,
        block_owner_deletion: None,
        ..owner
    }))
}

/// Takes our finalizer away, whatever else was written meanwhile.
async fn strip(cluster: &Cluster, object: &Value) -> Result<(), CallError> {
    let text = |of: &str| object["metadata"][of].as_str().unwrap_or_default();
    let api = Api::<AzureIdentity>::namespaced(cluster.client.clone(), text("namespace"));
    let mut failed = CallError::Late;
    let mut metadata = object["metadata"].clone();
    for _ in 0..TRIES {
        let all = metadata["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let others: Vec<Value> = all.into_iter().filter(|one| one != FINALIZER).collect();
        let change = json!({"metadata": {"uid": text("uid"), "finalizers": others,
            "resourceVersion": metadata["resourceVersion"]}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&change));
        match cluster
            .call(api.patch_metadata(text("name"), &params, &patch))
            .await
        {
            Ok(_) => return Ok(()),
            Err(error) if is(&error, 404) => return Ok(()),
            Err(error) if is(&error, 409) => failed = error,
            Err(error) => return Err(error),
        }
        // Not by `get`: who may list and change them needs no more rights.
        let it = ListParams::default().fields(&format!("metadata.name={}", text("name")));
        let listed = cluster.list(Kind::OURS[0], Some(text("namespace")), &it);
        let now = listed.await?.into_iter().next();
        let now = now.filter(|now| now["metadata"]["uid"] == object["metadata"]["uid"]);
        let Some(now) = now else { return Ok(()) };
        metadata = now["metadata"].clone();
    }
    Err(failed)
}

fn resource_id(object: &Value) -> String {
    let known = object["status"]["resourceID"].as_str();
    let group = object["spec"]["managed"]["resourceGroup"].as_str();
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    known.map_or_else(
        || {
            let group = group.unwrap_or_default();
            format!("lanyard-…-{uid} in {group}, if it was created")
        },
        str::to_owned,
    )
}

fn is(error: &CallError, code: u16) -> bool {
    error.status() == Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released() -> Released {
        Released {
            by_controller: 2,
            here: BTreeMap::from([("shop/payments".to_owned(), "/subscriptions/s/x".to_owned())]),
            held: BTreeMap::new(),
        }
    }

    #[test]
    fn what_stays_against_the_wish_is_named() {
        assert!(!released().complete(Fate::Delete));
        let report = released().report(Fate::Delete);
        assert!(report.contains("NOT REMOVED"), "{report}");
        assert!(
            report.contains("shop/payments /subscriptions/s/x"),
            "{report}"
        );
        assert!(released().complete(Fate::Retain), "they were to stay");
        assert_eq!(Released::default().report(Fate::Delete), "");
    }

    #[test]
    fn what_is_still_held_is_never_a_success() {
        let mut stuck = released();
        let held = ("a/b".to_owned(), "forbidden".to_owned());
        stuck.held.extend([held]);
        assert!(!stuck.complete(Fate::Retain));
        assert!(stuck.report(Fate::Retain).contains("STILL HELD"));
    }
}
