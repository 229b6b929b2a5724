//! Pods that ask to be served from inside where this node's agent enters no pod: counted, and told to their owners.
//!
//! In: the directory, each time it changes. Out: a gauge, and an Event on each such pod. Never waits. They are served by
//! redirection, as all pods of the node: how pods are served is the operator's to say, and an annotation that turned a
//! pod's identities off would make it an outage to move a workload from one cluster to another.

use prometheus::{IntGauge, Registry};

use crate::agent::config::NodeMode;
use crate::agent::directory::Directory;
use crate::agent::events::Events;
use crate::model::facts::Mode;
use crate::serve::series::{gauge, value};

/// Tells of annotations that have no effect.
pub struct Unheard {
    mode: NodeMode,
    events: Events,
    pods: IntGauge,
}

impl Unheard {
    /// Registers the gauge.
    pub fn register(
        registry: &Registry,
        mode: NodeMode,
        events: Events,
    ) -> prometheus::Result<Self> {
        let pods = gauge(
            registry,
            "lanyard_inside_unheard_pods",
            "Live pods with the annotation lanyard.dev/mode: in-pod that this node's agent serves by redirection, because of its own mode.",
        )?;
        Ok(Self { mode, events, pods })
    }

    /// Counts them, and tells of those that were not told of.
    pub fn tell(&self, directory: &Directory) {
        let pods = || directory.pods().map(|grants| &*grants.pod);
        let unheard = || {
            pods().filter(|pod| {
                let asks = pod.mode == Some(Mode::InPod) && !pod.host_network;
                asks && self.mode.of(pod.mode) == Mode::Redirect
            })
        };
        self.pods.set(value(unheard().count()));
        unheard().for_each(|pod| self.events.unheard(pod));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testkit::{object, world};

    #[tokio::test]
    async fn who_asks_for_what_this_node_does_not_do_is_told_of_once() {
        let pod = |name: &str, mode: &str, host: bool| {
            object(
                serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": name,
                    "uid": format!("uid-{name}"), "annotations": {"lanyard.dev/mode": mode}},
                "spec": {"hostNetwork": host, "containers": []}}),
            )
        };
        let known = Directory::of(
            &world([
                pod("asks", "in-pod", false),
                pod("no-word", "inside", false),
                pod("content", "redirect", false),
                pod("host", "in-pod", true),
            ]),
            |_, _| false,
        );
        for (mode, expected) in [
            (NodeMode::Redirect, &["asks"][..]),
            (NodeMode::Mixed, &[]),
            (NodeMode::InPod, &[]),
        ] {
            let registry = Registry::new();
            let events = Events::register(&registry).unwrap();
            let (mut tellings, _) = events.start();
            let unheard = Unheard::register(&registry, mode, events).unwrap();
            unheard.tell(&known);
            unheard.tell(&known);
            let told: Vec<_> = std::iter::from_fn(|| tellings.try_recv().ok()).collect();
            let names: Vec<_> = told.iter().map(|one| &*one.name.name).collect();
            assert_eq!(names, expected, "{mode:?}");
            assert!(
                told.iter()
                    .all(|one| one.reason.as_str() == "ModeWithoutEffect")
            );
            assert_eq!(unheard.pods.get(), value(expected.len()));
        }
    }
}
