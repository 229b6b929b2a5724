//! What the runtime wrote down of a container → the pod's sandbox, if it is one. Pure.
//!
//! Source: the OCI runtime specification (`config.json` of a bundle), and the annotations of containerd's
//! CRI plugin. The sandbox's own container is made after its network (CNI ADD) and removed before that goes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

const KIND: &str = "io.kubernetes.cri.container-type";
const UID: &str = "io.kubernetes.cri.sandbox-uid";
/// Where named network namespaces are; `/var/run` is a link to `/run` on every node.
const NAMESPACES: [&str; 2] = ["/var/run/netns", "/run/netns"];

/// A pod's sandbox with a network of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The pod's UID, as the runtime was told it.
    pub uid: Arc<str>,
    /// The network namespace's name.
    pub namespace: String,
}

/// A bundle's configuration that cannot be read (yet): it may be half written.
#[derive(Debug, thiserror::Error)]
#[error("config.json: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
}

/// The sandbox in a bundle's configuration. `None`: another container, or a pod in the node's network.
pub fn read(text: &[u8]) -> Result<Option<Sandbox>, Unreadable> {
    let Config { annotations, linux } = serde_json::from_slice(text)?;
    if annotations.get(KIND).map(String::as_str) != Some("sandbox") {
        return Ok(None);
    }
    let network = linux.namespaces.iter().find(|one| one.kind == "network");
    let path = network.and_then(|network| network.path.as_deref());
    let uid = annotations.get(UID).filter(|uid| !uid.is_empty());
    Ok(uid
        .zip(path.and_then(named))
        .map(|(uid, namespace)| Sandbox {
            uid: uid.as_str().into(),
            namespace: namespace.to_owned(),
        }))
}

/// The name of a namespace that is where such are; anything else is nowhere that may be entered.
fn named(path: &str) -> Option<&str> {
    let path = Path::new(path);
    let folder = path.parent()?.to_str()?;
    let name = path.file_name()?.to_str()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_plain = name.bytes().all(plain) && !name.starts_with('.');
    (NAMESPACES.contains(&folder) && is_plain).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(kind: &str, uid: &str, network: &Value) -> Vec<u8> {
        let config = json!({"ociVersion": "1.0.2", "process": {"env": ["SECRET=x"]},
            "annotations": {"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-uid": uid},
            "linux": {"namespaces": [{"type": "pid"}, network]}});
        config.to_string().into_bytes()
    }

    #[test]
    fn a_sandbox_names_its_pod_and_its_network() {
        let network = json!({"type": "network", "path": "/var/run/netns/cni-1a2b"});
        let found = read(&config("sandbox", "u-1", &network)).unwrap();
        let expected = Sandbox {
            uid: "u-1".into(),
            namespace: "cni-1a2b".to_owned(),
        };
        assert_eq!(found, Some(expected));
        let of =
            |kind: &str, uid: &str, network: &Value| read(&config(kind, uid, network)).unwrap();
        assert_eq!(of("container", "u-1", &network), None);
        assert_eq!(of("sandbox", "", &network), None);
        // In the node's network.
        assert_eq!(of("sandbox", "u-1", &json!({"type": "network"})), None);
        assert_eq!(of("sandbox", "u-1", &json!({"type": "ipc"})), None);
    }

    #[test]
    fn no_path_leads_anywhere_else() {
        for path in [
            "/proc/1/ns/net",
            "/var/run/netns/../../proc/1/ns/net",
            "/run/netns/a/b",
            "/run/netns/",
            "/run/netns/..",
            "/run/netns/.hidden",
            "/run/netns/a b",
            "run/netns/a",
            "/var/run/netnsx/a",
        ] {
            let network = json!({"type": "network", "path": path});
            assert_eq!(
                read(&config("sandbox", "u", &network)).unwrap(),
                None,
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_half_written_is_an_error_and_not_another_container() {
        let whole = config(
            "sandbox",
            "u",
            &json!({"type": "network", "path": "/run/netns/a"}),
        );
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
    }
}
