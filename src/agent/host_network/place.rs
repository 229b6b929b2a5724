//! What a folder of the cgroup hierarchy stands for, by the names that kubelet gives. Pure.
//!
//! A pod's UID is kubelet's word: below a pod's folder no name says anything, since a pod may make folders there itself.

use std::sync::Arc;

/// What kubelet calls the cgroup of all pods: with the driver `cgroupfs`, and with `systemd`.
pub const OF_PODS: [&str; 2] = ["kubepods", "kubepods.slice"];
/// Folders above pods': of all pods, and of those of a class.
const ABOVE: usize = 2;
/// Folders below a pod's that are looked at: containers, and what they nest.
const BELOW: usize = 6;

/// What a folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one that kubelet keeps all pods below.
    Root,
    /// Above pods', and so many levels of such folders begin with it.
    Above(usize),
    /// A pod's own, or below it; so many levels further down are looked at.
    Of(Arc<str>, usize),
}

impl Place {
    /// What a folder in it is; `None`: nothing to look at. `is_elsewhere` is asked of UIDs: pods with a network of their
    /// own are none of ours.
    pub fn below(&self, name: &str, is_elsewhere: &impl Fn(&str) -> bool) -> Option<Self> {
        match self {
            Self::Root => OF_PODS.contains(&name).then_some(Self::Above(ABOVE)),
            Self::Above(levels) => match uid_of(name) {
                Some(uid) => (!is_elsewhere(&uid)).then(|| Self::Of(uid.into(), BELOW)),
                None => (*levels > 1).then(|| Self::Above(levels - 1)),
            },
            Self::Of(uid, levels) => Some(Self::Of(uid.clone(), levels.checked_sub(1)?)),
        }
    }

    /// The pod whose it is.
    pub fn uid(&self) -> Option<&Arc<str>> {
        match self {
            Self::Of(uid, _) => Some(uid),
            Self::Root | Self::Above(_) => None,
        }
    }
}

/// The UID in a pod's folder's name: `podUID` with the driver cgroupfs, `kubepods[-CLASS]-podUID.slice` with systemd,
/// which writes `_` for `-`.
fn uid_of(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        None => name.strip_prefix("pod")?.to_owned(),
        Some(unit) => {
            let (class, uid) = unit.strip_prefix("kubepods")?.split_once("-pod")?;
            let known = matches!(class, "" | "-burstable" | "-besteffort");
            known.then(|| uid.replace('_', "-"))?
        }
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (!uid.is_empty() && uid.bytes().all(plain)).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8f3a1c52-7d0e-4b7f-9f3e-0a1b2c3d4e5f";

    #[test]
    fn a_pods_folder_is_known_by_its_name_with_both_drivers() {
        let systemd = UID.replace('-', "_");
        for name in [
            format!("pod{UID}"),
            format!("kubepods-pod{systemd}.slice"),
            format!("kubepods-burstable-pod{systemd}.slice"),
            format!("kubepods-besteffort-pod{systemd}.slice"),
        ] {
            assert_eq!(uid_of(&name).as_deref(), Some(UID), "{name}");
        }
        for other in [
            "burstable",
            "kubepods-burstable.slice",
            "kubepods-other-podx.slice",
            "other-podx.slice",
            "pod",
            "pod a",
            "cri-containerd-0123.scope",
            "kubepods-pod.slice",
        ] {
            assert_eq!(uid_of(other), None, "{other}");
        }
    }
}
