//! A folder of container bundles as containerd keeps it, without containerd.
//!
//! In: a pod of the lab. Out: the files that a runtime writes for its sandbox and a container of it. Blocks on the disk.

use std::path::{Path, PathBuf};

use super::{Lab, LabError, Namespace, Pod};

/// The folder.
#[derive(Clone, Debug)]
pub struct Bundles(PathBuf);

impl Bundles {
    /// An empty one among the lab's files.
    pub fn new(lab: &Lab) -> Result<Self, LabError> {
        Ok(Self(lab.dir("bundles")?))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The sandbox of a pod, with one of its containers.
    pub fn add(&self, id: &str, pod: &Pod) -> Result<(), LabError> {
        self.add_as(id, pod.uid(), pod.namespace())
    }

    /// The same for another UID.
    pub fn add_as(&self, id: &str, uid: &str, network: &Namespace) -> Result<(), LabError> {
        self.add_at(id, uid, &network.path())
    }

    /// The same with a network that is said to be somewhere.
    pub fn add_at(&self, id: &str, uid: &str, network: &Path) -> Result<(), LabError> {
        for (part, kind) in [("sandbox", "sandbox"), ("main", "container")] {
            let config = serde_json::json!({
                "ociVersion": "1.0.2",
                "annotations": {"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-uid": uid},
                "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": network}]},
            });
            let folder = self.0.join(format!("{id}-{part}"));
            std::fs::create_dir(&folder)
                .and_then(|()| std::fs::write(folder.join("config.json"), config.to_string()))
                .map_err(LabError::io("writing a bundle"))?;
        }
        Ok(())
    }

    /// The sandbox and its container have gone.
    pub fn remove(&self, id: &str) -> Result<(), LabError> {
        for part in ["main", "sandbox"] {
            std::fs::remove_dir_all(self.0.join(format!("{id}-{part}")))
                .map_err(LabError::io("removing a bundle"))?;
        }
        Ok(())
    }
}
