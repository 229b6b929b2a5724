//! Sets the marker and waits for the agents' word.
//!
//! In: a [`Removal`]. Out: the [`Outcome`] when all have answered or time is up. Blocks on the API
//! server. The marker belongs to the `DaemonSet`, so that it goes with the agents: Kubernetes' garbage
//! collector takes it, and nobody has to be there for that.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use tokio::time::{Instant, sleep};

use super::identities::Fate;
use super::outcome::{Outcome, agents};
use crate::api::removal::{MANAGED_IDENTITIES, acks_name};
use crate::kubernetes::{CallError, Cluster};
use crate::serve::clock;

const POLL: Duration = Duration::from_millis(500);

/// What to remove, from where.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The agents' namespace.
    pub namespace: String,
    /// Their `DaemonSet`.
    pub daemonset: String,
    /// The marker's name; [`acks_name`] has that of the acknowledgements.
    pub marker: String,
    /// How long to wait for all of them.
    pub timeout: Duration,
    /// What is to become of managed identities: the marker tells the controller.
    pub identities: Fate,
}

/// Why the agents could not even be asked.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// There are no agents here.
    #[error(
        "there is no DaemonSet `{daemonset}` in namespace `{namespace}`, so there is no agent to ask; if Lanyard is elsewhere, \
         name it with --namespace and --daemonset"
    )]
    NoAgents {
        /// The namespace.
        namespace: String,
        /// The name looked for.
        daemonset: String,
    },
    /// A call that cannot be done without.
    #[error("cannot {what}: {source}")]
    Call {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: CallError,
    },
}

/// Asks every agent to remove its rules; returns when all have, or time is up.
pub async fn remove(cluster: &Cluster, removal: &Removal) -> Result<Outcome, RemovalError> {
    let asking = Asking { cluster, removal };
    let daemonset = asking.daemonset().await?;
    let agents = agents(&asking.pods(&daemonset).await?);
    if agents.is_empty() {
        return Ok(Outcome::default());
    }
    asking.mark(&owner(&daemonset)).await?;
    let end = Instant::now() + removal.timeout;
    loop {
        // The API server may be away for a moment: what counts is the end.
        let acks = asking.acks().await.unwrap_or_default();
        let outcome = Outcome::of(&agents, &acks);
        if outcome.complete() || Instant::now() >= end {
            return Ok(outcome);
        }
        sleep(POLL).await;
    }
}

struct Asking<'a> {
    cluster: &'a Cluster,
    removal: &'a Removal,
}

impl Asking<'_> {
    async fn call<T>(
        &self,
        what: impl Into<String>,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, RemovalError> {
        let answered = self.cluster.call(call).await;
        answered.map_err(|source| RemovalError::Call {
            what: what.into(),
            source,
        })
    }

    async fn daemonset(&self) -> Result<DaemonSet, RemovalError> {
        let Removal {
            namespace,
            daemonset,
            ..
        } = self.removal;
        let api = Api::<DaemonSet>::namespaced(self.cluster.client.clone(), namespace);
        let what = format!("read DaemonSet {namespace}/{daemonset}");
        let found = self.call(what, api.get_opt(daemonset)).await?;
        found.ok_or_else(|| RemovalError::NoAgents {
            namespace: namespace.clone(),
            daemonset: daemonset.clone(),
        })
    }

    async fn pods(&self, daemonset: &DaemonSet) -> Result<Vec<Pod>, RemovalError> {
        let spec = daemonset.spec.as_ref();
        let labels = spec.and_then(|spec| spec.selector.match_labels.as_ref());
        let pairs = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"));
        let selector = pairs.collect::<Vec<_>>().join(",");
        let api = Api::<Pod>::namespaced(self.cluster.client.clone(), &self.removal.namespace);
        let parameters = ListParams::default().labels(&selector);
        let what = format!(
            "list the agents' pods in namespace {}",
            self.removal.namespace
        );
        Ok(self.call(what, api.list(&parameters)).await?.items)
    }

    fn configmaps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.client.clone(), &self.removal.namespace)
    }

    async fn acks(&self) -> Result<BTreeMap<String, String>, RemovalError> {
        let name = acks_name(&self.removal.marker);
        let api = self.configmaps();
        let found = self.call(format!("read ConfigMap {name}"), api.get_opt(&name));
        Ok(found.await?.and_then(|acks| acks.data).unwrap_or_default())
    }

    /// Empties the acknowledgements and sets the marker, in this order: what agents wrote at an
    /// earlier time must not count. A marker that is there already is one whose wait was cut short.
    async fn mark(&self, owner: &OwnerReference) -> Result<(), RemovalError> {
        if self.remark().await? {
            return Ok(());
        }
        self.empty_acks(owner).await?;
        self.set(owner).await
    }

    /// Says anew what is to become of managed identities; whether there is a marker.
    async fn remark(&self) -> Result<bool, RemovalError> {
        let marker = &self.removal.marker;
        let api = self.configmaps();
        let found = self.call(format!("read ConfigMap {marker}"), api.get_opt(marker));
        let Some(found) = found.await? else {
            return Ok(false);
        };
        let fate = self.removal.identities.as_str();
        let said = found
            .data
            .as_ref()
            .and_then(|data| data.get(MANAGED_IDENTITIES));
        if said.is_none_or(|said| said != fate) {
            let change = Patch::Merge(serde_json::json!({"data": {MANAGED_IDENTITIES: fate}}));
            let parameters = PatchParams::default();
            let patch = api.patch(marker, &parameters, &change);
            self.call(format!("change ConfigMap {marker}"), patch)
                .await?;
        }
        Ok(true)
    }

    async fn set(&self, owner: &OwnerReference) -> Result<(), RemovalError> {
        let requested = ("requested".to_owned(), clock::now().to_string());
        let fate = self.removal.identities.as_str();
        let fate = (MANAGED_IDENTITIES.to_owned(), fate.to_owned());
        let data = BTreeMap::from([requested, fate]);
        self.create(owned(&self.removal.marker, owner, data)).await
    }

    async fn empty_acks(&self, owner: &OwnerReference) -> Result<(), RemovalError> {
        let name = acks_name(&self.removal.marker);
        let api = self.configmaps();
        let found = self.call(format!("read ConfigMap {name}"), api.get_opt(&name));
        if found.await?.is_none() {
            return self.create(owned(&name, owner, BTreeMap::new())).await;
        }
        let nothing = Patch::Merge(serde_json::json!({"data": null}));
        let parameters = PatchParams::default();
        let patch = api.patch(&name, &parameters, &nothing);
        self.call(format!("empty ConfigMap {name}"), patch).await?;
        Ok(())
    }

    async fn create(&self, object: ConfigMap) -> Result<(), RemovalError> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let api = self.configmaps();
        let parameters = PostParams::default();
        let create = api.create(&parameters, &object);
        self.call(format!("create ConfigMap {name}"), create)
            .await?;
        Ok(())
    }
}

fn owner(daemonset: &DaemonSet) -> OwnerReference {
    OwnerReference {
        controller: None,
        block_owner_deletion: None,
        ..daemonset.controller_owner_ref(&()).unwrap_or_default()
    }
}

fn owned(name: &str, owner: &OwnerReference, data: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// Sets the marker where there are no agents that it could belong to: it goes with `owner`.
pub(super) async fn mark(
    cluster: &Cluster,
    removal: &Removal,
    owner: &OwnerReference,
) -> Result<(), RemovalError> {
    let asking = Asking { cluster, removal };
    if asking.remark().await? {
        return Ok(());
    }
    asking.set(owner).await
}
