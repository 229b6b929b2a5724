//! Which pods are served from inside. Pure.

use crate::agent::config::NodeMode;
use crate::agent::directory::Directory;
use crate::model::facts::Mode;

use super::sandbox::Sandbox;

/// Whether a sandbox is to have a listener of ours.
///
/// A pod that is not known yet is served where that is the agent's own mode: its first request is not to wait
/// for the API server to tell of it. It gets nothing before.
pub fn is_served(sandbox: &Sandbox, directory: &Directory, mode: NodeMode) -> bool {
    let known = directory.of_uid(&sandbox.uid);
    mode.of(known.and_then(|grants| grants.pod.mode)) == Mode::InPod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::testkit::{object, world};

    #[test]
    fn a_pods_own_word_counts_before_the_agents() {
        let pod = |name: &str, mode: Option<&str>| {
            object(
                json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
                "metadata": {"namespace": "a", "name": name, "uid": name, "annotations": mode.map(|mode| json!({"lanyard.dev/mode": mode}))}}),
            )
        };
        let pods = [
            pod("in", Some("in-pod")),
            pod("out", Some("redirect")),
            pod("none", None),
        ];
        let directory = Directory::of(&world(pods), |_, _| false);
        let served = |mode: NodeMode| {
            let uids = ["in", "out", "none", "unknown"];
            uids.map(|uid| {
                let sandbox = Sandbox {
                    uid: uid.into(),
                    namespace: "n".to_owned(),
                };
                is_served(&sandbox, &directory, mode)
            })
        };
        assert_eq!(served(NodeMode::Redirect), [false; 4]);
        assert_eq!(served(NodeMode::Mixed), [true, false, false, false]);
        assert_eq!(served(NodeMode::InPod), [true, false, true, true]);
    }
}
