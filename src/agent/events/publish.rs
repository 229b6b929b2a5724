//! Sends what is to be told as Events (`events.k8s.io/v1`) on the pod or the identity.
//!
//! In: tellings. Out: an Event that is created, or the one of before with a higher count. Every call
//! has a deadline; while the API server is away tellings are dropped and counted, nothing is kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::IntCounter;

use super::reason::Reason;
use super::{Regarding, Telling, Tellings};
use crate::api::API_VERSION;
use crate::kubernetes::event::{self, Report, Reporting, ending_of};
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
    let by = Reporting {
        controller: CONTROLLER,
        instance: node,
    };
    while let Some(telling) = tellings.recv().await {
        if let Err(error) = send(&cluster, &by, &telling, &mut sent).await {
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
    by: &Reporting,
    telling: &Telling,
    sent: &mut Sent,
) -> Result<(), CallError> {
    let (now, since) = (clock::now(), clock::since_epoch());
    let report = report(telling, now);
    if telling.count > 1
        && let Some(name) = sent.name(telling, since)
        && cluster
            .report_again(&report, &name, telling.count, now)
            .await?
    {
        return Ok(());
    }
    let name = cluster.report(&report, by, now).await?;
    sent.keep(telling, name, since);
    Ok(())
}

fn report(telling: &Telling, now: Timestamp) -> Report {
    let (api_version, kind, action, ending) = match telling.regarding {
        // Each pod has one agent. An identity has one on many nodes, which tell the same in the same
        // minute: the same words have the same name, and are told once.
        Regarding::Pod => {
            let ending = format!("{:x}", now.as_nanosecond());
            ("v1", "Pod", "AnswerMetadataRequest", ending)
        }
        Regarding::Identity => {
            let ending = ending_of(key(telling));
            (API_VERSION, "AzureIdentity", "UseCredential", ending)
        }
    };
    Report {
        regarding: event::Regarding {
            api_version,
            kind,
            namespace: telling.name.namespace.clone(),
            name: telling.name.name.clone(),
            uid: telling.uid.clone(),
        },
        is_warning: true,
        reason: telling.reason.as_str().to_owned(),
        action,
        note: telling.note.clone(),
        ending,
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
        let name = |telling: &Telling, seconds| {
            report(telling, Timestamp::from_second(seconds).unwrap()).ending
        };
        let same = telling(Regarding::Identity, "ends in 7 days");
        let other = telling(Regarding::Identity, "ends in 1 day");
        assert_eq!(name(&same, 1), name(&same, 2));
        assert_ne!(name(&same, 1), name(&other, 1));
        let pod = telling(Regarding::Pod, "refused");
        assert_ne!(name(&pod, 1), name(&pod, 2));
    }

    #[test]
    fn an_event_is_on_the_object_that_it_is_about() {
        let identity = telling(Regarding::Identity, "ends");
        let now = Timestamp::from_second(1).unwrap();
        let regarding = report(&identity, now).regarding;
        assert_eq!(
            (regarding.api_version, regarding.kind),
            ("lanyard.dev/v1alpha1", "AzureIdentity")
        );
        let regarding = report(&telling(Regarding::Pod, "x"), now).regarding;
        assert_eq!(regarding.kind, "Pod");
    }
}
