//! Kubernetes' Pod → facts. Lenient: a pod that Kubernetes took is never malformed here; what
//! cannot be read (an address) is left out.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::{IDENTITY_ANNOTATION, MODE_ANNOTATION, VM_EXTENSION_ANNOTATION};
use crate::model::facts::{Mode, PodFacts, PodLife};
use crate::model::ids::ObjectName;
use crate::model::presented::SecretDigest;

/// Where programs for App Service find their secret.
pub const SECRET_VARIABLES: [&str; 2] = ["IDENTITY_HEADER", "MSI_SECRET"];
/// Different secrets of one pod; a program has one.
const MOST_SECRETS: usize = 8;

/// The condition that kubelet sets when the sandbox stands.
const SANDBOX_READY: &str = "PodReadyToStartContainers";

/// The facts of a pod. `fallback_version` serves where the object has no `resourceVersion`.
#[must_use]
pub fn facts(pod: &Pod, name: ObjectName, fallback_version: &str) -> PodFacts {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let annotations = meta.annotations.as_ref();
    let annotated = |key: &str| annotations?.get(key);
    let wanted = annotated(IDENTITY_ANNOTATION);
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let ended = matches!(
        status.and_then(|status| status.phase.as_deref()),
        Some("Succeeded" | "Failed")
    );
    let account = spec
        .and_then(|spec| spec.service_account_name.as_deref())
        .filter(|name| !name.is_empty());
    PodFacts {
        uid: meta.uid.clone().unwrap_or_else(|| name.to_string()).into(),
        name,
        labels: meta.labels.clone().unwrap_or_default(),
        wanted: wanted.map(|names| split_names(names)),
        service_account: account.unwrap_or("default").into(),
        ips: if host_network {
            Vec::new()
        } else {
            addresses(pod)
        },
        host_network,
        life: if ended { PodLife::Ended } else { PodLife::Live },
        vm_extension: annotated(VM_EXTENSION_ANNOTATION).and_then(|word| word.trim().parse().ok()),
        mode: annotated(MODE_ANNOTATION).and_then(|word| Mode::named(word.trim())),
        secrets: spec.map(secrets).unwrap_or_default(),
        version: sandbox(pod).unwrap_or_else(|| {
            let version = meta.resource_version.as_deref();
            version.unwrap_or(fallback_version).into()
        }),
    }
}

/// The secrets of App Service's dialects that the spec writes out. What kubelet would expand, or take from
/// elsewhere (`valueFrom`), is not in the spec. Ephemeral containers do not count: who may add one to a pod
/// is not who wrote its spec.
fn secrets(spec: &PodSpec) -> Vec<SecretDigest> {
    let init = spec.init_containers.iter().flatten();
    let variables = spec.containers.iter().chain(init);
    let variables = variables.flat_map(|container| container.env.iter().flatten());
    let named = variables.filter(|variable| SECRET_VARIABLES.contains(&variable.name.as_str()));
    let values = named.filter_map(|variable| variable.value.as_deref());
    let plain = values.filter(|value| is_written_out(value));
    let mut secrets: Vec<SecretDigest> = plain
        .map(|value| SecretDigest::of(value.as_bytes()))
        .collect();
    secrets.sort_unstable();
    secrets.dedup();
    secrets.truncate(MOST_SECRETS);
    secrets
}

/// Whether a variable's value is what the program will read: there, and nothing that kubelet would expand.
#[must_use]
pub fn is_written_out(value: &str) -> bool {
    !value.is_empty() && !value.contains("$(")
}

/// When the pod's sandbox, and with it its network, came to be (Kubernetes 1.29 and later). Evidence is
/// bound to that, not to the resource version: anybody may annotate a pod, and a hijacked address makes its
/// owner unready, which is a new version, too.
fn sandbox(pod: &Pod) -> Option<Arc<str>> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == SANDBOX_READY && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref()?.0.to_string().into())
}

/// `a, b/c` → `["a", "b/c"]`; an empty annotation asks for no identity at all.
#[must_use]
pub fn split_names(names: &str) -> Vec<String> {
    names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let several = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = several
        .chain(status.pod_ip.as_deref())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
