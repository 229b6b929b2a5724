//! Host-network pods that pass the agent by: counted, and told to their owners.
//!
//! In: the directory, each time it changes. Out: a gauge, and an Event on each such pod. Never waits.

use std::sync::Arc;

use prometheus::{IntGauge, Registry};

use crate::agent::directory::Directory;
use crate::agent::events::Events;
use crate::model::facts::PodFacts;
use crate::serve::series::{gauge, value};

/// The label that every pod of the chart's has, whatever its release is called.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "lanyard");

/// Tells of host-network pods that pass the agent by.
pub struct Bypass {
    /// The agent's namespace; `None`: there are no pods of Lanyard's own.
    own: Option<Arc<str>>,
    events: Events,
    pods: IntGauge,
}

impl Bypass {
    /// Registers the gauge. `own` is the agent's namespace: pods of Lanyard's there are no news.
    pub fn register(
        registry: &Registry,
        own: Option<Arc<str>>,
        events: Events,
    ) -> prometheus::Result<Self> {
        let pods = gauge(
            registry,
            "lanyard_host_network_pods_bypassing",
            "Live host-network pods whose requests reach the node's IMDS past the agent, without Lanyard's own.",
        )?;
        Ok(Self { own, events, pods })
    }

    /// Counts them, and tells of those that were not told of.
    pub fn tell(&self, directory: &Directory) {
        let pods = || directory.pods().map(|grants| &*grants.pod);
        let bypassing = || pods().filter(|pod| pod.host_network && !self.is_own(pod));
        self.pods.set(value(bypassing().count()));
        bypassing().for_each(|pod| self.events.bypasses(pod));
    }

    /// By namespace, too: anybody may label a pod.
    fn is_own(&self, pod: &PodFacts) -> bool {
        let (key, value) = PART_OF;
        self.own.as_ref() == Some(&pod.name.namespace)
            && pod.labels.get(key).is_some_and(|label| label == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testkit::{object, world};

    #[tokio::test]
    async fn each_pod_on_the_nodes_network_is_counted_and_told_of_once() {
        let pod = |namespace: &str, name: &str, host: bool, phase: &str, part_of: &str| {
            object(
                serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name,
                    "uid": format!("uid-{name}"), "labels": {"app.kubernetes.io/part-of": part_of}},
                "spec": {"hostNetwork": host, "containers": []}, "status": {"phase": phase, "podIP": "10.0.0.1"}}),
            )
        };
        let registry = Registry::new();
        let events = Events::register(&registry).unwrap();
        let (mut tellings, _) = events.start();
        let bypass = Bypass::register(&registry, Some("lanyard-system".into()), events).unwrap();
        let known = Directory::of(
            &world([
                pod("a", "host", true, "Running", "x"),
                pod("a", "soon", true, "Pending", "x"),
                pod("a", "feigned", true, "Running", "lanyard"),
                pod("a", "done", true, "Succeeded", "x"),
                pod("a", "usual", false, "Running", "x"),
                pod("lanyard-system", "agent", true, "Running", "lanyard"),
                pod("lanyard-system", "other", true, "Running", "x"),
            ]),
            |_, _| false,
        );
        bypass.tell(&known);
        bypass.tell(&known);
        assert_eq!(bypass.pods.get(), 4);
        let told = std::iter::from_fn(|| tellings.try_recv().ok());
        let mut told: Vec<_> = told
            .map(|one| (one.name.name.to_string(), one.reason.as_str()))
            .collect();
        told.sort();
        let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["feigned", "host", "other", "soon"]);
        assert!(
            told.iter()
                .all(|(_, reason)| *reason == "HostNetworkBypasses")
        );
        bypass.tell(&Directory::default());
        assert_eq!(bypass.pods.get(), 0);
    }
}
