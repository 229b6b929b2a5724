//! Events of Kubernetes (`events.k8s.io/v1`) on the object that they are about: where
//! `kubectl describe` finds them. Here one is a [`Report`], since a [`super::Event`] is one of a watch.
//!
//! In: the object, a reason, words. Out: an Event that is created, or one of before that is counted up.
//! Calls have the deadline of [`Cluster::call`]; nothing is retried here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::client::{CallError, Cluster};

/// Longest note that Kubernetes takes, in bytes.
const MAX_NOTE: usize = 1024;
/// Where Events on objects without a namespace are.
const DEFAULT_NAMESPACE: &str = "default";

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// `apiVersion` of its kind.
    pub api_version: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace; empty where it has none.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID.
    pub uid: Arc<str>,
}

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The object.
    pub regarding: Regarding,
    /// Whether somebody should look at it.
    pub is_warning: bool,
    /// Why, in one word.
    pub reason: String,
    /// What was done or tried, in one word.
    pub action: &'static str,
    /// In words; what Kubernetes would not take is cut off.
    pub note: String,
    /// What makes its name its own beside the object's: the same ending is the same Event.
    pub ending: String,
}

/// Who reports.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// The program, as in `lanyard.dev/agent`.
    pub controller: &'static str,
    /// Which one of them: its node or pod.
    pub instance: String,
}

/// An ending that the same values have, on every machine and in every process.
#[must_use]
pub fn ending_of(values: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Report {
    /// The Event, as of `now`.
    #[must_use]
    pub fn event(&self, by: &Reporting, now: jiff::Timestamp) -> Event {
        let of = &self.regarding;
        // As others name theirs: the object, and what makes it unique. The name of a pod may be long.
        let stem: String = of.name.chars().take(200).collect();
        let mut note = self.note.clone();
        if note.len() > MAX_NOTE {
            note.truncate(note.floor_char_boundary(MAX_NOTE - 3));
            note.push_str("...");
        }
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{stem}.{}", self.ending)),
                namespace: Some(self.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            regarding: Some(ObjectReference {
                api_version: Some(of.api_version.to_owned()),
                kind: Some(of.kind.to_owned()),
                namespace: Some(of.namespace.to_string()).filter(|name| !name.is_empty()),
                name: Some(of.name.to_string()),
                uid: Some(of.uid.to_string()),
                ..ObjectReference::default()
            }),
            event_time: Some(MicroTime(now)),
            type_: Some(if self.is_warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(self.reason.chars().take(128).collect()),
            action: Some(self.action.to_owned()),
            note: Some(note),
            reporting_controller: Some(by.controller.to_owned()),
            reporting_instance: Some(by.instance.chars().take(128).collect()),
            ..Event::default()
        }
    }

    fn namespace(&self) -> &str {
        let namespace = &*self.regarding.namespace;
        if namespace.is_empty() {
            DEFAULT_NAMESPACE
        } else {
            namespace
        }
    }
}

impl Cluster {
    /// Creates the Event, unless it is there already: another process told it, or this one before its
    /// restart. Gives its name.
    pub async fn report(
        &self,
        report: &Report,
        by: &Reporting,
        now: jiff::Timestamp,
    ) -> Result<String, CallError> {
        let event = report.event(by, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        match self.call(self.events(report).create(&params, &event)).await {
            Ok(_) => Ok(name),
            Err(error) if error.status() == Some(409) => Ok(name),
            Err(error) => Err(error),
        }
    }

    /// Counts an Event of before up; whether it is there still.
    pub async fn report_again(
        &self,
        report: &Report,
        name: &str,
        count: u32,
        now: jiff::Timestamp,
    ) -> Result<bool, CallError> {
        let patch = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let events = self.events(report);
        match self.call(events.patch(name, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn events(&self, report: &Report) -> Api<Event> {
        Api::namespaced(self.client.clone(), report.namespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_where_kubectl_describe_looks_for_it() {
        let by = Reporting {
            controller: "lanyard.dev/controller",
            instance: "pod".to_owned(),
        };
        let mut report = Report {
            regarding: Regarding {
                api_version: "lanyard.dev/v1alpha1",
                kind: "AzureIdentity",
                namespace: "shop".into(),
                name: "payments".into(),
                uid: "uid".into(),
            },
            is_warning: true,
            reason: "AssignmentFailed".to_owned(),
            action: "Assign",
            note: "ä".repeat(2000),
            ending: ending_of(1),
        };
        let now = jiff::Timestamp::UNIX_EPOCH;
        let event = report.event(&by, now);
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert!(event.note.unwrap().len() <= MAX_NOTE);
        let regarding = event.regarding.unwrap();
        let of = (regarding.api_version.as_deref(), regarding.kind.as_deref());
        assert_eq!(of, (Some("lanyard.dev/v1alpha1"), Some("AzureIdentity")));
        report.regarding.namespace = "".into();
        let event = report.event(&by, now);
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(event.regarding.unwrap().namespace, None);
    }
}
