//! The objects of managed identities in the Kubernetes API: finalizer, owner reference, one Event.
//!
//! In: an [`Action`]. Out: its [`Answer`]. Blocks on the API server, each call with a deadline. Every write
//! names the object's UID, and the finalizer's also its version: a later object of the same name and
//! somebody else's change in between are never overwritten.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::FINALIZER;
use super::claim::{Claim, Written};
use super::known::{Answer, Failed};
use super::outside::Objects;
use super::step::Action;
use crate::api::API_VERSION;
use crate::api::identity::AzureIdentity;
use crate::api::managed::Owner;
use crate::controller::report::REPORTER;
use crate::kubernetes::event::{Regarding, Report, Reporting, ending_of};
use crate::kubernetes::{CallError, Cluster};
use crate::serve::clock;

/// Who applies the owner reference: what the same one applied before and does not name any more goes.
const OWNER_FIELDS: &str = "lanyard-managed-owner";

impl Objects for Cluster {
    async fn call(&self, claim: &Claim, action: &Action) -> Result<Answer, Failed> {
        match action {
            Action::ReadSpec => spec(self, claim).await,
            Action::LookForOwner(owner) => look(self, claim, owner).await,
            Action::WriteOwner(owner) => write_owner(self, claim, owner.as_ref()).await,
            Action::Hold => hold(self, claim, true).await,
            Action::Release(stays) => {
                if let Some(note) = stays
                    && let Err(error) = tell(self, claim, note).await
                {
                    tracing::warn!(identity = %claim.name, %note, %error, "an Event was not sent");
                }
                hold(self, claim, false).await
            }
            // Azure's own.
            _ => Ok(Answer::Done),
        }
    }
}

fn api(cluster: &Cluster, claim: &Claim) -> Api<AzureIdentity> {
    Api::namespaced(cluster.client.clone(), &claim.name.namespace)
}

/// The object's metadata, if it is still the claim's.
async fn metadata(cluster: &Cluster, claim: &Claim) -> Result<Option<ObjectMeta>, Failed> {
    let api = api(cluster, claim);
    let found = cluster.call(api.get_metadata_opt(&claim.name.name)).await;
    let found = found.map_err(|error| failed("read the AzureIdentity", &error))?;
    let found = found.map(|object| object.metadata);
    Ok(found.filter(|metadata| metadata.uid.as_deref() == Some(&*claim.uid)))
}

async fn hold(cluster: &Cluster, claim: &Claim, held: bool) -> Result<Answer, Failed> {
    let Some(metadata) = metadata(cluster, claim).await? else {
        return Ok(gone(claim));
    };
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|name| name == FINALIZER) == held {
        return Ok(written(&metadata));
    }
    finalizers.retain(|name| name != FINALIZER);
    if held {
        finalizers.push(FINALIZER.to_owned());
    }
    let change = json!({"metadata": {"uid": claim.uid, "resourceVersion": metadata.resource_version,
        "finalizers": finalizers}});
    let (api, params, patch) = (
        api(cluster, claim),
        PatchParams::default(),
        Patch::Merge(&change),
    );
    let changed = cluster
        .call(api.patch_metadata(&claim.name.name, &params, &patch))
        .await;
    match changed {
        Ok(object) => Ok(written(&object.metadata)),
        Err(error) if !held && error.status() == Some(404) => Ok(gone(claim)),
        Err(error) => Err(failed("write the finalizer", &error)),
    }
}

async fn write_owner(
    cluster: &Cluster,
    claim: &Claim,
    owner: Option<&(Owner, Arc<str>)>,
) -> Result<Answer, Failed> {
    let Some(metadata) = metadata(cluster, claim).await? else {
        return Ok(gone(claim));
    };
    let references = metadata.owner_references.iter().flatten();
    let replaced = |(owner, uid): &(Owner, Arc<str>)| {
        references.clone().any(|reference| {
            let same = (&reference.api_version, &reference.kind, &reference.name);
            same == (&owner.api_version, &owner.kind, &owner.name) && *reference.uid != **uid
        })
    };
    if owner.is_some_and(replaced) {
        return Ok(Answer::OwnerReplaced);
    }
    let reference = |(owner, uid): &(Owner, Arc<str>)| {
        json!({"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": uid,
            "blockOwnerDeletion": false})
    };
    let references: Vec<Value> = owner.map(reference).into_iter().collect();
    let change = json!({"apiVersion": API_VERSION, "kind": "AzureIdentity",
        "metadata": {"name": claim.name.name, "uid": claim.uid, "ownerReferences": references}});
    let params = PatchParams::apply(OWNER_FIELDS).force();
    let (api, patch) = (api(cluster, claim), Patch::Apply(&change));
    let changed = cluster
        .call(api.patch_metadata(&claim.name.name, &params, &patch))
        .await;
    let object = changed.map_err(|error| failed("write the owner reference", &error))?;
    Ok(written(&object.metadata))
}

async fn look(cluster: &Cluster, claim: &Claim, owner: &Owner) -> Result<Answer, Failed> {
    let (client, namespace) = (cluster.client.clone(), &claim.name.namespace);
    let found = if owner.kind == "StatefulSet" {
        let api = Api::<StatefulSet>::namespaced(client, namespace);
        let found = cluster.call(api.get_metadata_opt(&owner.name)).await;
        found.map(|found| found.map(|object| object.metadata))
    } else {
        let api = Api::<Deployment>::namespaced(client, namespace);
        let found = cluster.call(api.get_metadata_opt(&owner.name)).await;
        found.map(|found| found.map(|object| object.metadata))
    };
    let found = found.map_err(|error| failed("look for the owner", &error))?;
    // One that is being deleted would take the identity with it.
    let lives = found.filter(|metadata| metadata.deletion_timestamp.is_none());
    let uid = lives.and_then(|metadata| metadata.uid);
    Ok(Answer::Owner(uid.map(Into::into)))
}

async fn spec(cluster: &Cluster, claim: &Claim) -> Result<Answer, Failed> {
    let resource = kube::api::ApiResource::erase::<AzureIdentity>(&());
    let (client, namespace) = (cluster.client.clone(), &claim.name.namespace);
    let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
    let found = cluster.call(api.get_opt(&claim.name.name)).await;
    let found = found.map_err(|error| failed("read the AzureIdentity", &error))?;
    let found = found.filter(|object| object.metadata.uid.as_deref() == Some(&*claim.uid));
    let managed = found.and_then(|object| object.data.pointer("/spec/managed").cloned());
    let managed = managed.and_then(|managed| serde_json::from_value(managed).ok());
    Ok(Answer::Spec(managed.map(Arc::new)))
}

/// An Event on an object that goes: what its status says goes with it.
async fn tell(cluster: &Cluster, claim: &Claim, note: &str) -> Result<(), CallError> {
    let report = Report {
        regarding: Regarding {
            api_version: API_VERSION,
            kind: "AzureIdentity",
            namespace: claim.name.namespace.clone(),
            name: claim.name.name.clone(),
            uid: claim.uid.clone(),
        },
        is_warning: false,
        reason: "Retained".to_owned(),
        action: "Release",
        note: note.to_owned(),
        ending: ending_of((&*claim.uid, note)),
    };
    let by = Reporting {
        controller: REPORTER,
        instance: "lanyard-controller".to_owned(),
    };
    let told = cluster.report(&report, &by, clock::now()).await;
    told.map(drop)
}

fn written(metadata: &ObjectMeta) -> Answer {
    let references = metadata.owner_references.iter().flatten();
    let version = metadata.resource_version.as_ref();
    Answer::Object(Written {
        version: version
            .and_then(|version| version.parse().ok())
            .unwrap_or_default(),
        held: metadata
            .finalizers
            .iter()
            .flatten()
            .any(|name| name == FINALIZER),
        owners: references.map(|one| one.uid.as_str().into()).collect(),
    })
}

/// The object is not there any more; the watch is about to say so.
fn gone(claim: &Claim) -> Answer {
    Answer::Object(Written {
        version: claim.version.saturating_add(1),
        held: false,
        owners: claim.owners.clone(),
    })
}

fn failed(what: &str, error: &CallError) -> Failed {
    Failed {
        reason: "KubernetesFailed".into(),
        message: format!("cannot {what}: {error}").into(),
        retry_after: None,
        transient: true,
    }
}
