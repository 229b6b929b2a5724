//! Sends what is to be told as Events (`events.k8s.io/v1`) on the pod or the identity.
//!
//! In: tellings. Out: an Event that is created, or the one of before with a higher count. Every call
//! has a deadline; while the API server is away tellings are dropped and counted, nothing is kept.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use prometheus::IntCounter;
use serde_json::json;

use super::reason::Reason;
use super::{Regarding, Telling, Tellings};
use crate::api::API_VERSION;
use crate::kubernetes::{CallError, Cluster};
use crate::serve::clock;

/// Who reports.
const CONTROLLER: &str = "lanyard.dev/agent";
/// An Event is counted up for as long as the API server keeps it for certain (an hour is usual).
const KEPT: Duration = Duration::from_mins(50);
/// Events remembered, to be counted up.
const MAX_SENT: usize = 4096;

/// Sends until nobody tells any more. `node` says which agent it is.
pub async fn publish(cluster: Cluster, node: String, mut tellings: Tellings, dropped: IntCounter) {
    let mut sent = Sent::default();
    while let Some(telling) = tellings.recv().await {
        if let Err(error) = send(&cluster, &node, &telling, &mut sent).await {
            dropped.inc();
            tracing::debug!(object = %telling.name, %error, "an Event was not sent");
        }
    }
}

/// The Events of before, by object, reason and words.
#[derive(Debug, Default)]
struct Sent {
    names: HashMap<(Arc<str>, Reason, String), (String, Duration)>,
}

impl Sent {
    /// The name of the Event to count up.
    fn name(&mut self, telling: &Telling, now: Duration) -> Option<String> {
        self.names
            .retain(|_, (_, created)| now.saturating_sub(*created) < KEPT);
        let key = key(telling);
        self.names.get(&key).map(|(name, _)| name.clone())
    }

    fn keep(&mut self, telling: &Telling, name: String, now: Duration) {
        if self.names.len() < MAX_SENT {
            self.names.insert(key(telling), (name, now));
        }
    }
}

fn key(telling: &Telling) -> (Arc<str>, Reason, String) {
    (telling.uid.clone(), telling.reason, telling.note.clone())
}

async fn send(
    cluster: &Cluster,
    node: &str,
    telling: &Telling,
    sent: &mut Sent,
) -> Result<(), CallError> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &telling.name.namespace);
    let (now, since) = (clock::now(), clock::since_epoch());
    if telling.count > 1
        && let Some(name) = sent.name(telling, since)
    {
        let patch = json!({"series": {"count": telling.count, "lastObservedTime": MicroTime(now)}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        match cluster.call(events.patch(&name, &params, &patch)).await {
            Ok(_) => return Ok(()),
            // It was deleted meanwhile: another one is made.
            Err(CallError::Kube(kube::Error::Api(status))) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let event = event(telling, node, MicroTime(now));
    let name = event.metadata.name.clone().unwrap_or_default();
    let params = PostParams::default();
    match cluster.call(events.create(&params, &event)).await {
        Ok(_) => {}
        // Another node's agent told it, or this one before its restart.
        Err(CallError::Kube(kube::Error::Api(status))) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    sent.keep(telling, name, since);
    Ok(())
}

/// What makes an Event's name its own. Each pod has one agent. An identity has one on many nodes, which
/// tell the same in the same minute: the same words have the same name, and are told once.
fn ending(telling: &Telling, now: &MicroTime) -> String {
    match telling.regarding {
        Regarding::Pod => format!("{:x}", now.0.as_nanosecond()),
        Regarding::Identity => {
            let mut hasher = DefaultHasher::new();
            key(telling).hash(&mut hasher);
            format!("{:016x}", hasher.finish())
        }
    }
}

fn event(telling: &Telling, node: &str, now: MicroTime) -> Event {
    let object = &telling.name;
    let (api_version, kind, action) = match telling.regarding {
        Regarding::Pod => ("v1", "Pod", "AnswerMetadataRequest"),
        Regarding::Identity => (API_VERSION, "AzureIdentity", "UseCredential"),
    };
    // As others name theirs: the object, and what makes it unique. The name of a pod may be long.
    let stem: String = object.name.chars().take(200).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{stem}.{}", ending(telling, &now))),
            namespace: Some(object.namespace.to_string()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(object.namespace.to_string()),
            name: Some(object.name.to_string()),
            uid: Some(telling.uid.to_string()),
            ..ObjectReference::default()
        }),
        event_time: Some(now),
        type_: Some("Warning".to_owned()),
        reason: Some(telling.reason.as_str().to_owned()),
        action: Some(action.to_owned()),
        note: Some(telling.note.clone()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.chars().take(128).collect()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::ObjectName;

    fn telling(regarding: Regarding, note: &str) -> Telling {
        Telling {
            regarding,
            name: ObjectName::new("shop", "app"),
            uid: "uid".into(),
            reason: Reason::CredentialExpiring,
            note: note.to_owned(),
            count: 1,
        }
    }

    #[test]
    fn many_agents_tell_the_same_of_an_identity_under_one_name() {
        let name = |telling: &Telling, node, seconds| {
            let now = MicroTime(jiff::Timestamp::from_second(seconds).unwrap());
            event(telling, node, now).metadata.name
        };
        let same = telling(Regarding::Identity, "ends in 7 days");
        let other = telling(Regarding::Identity, "ends in 1 day");
        assert_eq!(name(&same, "node-1", 1), name(&same, "node-2", 2));
        assert_ne!(name(&same, "node-1", 1), name(&other, "node-1", 1));
        let pod = telling(Regarding::Pod, "refused");
        assert_ne!(name(&pod, "node-1", 1), name(&pod, "node-1", 2));
    }

    #[test]
    fn an_event_is_on_the_object_that_it_is_about() {
        let identity = telling(Regarding::Identity, "ends");
        let now = || MicroTime(jiff::Timestamp::from_second(1).unwrap());
        let regarding = event(&identity, "node-1", now()).regarding.unwrap();
        let of = (regarding.api_version.as_deref(), regarding.kind.as_deref());
        assert_eq!(of, (Some("lanyard.dev/v1alpha1"), Some("AzureIdentity")));
        let regarding = event(&telling(Regarding::Pod, "x"), "node-1", now()).regarding;
        assert_eq!(regarding.unwrap().kind.as_deref(), Some("Pod"));
    }
}
