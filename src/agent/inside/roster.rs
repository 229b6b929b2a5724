//! Which pods are served from inside. Pure.

use crate::agent::directory::Directory;
use crate::model::facts::Mode;

use super::sandbox::Sandbox;
use super::{Face, InsideConfig};

/// Whether a sandbox is to have a listener of ours there.
///
/// A pod that is not known yet is served where that is the agent's own mode: its first request is not to wait
/// for the API server to tell of it. It gets nothing before.
pub fn is_served(
    sandbox: &Sandbox,
    face: Face,
    directory: &Directory,
    config: &InsideConfig,
) -> bool {
    let known = directory.of_uid(&sandbox.uid).map(|grants| &grants.pod);
    let inside = config.mode.of(known.and_then(|pod| pod.mode)) == Mode::InPod;
    inside
        && match face {
            Face::Imds => true,
            Face::VmExtension => known
                .and_then(|pod| pod.vm_extension)
                .unwrap_or(config.vm_extension),
        }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::config::NodeMode;
    use crate::agent::inside::Folders;
    use crate::agent::testkit::{object, world};

    fn is_there(
        uid: &str,
        face: Face,
        directory: &Directory,
        (mode, vm_extension): (NodeMode, bool),
    ) -> bool {
        let sandbox = Sandbox {
            uid: uid.into(),
            namespace: "n".to_owned(),
        };
        let folders = Folders {
            bundles: "b".into(),
            namespaces: "n".into(),
        };
        let config = InsideConfig {
            mode,
            vm_extension,
            folders,
            hold_socket: None,
        };
        is_served(&sandbox, face, directory, &config)
    }

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
            uids.map(|uid| is_there(uid, Face::Imds, &directory, (mode, false)))
        };
        assert_eq!(served(NodeMode::Redirect), [false; 4]);
        assert_eq!(served(NodeMode::Mixed), [true, false, false, false]);
        assert_eq!(served(NodeMode::InPod), [true, false, true, true]);
    }

    #[test]
    fn the_extensions_endpoint_is_there_for_whom_it_is_asked() {
        let pod = |name: &str, word: Option<&str>| {
            object(
                json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
                "metadata": {"namespace": "a", "name": name, "uid": name, "annotations": word.map(|word| json!({"lanyard.dev/vm-extension-endpoint": word}))}}),
            )
        };
        let pods = [
            pod("yes", Some("true")),
            pod("no", Some("false")),
            pod("word", Some("yes")),
            pod("none", None),
        ];
        let directory = Directory::of(&world(pods), |_, _| false);
        let served = |mode: NodeMode, vm_extension: bool| {
            ["yes", "no", "word", "none"]
                .map(|uid| is_there(uid, Face::VmExtension, &directory, (mode, vm_extension)))
        };
        assert_eq!(served(NodeMode::InPod, false), [true, false, false, false]);
        // "false" means false, and any other word nothing.
        assert_eq!(served(NodeMode::InPod, true), [true, false, true, true]);
        assert_eq!(served(NodeMode::Mixed, true), [false; 4]);
    }
}
