//! Records as `AzureAssignment`s of the API server: first the spec (the intent), then the status.
//!
//! In: how far a compute resource is. Out: at most two calls, none where nothing differs. Each is bound
//! to the version that was seen last, so that one who writes late overwrites nobody: after a conflict
//! the object is read again and written once more. Every call has its deadline.

use std::collections::HashMap;
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::document::{record, spec, status};
use super::{Kept, RecordError, Records};
use crate::api::assignment::{AzureAssignment, AzureAssignmentSpec, AzureAssignmentStatus};
use crate::controller::board::Told;
use crate::kubernetes::Cluster;
use crate::model::compute::Compute;

/// Objects in one page of a list.
const PAGE: u32 = 250;
/// Conflicts in a row after which somebody else must be writing.
const TRIES: usize = 4;

/// The records of a cluster.
pub struct KubernetesRecords {
    cluster: Cluster,
    api: Api<AzureAssignment>,
    /// The objects as they were last, by name.
    seen: Mutex<HashMap<String, AzureAssignment>>,
}

impl KubernetesRecords {
    /// The records of this cluster; nothing is asked yet.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self {
            api: Api::all(cluster.client.clone()),
            cluster,
            seen: Mutex::default(),
        }
    }

    async fn call<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, RecordError> {
        let answered = self.cluster.call(call).await;
        answered.map_err(|source| RecordError::Call {
            name: name.to_owned(),
            source,
        })
    }

    fn keep(&self, name: &str, object: AzureAssignment) {
        self.seen.lock().insert(name.to_owned(), object);
    }

    /// The object with the spec that is wanted: as it is, created, or changed.
    async fn with_spec(
        &self,
        name: &str,
        wanted: &AzureAssignmentSpec,
    ) -> Result<AzureAssignment, RecordError> {
        let seen = self.seen.lock().get(name).cloned();
        let Some(seen) = seen else {
            let object = AzureAssignment::new(name, wanted.clone());
            let params = PostParams::default();
            return self.call(name, self.api.create(&params, &object)).await;
        };
        if seen.spec == *wanted {
            return Ok(seen);
        }
        // An empty list must be said: what a merge leaves out stays.
        let change = json!({"metadata": version(&seen), "spec":
            {"computeID": wanted.compute_id, "identities": wanted.identities}});
        let (params, change) = (PatchParams::default(), Patch::Merge(&change));
        self.call(name, self.api.patch(name, &params, &change))
            .await
    }

    async fn with_status(
        &self,
        name: &str,
        object: &AzureAssignment,
        wanted: &AzureAssignmentStatus,
    ) -> Result<AzureAssignment, RecordError> {
        let change = json!({"metadata": version(object), "status": {
            "observedGeneration": wanted.observed_generation,
            "identities": wanted.identities, "conditions": wanted.conditions,
            "assigned": wanted.assigned, "pending": wanted.pending,
            "failed": wanted.failed, "removing": wanted.removing}});
        let (params, change) = (PatchParams::default(), Patch::Merge(&change));
        self.call(name, self.api.patch_status(name, &params, &change))
            .await
    }

    async fn try_write(&self, name: &str, told: &Told, now: Duration) -> Result<(), RecordError> {
        let wanted = spec(&told.compute, &told.record);
        let object = self.with_spec(name, &wanted).await?;
        self.keep(name, object.clone());
        let generation = object.metadata.generation;
        let wanted = status(told, object.status.as_ref(), generation, now);
        if object.status.as_ref() != Some(&wanted) {
            let object = self.with_status(name, &object, &wanted).await?;
            self.keep(name, object);
        }
        Ok(())
    }

    /// Reads an object again.
    async fn look(&self, name: &str) -> Result<(), RecordError> {
        let found = self.call(name, self.api.get_opt(name)).await?;
        let mut seen = self.seen.lock();
        match found {
            Some(object) => drop(seen.insert(name.to_owned(), object)),
            None => drop(seen.remove(name)),
        }
        Ok(())
    }
}

impl Records for KubernetesRecords {
    async fn all(&self) -> Result<Vec<Kept>, RecordError> {
        let (mut found, mut next): (Vec<AzureAssignment>, Option<String>) = (Vec::new(), None);
        loop {
            let mut page = ListParams::default().limit(PAGE);
            if let Some(token) = &next {
                page = page.continue_token(token);
            }
            let list = self.call("*", self.api.list(&page)).await?;
            found.extend(list.items);
            next = list.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
        let mut kept = Vec::new();
        let mut seen = HashMap::new();
        for object in found {
            let name = object.metadata.name.clone().unwrap_or_default();
            match record(&object) {
                Ok(one) => kept.push(one),
                Err(error) => tracing::warn!(assignment = %name, %error,
                    "an AzureAssignment cannot be read; what it owned is never removed"),
            }
            seen.insert(name, object);
        }
        *self.seen.lock() = seen;
        Ok(kept)
    }

    async fn write(&self, told: &Told, now: Duration) -> Result<(), RecordError> {
        let name = told.compute.assignment_name();
        for _ in 0..TRIES {
            match self.try_write(&name, told, now).await {
                Err(error) if is_outdated(&error) => self.look(&name).await?,
                other => return other,
            }
        }
        Err(RecordError::Contended(name))
    }

    fn holds(&self, compute: &Compute) -> bool {
        self.seen.lock().contains_key(&compute.assignment_name())
    }

    fn lost(&self, name: &str) -> bool {
        self.seen.lock().remove(name).is_some()
    }

    async fn forget(&self, compute: &Compute) -> Result<(), RecordError> {
        let name = compute.assignment_name();
        // Our own deletion is no loss.
        self.seen.lock().remove(&name);
        let params = DeleteParams::default();
        match self.call(&name, self.api.delete(&name, &params)).await {
            Err(error) if status_code(&error) != Some(404) => Err(error),
            _ => Ok(()),
        }
    }
}

fn version(object: &AzureAssignment) -> Value {
    json!({"resourceVersion": object.metadata.resource_version})
}

/// Whether the object is another one than was seen: changed, created or deleted by somebody else.
fn is_outdated(error: &RecordError) -> bool {
    matches!(status_code(error), Some(404 | 409))
}

fn status_code(error: &RecordError) -> Option<u16> {
    match error {
        RecordError::Call { source, .. } => source.status(),
        RecordError::Contended(_) | RecordError::File { .. } => None,
    }
}

#[cfg(test)]
mod tests;
