//! Does this pod ask for App Service's variables? Pure.

use super::pod::Pod;
use crate::api::{APP_SERVICE_2017_ANNOTATION, APP_SERVICE_LABEL};

/// Kubelet's mark on the object that stands for a pod from a file of its node: what is changed on it
/// changes nothing of the pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a pod asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opted {
    /// Nothing, or it says "false".
    Out,
    /// The variables of 2019-08-01, and those of 2017-09-01 where it says so.
    In { with_2017: bool },
}

/// What the pod asks for, and what is strange about how it does.
pub(super) fn of(pod: &Pod) -> (Opted, Vec<String>) {
    let meta = &pod.metadata;
    let label = meta.labels.as_ref();
    let label = label.and_then(|labels| labels.get(APP_SERVICE_LABEL));
    match label.map(String::as_str) {
        Some("true") => {}
        None | Some("false") => return (Opted::Out, Vec::new()),
        Some(other) => {
            let words = format!(
                r#"label {APP_SERVICE_LABEL}: "{other}" is neither "true" nor "false": no variables are added"#
            );
            return (Opted::Out, vec![words]);
        }
    }
    let annotations = meta.annotations.as_ref();
    let annotation = |name: &str| {
        annotations
            .and_then(|all| all.get(name))
            .map(|one| one.trim())
    };
    if annotation(MIRROR).is_some() {
        let words = format!(
            "this pod is made from a file of its node: {APP_SERVICE_LABEL} adds nothing to it"
        );
        return (Opted::Out, vec![words]);
    }
    let mut warnings = Vec::new();
    let with_2017 = match annotation(APP_SERVICE_2017_ANNOTATION) {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => {
            warnings.push(format!(
                r#"annotation {APP_SERVICE_2017_ANNOTATION}: "{other}" is neither "true" nor "false": taken for "false""#
            ));
            false
        }
    };
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        warnings.push(
            "hostNetwork: the variables are added, but the pod's requests come to an agent only where agents serve \
             pods of the host's network"
                .to_owned(),
        );
    }
    (Opted::In { with_2017 }, warnings)
}
