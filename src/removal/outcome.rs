//! Who has removed its rules, and who has not said so.
//!
//! In: the agents' pods and the acknowledgements. Out: an [`Outcome`] and its words for a person. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;

use crate::api::removal::REMOVED;

/// What became of each node that has an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Nodes whose agent says that its rules are gone, with its words.
    pub clean: BTreeMap<String, String>,
    /// Nodes that have not said so, with what is known of their agent.
    pub silent: BTreeMap<String, String>,
}

impl Outcome {
    /// Judges: nodes with an agent (as [`agents`] gives them) against what was acknowledged.
    pub fn of(agents: &BTreeMap<String, String>, acks: &BTreeMap<String, String>) -> Self {
        let mut outcome = Self::default();
        for (node, state) in agents {
            match acks.get(node) {
                Some(words) if words.starts_with(REMOVED) => {
                    outcome.clean.insert(node.clone(), words.clone())
                }
                Some(words) => outcome.silent.insert(node.clone(), words.clone()),
                None => outcome.silent.insert(node.clone(), state.clone()),
            };
        }
        outcome
    }

    /// Whether every node is clean.
    pub fn complete(&self) -> bool {
        self.silent.is_empty()
    }

    /// For a person: what happened, which nodes are silent, and what to do about each. `image` is
    /// what a node can run `lanyard` from. Short: Helm prints it as one line.
    pub fn report(&self, image: &str) -> String {
        let mut text = String::new();
        if self.clean.is_empty() && self.silent.is_empty() {
            return "no node runs an agent; there is nobody to ask\n".to_owned();
        }
        let all = self.silent.len() + self.clean.len();
        if self.complete() {
            let _ = writeln!(
                text,
                "Lanyard's rules are gone from all {all} nodes that run an agent. Pods there can now reach the nodes' own \
                 identities."
            );
            return text;
        }
        let _ = writeln!(
            text,
            "Lanyard's rules are gone from {} of {all} nodes. NOT CONFIRMED by:",
            self.clean.len(),
        );
        for (node, state) in &self.silent {
            let _ = writeln!(text, "  {node} ({state})");
        }
        let _ = writeln!(
            text,
            "Whatever rules these nodes have stay, and keep their pods away from the metadata address. For each that still exists:"
        );
        for node in self.silent.keys() {
            let _ = writeln!(
                text,
                "  kubectl debug node/{node} --profile=sysadmin --image={image} -- lanyard uninstall --state-dir=/host/run/lanyard --boot-guard=/host"
            );
        }
        text
    }
}

/// The nodes that these pods are on, each with what is known of its agent.
pub fn agents(pods: &[Pod]) -> BTreeMap<String, String> {
    let mut agents = BTreeMap::new();
    for pod in pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let Some(node) = node else { continue };
        let state = state(pod);
        // During an update a node has two: one that is ready can be expected to answer.
        if state == READY || !agents.contains_key(&node) {
            agents.insert(node, state);
        }
    }
    agents
}

const READY: &str = "its agent runs, but has not answered";

fn state(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    if ready.is_some_and(|ready| ready.status == "True") {
        return READY.to_owned();
    }
    let waiting = status
        .and_then(|status| status.container_statuses.as_deref())
        .into_iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let why = waiting
        .or_else(|| ready?.reason.clone())
        .or_else(|| status?.phase.clone());
    match why {
        Some(why) => format!("its agent is not ready: {why}"),
        None => "nothing is known of its agent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str, ready: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {"name": "a"}, "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status, "reason": "ContainersNotReady"}]},
        }))
        .unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_node_is_clean_only_by_its_own_word() {
        let agents = map(&[("a", READY), ("b", READY), ("c", "its agent is not ready")]);
        let acks = map(&[
            ("a", "removed 2026-11-21T06:00:00Z"),
            ("b", "failed: iptables is gone"),
            ("stranger", "removed 2026-11-21T06:00:00Z"),
        ]);
        let outcome = Outcome::of(&agents, &acks);
        assert_eq!(outcome.clean.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(
            outcome.silent,
            map(&[
                ("b", "failed: iptables is gone"),
                ("c", "its agent is not ready")
            ])
        );
        assert!(!outcome.complete());
    }

    #[test]
    fn silent_nodes_are_named_with_the_command_to_run() {
        let outcome = Outcome::of(
            &map(&[("n1", READY), ("n2", READY)]),
            &map(&[("n1", "removed")]),
        );
        let report = outcome.report("registry.example/lanyard:1");
        assert!(report.contains("gone from 1 of 2 nodes"), "{report}");
        assert!(report.contains("  n2 (its agent runs"), "{report}");
        assert!(
            report.contains("kubectl debug node/n2 --profile=sysadmin --image=registry.example/lanyard:1 -- lanyard uninstall"),
            "{report}"
        );
        assert!(!report.contains("n1"), "{report}");
    }

    #[test]
    fn of_two_agents_on_a_node_the_ready_one_speaks_for_it() {
        for pods in [
            [pod("n", false), pod("n", true)],
            [pod("n", true), pod("n", false)],
        ] {
            assert_eq!(agents(&pods), map(&[("n", READY)]));
        }
        let alone = agents(&[pod("n", false)]);
        assert_eq!(alone["n"], "its agent is not ready: ContainersNotReady");
    }

    #[test]
    fn a_pod_without_a_node_asks_nobody() {
        let pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": []}}));
        assert!(agents(&[pod.unwrap()]).is_empty());
    }
}
